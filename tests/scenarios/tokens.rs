//! Who may do what.

use std::time::Duration;

use davit_e2e::{Davit, Steady, eventually};

#[tokio::test]
async fn a_reader_reads_and_does_nothing_else() {
    let davit = Davit::up().await;
    let admin = davit.cli();
    admin.deploy_example("user-auth").await;
    let made = admin.json(&["token", "create", "--role", "read", "--namespace", "default", "a reader"]).await;
    let reader = admin.with_token(made["token"].as_str().expect("the secret is shown once"));
    reader.run(&["list"]).await;
    for refused in [
        vec!["invoke", "user-auth", "{}"],
        vec!["delete", "user-auth", "--yes"],
        vec!["rollback", "user-auth"],
        vec!["token", "list"],
        vec!["schedule", "add", "user-auth", "x", "* * * * *"],
    ] {
        let output = reader.attempt(&refused).await;
        assert_eq!(output.code, 4, "{refused:?}: {output:?}");
    }
    let stranger = admin.with_token("dvt_nonsense");
    assert_eq!(stranger.attempt(&["list"]).await.code, 4);
}

#[tokio::test]
async fn secrets_reach_the_function_and_nothing_else() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let file = davit.state().join("value");
    std::fs::write(&file, "correct horse").unwrap();
    cli.run(&["secret", "set", "api-key", "--file", file.to_str().unwrap()]).await;
    cli.deploy_files(&[
        ("davit.toml", "name = \"keeper\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n[secrets]\nAPI_KEY = \"api-key\"\n"),
        ("app.py", "import os\ndef handler(event, context):\n    return len(os.environ['API_KEY'])\n"),
    ])
    .await;
    assert_eq!(cli.invoke("keeper", "{}").await.stdout.trim(), "13");
    for shown in [
        cli.run(&["secret", "list"]).await.stdout,
        cli.run(&["describe", "keeper"]).await.stdout,
        davit.log(),
    ] {
        assert!(!shown.contains("correct horse"), "{shown}");
    }
}

#[tokio::test]
async fn a_secret_that_is_set_anew_reaches_calls_without_a_deployment_and_fails_none() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let file = davit.state().join("value");
    let set = async |value: &str| {
        std::fs::write(&file, value).unwrap();
        cli.run(&["secret", "set", "api-key", "--file", file.to_str().unwrap()]).await;
    };
    set("old").await;
    let settings = "access = \"public\"\n[secrets]\nAPI_KEY = \"api-key\"";
    let code = "import os\ndef handler(event, context):\n    return os.environ['API_KEY']\n";
    cli.deploy_python("keeper", settings, code).await;
    let seen =
        async || davit.http.get(davit.url("/default/keeper")).send().await.unwrap().text().await.unwrap();
    assert_eq!(seen().await, "old");
    let steady =
        Steady::calling(&davit.http, davit.url("/default/keeper"), String::new(), Duration::from_millis(5));
    set("new").await;
    eventually("calls see the new value", async || match seen().await.as_str() {
        "new" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    for _ in 0..20 {
        assert_eq!(seen().await, "new", "once it has come it stays");
    }
    steady.stop().await.all_good("while the secret changed");
    assert_eq!(cli.json(&["describe", "keeper"]).await["live"]["number"], 1, "nothing was deployed");
}
