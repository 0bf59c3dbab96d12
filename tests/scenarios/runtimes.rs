//! Every runtime answers, with the examples that the repository ships.

use davit_e2e::Davit;

#[tokio::test]
async fn node_and_plain_executables_speak_the_same_contract() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    for name in ["greeter-node", "shell-bootstrap"] {
        cli.deploy_example(name).await;
        let answer = cli.invoke(name, r#"{"name":"Ada"}"#).await;
        assert!(answer.stdout.contains("Ada"), "{name}: {answer:?}");
    }
}
