//! The clock as a caller.

use davit_e2e::{Davit, eventually_within};
use std::time::Duration;

#[tokio::test]
async fn a_schedule_wakes_a_function_at_zero_and_each_instant_fires_once() {
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_files(&[
        ("davit.toml", "name = \"tick\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n"),
        (
            "app.py",
            "def handler(event, context):\n    print('tick for', event.get('time'))\n    return event\n",
        ),
    ])
    .await;
    cli.run(&["schedule", "add", "tick", "every-minute", "* * * * *"]).await;
    // A crash in between must neither lose nor double an instant.
    davit.kill();
    davit.start().await;
    let fires = eventually_within(Duration::from_secs(150), "a fire", async || {
        let fires = cli.json(&["schedule", "history", "tick", "every-minute"]).await;
        if fires.as_array().is_some_and(|f| !f.is_empty()) { Ok(fires) } else { Err(fires) }
    })
    .await;
    let invocation = fires[0]["invocation_id"].as_str().expect("it carries an invocation").to_owned();
    eventually_within(Duration::from_secs(60), "its line in the log", async || {
        let log = cli.run(&["logs", "tick"]).await.stdout;
        let count = log.matches("tick for").count();
        if count >= 1 { Ok(()) } else { Err(format!("{invocation}: {log}")) }
    })
    .await;
    let fires = cli.json(&["schedule", "history", "tick", "every-minute"]).await;
    let mut due: Vec<String> = fires.as_array().unwrap().iter().map(|f| f["due_at"].to_string()).collect();
    let all = due.len();
    due.sort();
    due.dedup();
    assert_eq!(due.len(), all, "an instant is there twice: {fires}");
}

#[tokio::test]
async fn lines_that_never_fire_or_make_no_sense_are_refused() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("user-auth").await;
    for line in ["60 * * * *", "*/0 * * * *", "0 0 31 2 *", "* * * * * *", "nonsense"] {
        let output = cli.attempt(&["schedule", "add", "user-auth", "bad", line]).await;
        assert_ne!(output.code, 0, "{line} was accepted");
    }
    let zone =
        cli.attempt(&["schedule", "add", "user-auth", "bad", "* * * * *", "--timezone", "Mars/Base"]).await;
    assert_ne!(zone.code, 0);
}
