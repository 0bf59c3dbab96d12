//! davit without root: by somebody who may use the engine's socket, and no more.

use std::os::unix::fs::{MetadataExt, chown};

use davit_e2e::{Davit, is_root};

/// `nobody`: Postgres wants its user to have an entry in /etc/passwd, and this one is on every machine.
const UID: u32 = 65_534;

#[tokio::test]
async fn an_unprivileged_user_deploys_and_calls_and_is_told_what_is_missing() {
    let socket = std::fs::metadata("/var/run/docker.sock").expect("the engine's socket");
    let (user, group) = (UID.to_string(), socket.gid().to_string());
    let become_nobody = [
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--groups",
        &group,
        "--no-new-privs",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    // A run of the tests without root shows the same without any change of user.
    let wrapper: &[&str] = if is_root() { &become_nobody } else { &[] };
    let davit = Davit::up_as(wrapper, &[("HOME", "/nonexistent")], |state| {
        if is_root() {
            chown(state, Some(UID), Some(UID)).expect("the directory gets its owner");
        }
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", davit.pid().as_raw_nonzero())).unwrap();
    let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().next().unwrap();
    assert_ne!(uid, "0");

    let cli = davit.cli();
    cli.deploy_example("user-auth").await;
    let answer = cli.invoke("user-auth", r#"{"request":{"type":"login"}}"#).await.json();
    assert_eq!(answer["statusCode"], 200, "{answer}");
    let id = davit.api().enqueue("user-auth", &serde_json::json!({"request": {"type": "login"}})).await;
    davit.api().succeeded(id.body["invocation_id"].as_str().expect("an id")).await;
    let log = davit.log();
    assert!(log.contains("no firewall rule for functions"), "what is missing is said: {log}");
    assert!(log.contains("run davit as root"), "and what would help: {log}");
}
