//! The clock goes on, whoever dies when it strikes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use davit_e2e::{Chance, Davit, Roles, eventually_within};
use serde_json::Value;

const TICK: &str = "
def handler(event, context):
    print('tick for', event.get('time'))
    return event
";

#[tokio::test]
async fn no_instant_of_a_schedule_is_lost_or_doubled_by_kills_around_the_minute() {
    let mut chance = Chance::new();
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("tick", "[retry]\nmax_attempts = 20\nbase_delay_seconds = 0", TICK).await;
    cli.run(&["schedule", "add", "tick", "every-minute", "* * * * *"]).await;
    // Up to a second before the minute, then up to a second after the next one.
    for earliest in [-1_000, 0] {
        tokio::time::sleep(until_the_minute(earliest)).await;
        chance.pause(Duration::from_secs(1)).await;
        davit.kill();
        davit.start().await;
    }
    let fires = eventually_within(Duration::from_secs(60), "both instants", async || {
        let fires = cli.json(&["schedule", "history", "tick", "every-minute"]).await;
        if fires.as_array().is_some_and(|f| f.len() >= 2) { Ok(fires) } else { Err(fires) }
    })
    .await;
    no_gap_and_nothing_twice(&fires);
    for fire in fires.as_array().unwrap() {
        // The policy runs the latest instant late, and each of these was the latest when somebody looked.
        assert_eq!(fire["outcome"], "fired", "{fires}");
        davit.api().succeeded(fire["invocation_id"].as_str().expect("it carries an invocation")).await;
    }
    let log = cli.run(&["logs", "tick"]).await.stdout;
    assert!(log.contains("tick for"), "{log}");
}

const SCHEDULES: usize = 24;

#[tokio::test]
async fn no_instant_of_many_schedules_is_lost_or_doubled_while_gateways_die_in_turn() {
    let mut chance = Chance::new();
    let mut roles = Roles::start(2).await;
    let cli = roles.cli();
    cli.deploy_python("tick", "[retry]\nmax_attempts = 20\nbase_delay_seconds = 0", TICK).await;
    let names: Vec<String> = (0..SCHEDULES).map(|n| format!("s{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        // Some of them ring later in their minute.
        let jitter: &[&str] = if n % 4 == 0 { &["--jitter", "10s"] } else { &[] };
        cli.run(&[&["schedule", "add", "tick", name, "* * * * *"], jitter].concat()).await;
    }
    for (round, earliest) in [-500, 0].into_iter().enumerate() {
        tokio::time::sleep(until_the_minute(earliest)).await;
        chance.pause(Duration::from_secs(1)).await;
        roles.kill_gateway(round);
        chance.pause(Duration::from_secs(2)).await;
        roles.start_gateway(round).await;
    }
    for name in &names {
        let fires = eventually_within(Duration::from_secs(90), "two instants", async || {
            let fires = cli.json(&["schedule", "history", "tick", name]).await;
            if fires.as_array().is_some_and(|f| f.len() >= 2) { Ok(fires) } else { Err(fires) }
        })
        .await;
        no_gap_and_nothing_twice(&fires);
        for fire in fires.as_array().unwrap() {
            // One gateway was always there, or there again within the minute.
            assert_eq!(fire["outcome"], "fired", "{fires}");
            roles.api(0).succeeded(fire["invocation_id"].as_str().expect("it carries an invocation")).await;
        }
    }
}

/// Time until `offset` milliseconds from a whole minute.
fn until_the_minute(offset: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    Duration::from_millis((offset - now).rem_euclid(60_000) as u64)
}

fn no_gap_and_nothing_twice(fires: &Value) {
    let minutes: Vec<i64> = fires
        .as_array()
        .unwrap()
        .iter()
        .map(|fire| {
            let due = fire["due_at"].as_str().expect("a time");
            assert_eq!(&due[17..19], "00", "an instant is a whole minute: {due}");
            due[11..13].parse::<i64>().unwrap() * 60 + due[14..16].parse::<i64>().unwrap()
        })
        .collect();
    // Newest first, each one minute before the other; the day may change in between.
    for pair in minutes.windows(2) {
        assert_eq!((pair[0] - pair[1]).rem_euclid(24 * 60), 1, "{fires}");
    }
}
