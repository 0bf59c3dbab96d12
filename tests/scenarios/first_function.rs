//! A new user's first minutes: deploy the authentication example, call it, look at it, roll it back.

use davit_e2e::{Davit, examples};
use serde_json::json;

#[tokio::test]
async fn a_lambda_function_written_elsewhere_answers_by_invoke_and_over_http() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("user-auth").await;

    let login = json!({"request": {"type": "login"}}).to_string();
    let answer = cli.invoke("user-auth", &login).await.json();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let other = cli.invoke("user-auth", r#"{"request":{"type":"nonsense"}}"#).await.json();
    assert_eq!(other["statusCode"], 400, "{other}");

    let url = davit.url("/default/user-auth");
    let anonymous = davit.http.post(&url).body(login.clone()).send().await.unwrap();
    assert_eq!(anonymous.status(), 401, "its access is by token");
    let known = davit.http.post(&url).bearer_auth(davit.token()).body(login).send().await.unwrap();
    assert_eq!(known.status(), 200);
}

#[tokio::test]
async fn where_the_time_of_a_cold_start_went_is_told_to_whoever_asks() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let toml = "name = \"slow\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";
    let code = "import time\ntime.sleep(0.3)\ndef handler(event, context):\n    return 1\n";
    cli.deploy_files(&[("davit.toml", toml), ("app.py", code)]).await;
    let folder = tempfile::tempdir().unwrap();
    let cold = cli.try_in(folder.path(), &["invoke", "slow", "--timing"]).await;
    let ms = |name: &str| {
        let row =
            cold.stderr.lines().find_map(|line| line.trim().strip_prefix(name)?.split_whitespace().next());
        row.and_then(|ms| ms.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name}: {cold:?}"))
    };
    let phases = ["wait", "claim", "transfer", "load", "first byte"].map(ms);
    assert!((phases.iter().sum::<f64>() - ms("cold call")).abs() < 0.1, "{cold:?}");
    // A sleep is never shorter than what was asked for, and this one is the import's.
    assert!(ms("load") >= 300.0, "{cold:?}");

    let warm = cli.try_in(folder.path(), &["invoke", "slow", "--timing"]).await;
    assert!(warm.stderr.contains("run") && !warm.stderr.contains("load"), "{warm:?}");
    let load = "davit_cold_start_seconds_sum{phase=\"load\"}";
    assert!(davit.metric(load).await >= 0.3);
    assert_eq!(davit.metric("davit_cold_start_seconds_count{phase=\"claim\"}").await, 1.0);
    davit_e2e::eventually("the phases to be recorded", async || {
        let detail = cli.json(&["describe", "slow"]).await;
        let load = detail["summary"]["usage"]["last_cold"]["load_ms"].as_f64();
        if load.is_some_and(|ms| ms >= 300.0) { Ok(()) } else { Err(detail) }
    })
    .await;
}

#[tokio::test]
async fn versions_are_kept_and_rolled_back_to_without_a_build() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let version = |word: &str| {
        [
            (
                "davit.toml",
                "name = \"word\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n".to_owned(),
            ),
            ("app.py", format!("def handler(event, context):\n    return '{word}'\n")),
        ]
    };
    let deploy = async |word: &str| {
        let files = version(word);
        let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        cli.deploy_files(&files).await;
    };
    deploy("one").await;
    deploy("two").await;
    assert_eq!(cli.invoke("word", "{}").await.json(), json!("two"));
    cli.run(&["rollback", "word"]).await;
    davit_e2e::eventually("the old version to answer", async || {
        let seen = cli.invoke("word", "{}").await.json();
        if seen == json!("one") { Ok(()) } else { Err(seen) }
    })
    .await;
    let versions = cli.json(&["versions", "word"]).await;
    assert_eq!(versions.as_array().map(Vec::len), Some(2), "{versions}");
}

#[tokio::test]
async fn a_version_that_does_not_load_never_becomes_live() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let toml = "name = \"broken\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("davit.toml"), toml).unwrap();
    std::fs::write(folder.path().join("app.py"), "import nothing_of_that_name\n").unwrap();
    let output = cli.try_in(folder.path(), &["deploy"]).await;
    assert_ne!(output.code, 0, "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains("nothing_of_that_name"), "the cause is named: {said}");
    let detail = cli.json(&["describe", "broken"]).await;
    assert!(detail["live"].is_null(), "{detail}");
}

#[tokio::test]
async fn unknown_keys_in_the_manifest_are_refused_with_a_hint() {
    let davit = Davit::up().await;
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(examples().join("user-auth/davit.toml")).unwrap();
    std::fs::write(folder.path().join("davit.toml"), format!("memmory_mb = 128\n{text}")).unwrap();
    let output = davit.cli().try_in(folder.path(), &["deploy"]).await;
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("memory_mb"), "the hint names the key that was meant: {output:?}");
}
