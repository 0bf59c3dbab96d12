//! What davit needs can come from elsewhere, and what it keeps can lie elsewhere.

use std::process::Command;

use davit_e2e::Davit;

#[tokio::test]
async fn runtime_images_are_carried_to_another_machine_as_one_file() {
    let davit = Davit::up().await;
    let (cli, folder) = (davit.cli(), tempfile::tempdir().unwrap());
    let id_of = async |runtime: &str| {
        let images = cli.json(&["images", "list"]).await;
        let image = images.as_array().unwrap().iter().find(|image| image["runtime"] == runtime).cloned();
        image.unwrap_or_else(|| panic!("{images}"))["id"].as_str().unwrap().to_owned()
    };
    let before = id_of("provided").await;
    let file = folder.path().join("images.tar").display().to_string();
    cli.run(&["images", "save", &file, "provided"]).await;
    let again = cli.attempt(&["images", "save", &file, "provided"]).await;
    assert!(again.code == 2 && again.stderr.contains("--force"), "{again:?}");
    assert_eq!(cli.json(&["images", "load", &file]).await, serde_json::json!(["provided"]));
    assert_eq!(id_of("provided").await, before);

    let lacking = cli.attempt(&["images", "save", "x.tar", "cobol"]).await;
    assert!(lacking.code == 2 && lacking.stderr.contains("cobol"), "{lacking:?}");
    let foreign = folder.path().join("foreign.tar").display().to_string();
    let saved = Command::new("docker").args(["save", "--output", &foreign, "debian:trixie-slim"]).status();
    assert!(saved.unwrap().success());
    let refused = cli.attempt(&["images", "load", &foreign]).await;
    assert!(refused.code == 2 && refused.stderr.contains("debian:trixie-slim"), "{refused:?}");
}

#[tokio::test]
async fn code_can_be_kept_in_a_folder_that_all_processes_share() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let mut davit = Davit::up_with(&[("DAVIT_ARTIFACTS_URL", &url)]).await;
    davit.cli().deploy_example("shell-bootstrap").await;
    let kept = std::fs::read_dir(folder.path().join("artifacts")).unwrap().count();
    assert!(kept >= 2, "the source and the bundle are there: {kept}");
    assert_eq!(davit.ask_postgres("select count(*) from artifact_chunks"), ["0"]);
    // A gateway that has no copy fetches the bundle from there.
    davit.kill();
    std::fs::remove_dir_all(davit.state().join("bundles")).unwrap();
    davit.start().await;
    let answer = davit.cli().invoke("shell-bootstrap", r#"{"name":"Ada"}"#).await;
    assert!(answer.stdout.contains("Ada"), "{answer:?}");
}
