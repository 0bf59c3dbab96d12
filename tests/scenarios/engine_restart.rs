//! The container engine dies under load and comes back. It is an engine of the story's own.

use std::time::{Duration, Instant};

use davit_e2e::{Davit, Engine, Steady, eventually};
use serde_json::{Value, json};

const HANDLER: &str = "
import time
def handler(event, context):
    time.sleep(event.get('s', 0))
    return 'fine'
";
/// Seconds that a call may take in all.
const BUDGET: u64 = 10;

#[tokio::test]
async fn when_the_engine_is_killed_and_comes_back_no_call_hangs_and_all_heals() {
    let Some(mut engine) = Engine::start_with(&["davit/runtime-python3.13:latest"]).await else {
        eprintln!("skipped: an engine of its own needs root");
        return;
    };
    // Without its way to iptables davit leaves the firewall of this machine alone: the engine's bridge lies in
    // another network namespace, where a rule of this one would guard nothing.
    let host = engine.host();
    let settings = [("DOCKER_HOST", host.as_str()), ("PATH", "/usr/bin:/bin"), ("DAVIT_POOL_BASE", "0")];
    let davit = Davit::up_with(&settings).await;
    let options = format!(
        "access = \"public\"\npayload = \"body\"\nnetwork = \"none\"\nmax_instances = 3\ntimeout_seconds = {BUDGET}"
    );
    davit.cli().deploy_python("fn", &options, HANDLER).await;
    davit.cli().invoke("fn", "{}").await;

    let callers: Vec<Steady> = (0..3)
        .map(|_| {
            let body = json!({"s": 0.2}).to_string();
            Steady::calling(&davit.http, davit.url("/default/fn"), body, Duration::from_millis(10))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // First the engine alone, then everything at once, as when the machine's power fails.
    for containers_too in [false, true] {
        engine.kill();
        if containers_too {
            engine.kill_containers();
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        engine.start().await;
        good_again(&davit, Instant::now()).await;
    }
    for caller in callers {
        let tally = caller.stop().await;
        assert!(tally.good > 0);
        // Its own budget, and a second for a busy machine to say so.
        assert!(tally.slowest < Duration::from_secs(BUDGET + 5), "a call hung: {:?}", tally.slowest);
        for (at, status, text) in &tally.bad {
            let body: Value = serde_json::from_str(text).unwrap_or_default();
            let named = matches!(
                body["code"].as_str(),
                Some("instance_lost" | "no_capacity" | "unavailable" | "too_many_requests")
            );
            assert!(named, "after {at:?} an error without its name: {status} {text}");
        }
    }
    davit.cli().deploy_python("later", "network = \"none\"", HANDLER).await;
    davit.cli().invoke("later", "{}").await;
    nothing_dead_is_left(&davit, &engine).await;
}

async fn good_again(davit: &Davit, since: Instant) {
    eventually("ten good answers in a row", async || {
        for _ in 0..10 {
            let answer = davit.api().invoke("fn", &json!({})).await;
            if answer.status != 200 {
                return Err((since.elapsed(), answer));
            }
        }
        Ok(())
    })
    .await;
}

/// Every container that the engine still has runs, and is known to davit.
async fn nothing_dead_is_left(davit: &Davit, engine: &Engine) {
    eventually("the dead containers to be removed", async || {
        let listed = engine.docker().args(["ps", "-aq", "--filter", "status=exited"]).output().unwrap();
        let dead = String::from_utf8_lossy(&listed.stdout).into_owned();
        if dead.trim().is_empty() { Ok(()) } else { Err(dead) }
    })
    .await;
    let instances = davit.api().get("/v1/instances").await;
    assert_eq!(instances.status, 200, "{instances:?}");
}
