//! The command line: it refuses what it can tell by itself, passes on what davit says, and never falls over.

use davit_e2e::{Output, python_folder};

use super::{davit_and_stranger, state};

/// A refusal has a sentence and an exit code; 101 is a panic of the client.
fn refused(what: &str, output: &Output) {
    assert!((1..=6).contains(&output.code), "{what}: {output:?}");
    assert!(!output.stderr.trim().is_empty(), "{what}: {output:?}");
    assert!(!output.stderr.contains("panicked"), "{what}: {output:?}");
    assert!(!output.stderr.contains("internal error"), "{what}: {output:?}");
}

#[tokio::test]
async fn wrong_commands_and_manifests_are_refused_with_a_sentence() {
    let (davit, stranger) = davit_and_stranger().await;
    let (cli, before) = (davit.cli(), state(&davit).await);
    for args in [
        vec!["invoke", "echo", "{"],
        vec!["invoke", "../echo", "{}"],
        vec!["invoke", "nothing", "{}"],
        vec!["invoke", "ECHO", "{}"],
        vec!["logs", "echo", "--lines", "-1"],
        vec!["logs", "echo", "--lines", "1000000000"],
        vec!["logs", "nothing"],
        vec!["rollback", "echo"],
        vec!["rollback", "nothing"],
        vec!["delete", "nothing", "--yes"],
        vec!["invocation", "forged"],
        vec!["schedule", "add", "echo", "UP", "* * * * *"],
        vec!["schedule", "add", "echo", "x", "0 0 30 2 *"],
        vec!["schedule", "add", "echo", "x", "* * * * *", "--payload", "{"],
        vec!["schedule", "add", "echo", "x", "* * * * *", "--timezone", "Mars/Base"],
        vec!["schedule", "add", "echo", "x"],
        vec!["schedule", "add", "echo", "x", "@daily", "--every", "1h"],
        vec!["schedule", "add", "echo", "x", "--every", "10s"],
        vec!["schedule", "add", "echo", "x", "--at", "2001-01-01T00:00"],
        vec!["schedule", "add", "echo", "x", "@daily", "--end", "2001-01-01T00:00"],
        vec!["schedule", "add", "echo", "x", "@daily", "--jitter", "a while"],
        vec!["schedule", "add", "echo", "x", "@daily", "--overlap", "fight"],
        vec!["schedule", "add", "echo", "x", "@daily", "--missed-limit", "3"],
        vec!["schedule", "add", "echo", "x", "@daily", "--payload", "\"{{nope}}\""],
        vec!["schedule", "add", "echo", "x", "@daily", "--max-attempts", "0"],
        vec!["schedule", "update", "echo", "x"],
        vec!["schedule", "update", "echo", "x", "--every", "1h"],
        vec!["schedule", "update", "echo", "x", "--unset", "name"],
        vec!["schedule", "preview", "61 * * * *"],
        vec!["schedule", "history", "x"],
        vec!["schedule", "history", "echo", "x", "--before", "never"],
        vec!["schedule", "history", "echo", "x"],
        vec!["schedule", "run", "echo", "x"],
        vec!["topic", "create", "UPPER"],
        vec!["topic", "describe", "nothing"],
        vec!["topic", "delete", "nothing", "--yes"],
        vec!["topic", "publish", "nothing", "{}"],
        vec!["topic", "publish", "nothing", "{"],
        vec!["topic", "subscribe", "nothing", "--function", "echo"],
        vec!["topic", "subscribe", "nothing", "--function", "echo", "--filter", "{\"type\": \"x\"}"],
        vec!["topic", "unsubscribe", "nothing", "x"],
        vec!["secret", "set", "UPPER", "--file", "/etc/hostname"],
        vec!["secret", "set", "x", "--file", "/nonexistent"],
        vec!["token", "create", "--role", "root", "x"],
        vec!["token", "create", "--role", "read", "--namespace", "nowhere", "x"],
        vec!["token", "revoke", "forged"],
        vec!["list", "--namespace", "../default"],
        vec!["list", "--url", "unix:///x"],
    ] {
        refused(&format!("{args:?}"), &cli.attempt(&args).await);
    }
    for settings in [
        "memory_mb = -1",
        "memory_mb = 99999999999999999999",
        "timeout_seconds = 0",
        "network = \"host\"",
        "[env]\nLD_PRELOAD = \"x\"",
        "[env]\n\"A=B\" = \"x\"",
        "[env]\nA = \"\\u0000\"",
        "[secrets]\nA = \"no-such-secret\"",
        "[secrets]\nA = \"../up\"",
        "[[routes]]\npath = \"/../x\"",
        "[[routes]]\npath = \"/v1/x\"",
        "[[routes]]\npath = \"/a\"\n[[routes]]\npath = \"/a\"",
        "[[schedules]]\nname = \"x\"\ncron = \"61 * * * *\"",
        "[[schedules]]\nname = \"x\"",
        "[[schedules]]\nname = \"x\"\ncron = \"@daily\"\nevery = \"1h\"",
        "[[schedules]]\nname = \"x\"\nevery = \"0m\"",
        "[[schedules]]\nname = \"x\"\nat = \"2001-01-01T00:00\"",
        "[[schedules]]\nname = \"x\"\ncron = \"@daily\"\npayload = \"{{nope}}\"",
        "[retry]\nmax_attempts = 0",
        "privileged = true",
        "name = \"again\"",
    ] {
        let folder = python_folder("bad", settings, "def handler(event, context): pass\n");
        let output = cli.try_in(folder.path(), &["deploy"]).await;
        refused(settings, &output);
    }
    let link = python_folder("bad", "", "x = 1\n");
    std::os::unix::fs::symlink("/etc/passwd", link.path().join("passwd")).unwrap();
    refused("a link in the folder", &cli.try_in(link.path(), &["deploy"]).await);
    let foreign = cli.with_token(&stranger);
    for args in [vec!["list"], vec!["invoke", "echo", "{}"], vec!["delete", "echo", "--yes"]] {
        let output = foreign.attempt(&args).await;
        assert!(matches!(output.code, 4 | 5), "{args:?}: {output:?}");
    }
    assert_eq!(state(&davit).await, before);
}
