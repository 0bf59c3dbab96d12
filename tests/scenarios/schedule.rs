//! The clock as a caller. What it does when davit is killed stands in `kill/clock.rs`.

use davit_e2e::{Davit, eventually};
use serde_json::{Value, json};

#[tokio::test]
async fn lines_that_never_fire_or_make_no_sense_are_refused() {
    let davit = Davit::up_with(&[("DAVIT_SCHEDULE_MIN_INTERVAL", "5m")]).await;
    let cli = davit.cli();
    cli.deploy_example("user-auth").await;
    for line in ["60 * * * *", "*/0 * * * *", "0 0 31 2 *", "* * * * * *", "nonsense"] {
        let output = cli.attempt(&["schedule", "add", "user-auth", "bad", line]).await;
        assert_ne!(output.code, 0, "{line} was accepted");
    }
    let zone =
        cli.attempt(&["schedule", "add", "user-auth", "bad", "* * * * *", "--timezone", "Mars/Base"]).await;
    assert_ne!(zone.code, 0);
    // The operator of this one allows no more than this.
    let often = cli.attempt(&["schedule", "add", "user-auth", "bad", "* * * * *"]).await;
    assert!(
        often.stderr.contains("cron: comes due every 1m; the shortest interval allowed here is 5m"),
        "{often:?}"
    );
    cli.run(&["schedule", "add", "user-auth", "good", "*/5 * * * *"]).await;
}

const TICK: &str = "
def handler(event, context):
    print('tick', event)
    return event
";

/// A moment so many seconds from now.
fn moment(seconds: u32) -> String {
    let date = std::process::Command::new("date")
        .args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .expect("date runs");
    String::from_utf8(date.stdout).expect("text").trim().to_owned()
}

#[tokio::test]
async fn a_moment_comes_once_with_its_payload_filled_in_and_its_history_tells_how_it_went() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("tick", "", TICK).await;
    let (at, payload) =
        (moment(5), r#"{"due": "{{due_at}}", "who": "{{namespace}}/{{function}}/{{schedule}}"}"#);
    cli.run(&["schedule", "add", "tick", "soon", "--at", &at, "--payload", payload]).await;
    let fire = eventually("the moment", async || {
        // No other function has a schedule of that name.
        let fires = cli.json(&["schedule", "history", "soon"]).await;
        match &fires[0]["invocation_state"] {
            state if state == "succeeded" => Ok(fires[0].clone()),
            _ => Err(fires),
        }
    })
    .await;
    assert_eq!((&fire["due_at"], &fire["outcome"]), (&json!(at), &json!("fired")), "{fire}");
    let view = davit.api().succeeded(fire["invocation_id"].as_str().expect("it fired")).await;
    let result: Value = serde_json::from_str(view["result"].as_str().expect("a result")).expect("JSON");
    assert_eq!(result, json!({"due": at, "who": "default/tick/soon"}));
    let table = cli.run(&["schedule", "history", "tick", "soon"]).await.stdout;
    assert!(table.contains("fired") && table.contains("succeeded") && table.contains(" ms"), "{table}");
    let list = cli.run(&["schedule", "list"]).await.stdout;
    assert!(list.contains(&format!("at {at}")) && list.contains("none"), "{list}");
}

#[tokio::test]
async fn a_schedule_is_previewed_added_changed_and_listed() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("tick", "[[schedules]]\nname = \"nightly\"\ncron = \"30 2 * * *\"", TICK).await;
    let preview = [
        "schedule",
        "preview",
        "--every",
        "6h",
        "--start",
        "2090-03-25T23:00",
        "--timezone",
        "Europe/Berlin",
    ];
    let shown = cli.run(&preview).await.stdout;
    assert!(shown.contains("clocks went forward 60 min since the one before"), "{shown}");
    let jittered =
        cli.run(&["schedule", "preview", "@hourly", "--jitter", "5m", "--count", "2"]).await.stdout;
    assert!(jittered.contains("rings within 300 s") && jittered.lines().count() == 3, "{jittered}");
    let add =
        ["schedule", "add", "tick", "often", "--every", "6h", "--overlap", "queue", "--missed", "run-all"];
    cli.run(
        &[&add[..], &["--missed-limit", "3", "--max-attempts", "1", "--end", "2090-01-01T00:00"]].concat(),
    )
    .await;
    let update = [
        "schedule",
        "update",
        "tick",
        "often",
        "--max-age-seconds",
        "60",
        "--unset",
        "end",
        "--unset",
        "missed-limit",
    ];
    let spec = cli.json(&update).await["spec"].clone();
    assert_eq!(spec["retry"]["max_attempts"], 1, "what no flag names stays: {spec}");
    assert_eq!((&spec["retry"]["max_age_seconds"], &spec["end"]), (&json!(60), &Value::Null), "{spec}");
    let told = cli.run(&["schedule", "update", "tick", "nightly", "@daily"]).await;
    assert!(told.stderr.contains("davit.toml"), "{told:?}");
    let all = cli.json(&["schedule", "list"]).await;
    let names: Vec<_> = all.as_array().unwrap().iter().map(|view| view["name"].clone()).collect();
    assert_eq!(names, ["nightly", "often"]);
    // As the file says again.
    cli.deploy_python(
        "tick",
        "memory_mb = 300\n[[schedules]]\nname = \"nightly\"\ncron = \"30 2 * * *\"",
        TICK,
    )
    .await;
    let lines = cli.json(&["schedule", "list", "tick"]).await;
    assert!(lines.as_array().unwrap().iter().any(|view| view["spec"]["cron"] == "30 2 * * *"), "{lines}");
}
