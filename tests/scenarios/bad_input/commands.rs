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
        vec!["schedule", "history", "echo", "x"],
        vec!["schedule", "run", "echo", "x"],
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
