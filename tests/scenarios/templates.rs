//! What `davit init` makes works as it is: each template is made, deployed and called.

use davit_e2e::{Cli, Davit};

async fn made_and_called(cli: &Cli, template: &str, answer: &str) {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("from-{template}");
    let made = cli.try_in(folder.path(), &["init", &name, "--template", template]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let again = cli.try_in(folder.path(), &["init", &name, "--template", template]).await;
    assert!(again.code == 2 && again.stderr.contains("nothing was written"), "{again:?}");
    cli.deploy(&folder.path().join(&name)).await;
    let output = cli.invoke(&name, r#"{"name": "Ada"}"#).await;
    assert!(output.stdout.replace(' ', "").contains(&answer.replace(' ', "")), "{template}: {output:?}");
}

#[tokio::test]
async fn every_interpreted_template_works_as_it_is() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    for template in ["python", "node", "ruby", "php"] {
        made_and_called(&cli, template, r#""message":"Hello, Ada!""#).await;
    }
    made_and_called(&cli, "provided-shell", r#""you_said":{"name":"Ada"}"#).await;
    made_and_called(&cli, "server", r#""seen":{"name":"Ada"}"#).await;
}

#[tokio::test]
async fn every_template_that_is_built_works_as_it_is() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    for template in ["go", "rust", "java", "typescript"] {
        made_and_called(&cli, template, r#""message":"Hello, Ada!""#).await;
    }
}
