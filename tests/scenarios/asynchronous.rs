//! Work that is handed over: in order, later, under a name of its own, ended, made again, and its outcome sent on.

use std::time::Duration;

use davit_e2e::{Cli, Davit, eventually};
use serde_json::{Value, json};

const NOTER: &str = "
import time
def handler(event, context):
    time.sleep(event.get('sleep', 0))
    if event.get('fail'):
        raise ValueError('as asked')
    print('did', event)
    return event
";

/// No second attempt, so that what fails is dead at once.
const ONCE: &str = "max_instances = 4\n[retry]\nmax_attempts = 1";

async fn accepted(cli: &Cli, args: &[&str]) -> String {
    let mut all = vec!["invoke", "noter", "--async"];
    all.extend(args);
    cli.run(&all).await.stdout.trim().to_owned()
}

async fn state(davit: &Davit, id: &str, wanted: &str) -> Value {
    davit_e2e::eventually_within(Duration::from_secs(60), "the invocation to get there", async || {
        let seen = davit.api().invocation(id).await;
        if seen.body["state"] == wanted { Ok(seen.body) } else { Err(seen) }
    })
    .await
}

fn time(view: &Value, field: &str) -> chrono::DateTime<chrono::Utc> {
    view[field].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn calls_of_one_key_end_in_order_though_the_first_is_slow_and_put_off_ones_wait() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("noter", ONCE, NOTER).await;
    let later = accepted(&cli, &["{\"n\":9}", "--delay", "4s"]).await;
    // Slow enough that the others are accepted meanwhile, on a busy machine, too.
    let mut ids = vec![accepted(&cli, &["{\"n\":0,\"sleep\":5}", "--ordering-key", "customer-5"]).await];
    let beside = accepted(&cli, &["{\"n\":5}", "--ordering-key", "customer-6"]).await;
    for n in 1..3 {
        let event = json!({ "n": n }).to_string();
        ids.push(accepted(&cli, &[&event, "--ordering-key", "customer-5"]).await);
    }
    let mut ends = Vec::new();
    for id in &ids {
        ends.push(time(&state(&davit, id, "succeeded").await, "ended_at"));
    }
    assert!(ends.is_sorted(), "{ends:?}");
    let other = state(&davit, &beside, "succeeded").await;
    assert!(time(&other, "ended_at") < ends[0], "another key does not wait");
    let delayed = state(&davit, &later, "succeeded").await;
    assert!(time(&delayed, "ended_at") >= time(&delayed, "accepted_at") + chrono::TimeDelta::seconds(4));
}

#[tokio::test]
async fn a_name_makes_it_one_call_and_a_batch_is_all_or_nothing() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("noter", ONCE, NOTER).await;
    let named = ["{\"order\":7}", "--idempotency-key", "order-7"];
    let first = accepted(&cli, &named).await;
    assert_eq!(accepted(&cli, &named).await, first);
    let other = cli.attempt(&["invoke", "noter", "{}", "--async", "--idempotency-key", "order-7"]).await;
    assert_ne!(other.code, 0);
    assert!(other.stderr.contains("idempotency key"), "{}", other.stderr);
    state(&davit, &first, "succeeded").await;

    let path = "/v1/namespaces/default/functions/noter/invocations/batch";
    let send = async |body: Value| {
        let request = davit.api().http.post(format!("{}{path}", davit.api().gateway));
        davit.api().send(request.body(body.to_string())).await
    };
    let item = |n: u32| json!({"payload": {"n": n}});
    let whole = send(json!({"invocations": (0..25).map(item).collect::<Vec<_>>()})).await;
    assert_eq!(whole.status, 202, "{whole:?}");
    let ids: Vec<String> = serde_json::from_value(whole.body["invocation_ids"].clone()).unwrap();
    assert_eq!(ids.len(), 25);
    for id in &ids {
        state(&davit, id, "succeeded").await;
    }
    let bad = json!({"invocations": [item(1), {"payload": {}, "options": {"delay_seconds": 99_999_999}}]});
    let refused = send(bad).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body["message"].as_str().unwrap().starts_with("invocations[1]: delay_seconds"));
    let list = davit.api().get("/v1/namespaces/default/functions/noter/invocations?limit=1000").await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 26, "nothing of it was accepted");
}

/// Says how much time it has, and takes as long as it is asked to.
const WORKER: &str = "
import time
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    time.sleep(event['sleep'])
    return left
";

#[tokio::test]
async fn an_asynchronous_call_may_take_longer_than_one_that_is_waited_for_but_not_for_ever() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let once = "\n[retry]\nmax_attempts = 1";
    cli.deploy_python("noter", &format!("timeout_seconds = 1\nasync_timeout_seconds = 3600{once}"), WORKER)
        .await;
    let short = format!("timeout_seconds = 1\nasync_timeout_seconds = 2{once}");
    cli.deploy_python("short", &short, WORKER).await;
    let waited = davit.api().invoke("noter", &json!({"sleep": 4})).await;
    assert_eq!((waited.status, waited.code()), (504, "function_timeout"), "{waited:?}");
    assert!(waited.body.to_string().contains("1.00 seconds"), "{waited:?}");

    let id = accepted(&cli, &["{\"sleep\": 4}"]).await;
    let done = state(&davit, &id, "succeeded").await;
    let left: f64 = done["result"].as_str().unwrap().parse().unwrap();
    assert!((3_000_000.0..=3_600_000.0).contains(&left), "what is left of an hour: {done}");

    let id = cli.run(&["invoke", "short", "--async", "{\"sleep\": 60}"]).await.stdout;
    let dead = state(&davit, id.trim(), "dead").await;
    assert_eq!(dead["error"]["code"], "function_timeout", "{dead}");
    assert!(dead["error"].to_string().contains("2.00 seconds"), "its own limit is named: {dead}");

    // One that would run for long ends when somebody wishes so, and its instance with it.
    let id = accepted(&cli, &["{\"sleep\": 3000}"]).await;
    state(&davit, &id, "running").await;
    cli.run(&["invocation", "cancel", &id]).await;
    state(&davit, &id, "cancelled").await;
    davit_e2e::eventually("its instance to be gone", async || {
        let status = davit.status().await;
        let fleets = status["gateway"]["fleets"].as_array().cloned().unwrap_or_default();
        let busy = fleets.iter().any(|fleet| fleet["function"] == "default/noter" && fleet["in_use"] != 0);
        if busy { Err(status) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn what_runs_can_be_ended_and_what_died_can_be_made_again() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("noter", ONCE, NOTER).await;
    let slow = accepted(&cli, &["{\"sleep\": 25}"]).await;
    state(&davit, &slow, "running").await;
    cli.run(&["invocation", "cancel", &slow]).await;
    let ended = state(&davit, &slow, "cancelled").await;
    assert!(time(&ended, "ended_at") < time(&ended, "accepted_at") + chrono::TimeDelta::seconds(20));
    let waiting = accepted(&cli, &["{}", "--delay", "1h"]).await;
    cli.run(&["invocation", "cancel", &waiting]).await;
    state(&davit, &waiting, "cancelled").await;

    let failed = accepted(&cli, &["{\"fail\": true}"]).await;
    let dead = state(&davit, &failed, "dead").await;
    assert_eq!(dead["error"]["function_error"]["errorType"], "ValueError");
    let listed = cli.run(&["dead-letter", "list"]).await.stdout;
    assert!(listed.contains(&failed), "{listed}");
    // Mended, it does what it was asked for.
    cli.deploy_python("noter", ONCE, &NOTER.replace("event.get('fail')", "False")).await;
    let again = cli.run(&["dead-letter", "redrive", "--function", "noter"]).await.stdout;
    state(&davit, again.trim(), "succeeded").await;
    assert_eq!(davit.api().invocation(&failed).await.body["redriven_as"], again.trim());
    cli.run(&["dead-letter", "purge", "--all", "--yes"]).await;
    assert_eq!(davit.api().invocation(&failed).await.status, 404);
}

#[tokio::test]
async fn outcomes_are_sent_on_to_another_function() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("cleaner", "", NOTER).await;
    let settings = "[retry]\nmax_attempts = 1\n[destinations]\non_failure = { function = \"cleaner\" }";
    cli.deploy_python("noter", settings, NOTER).await;
    let id = accepted(&cli, &["{\"fail\": true, \"n\": 3}"]).await;
    let dead = state(&davit, &id, "dead").await;
    let carrier = dead["sent_on"]["invocations"][0].as_str().unwrap().to_owned();
    let carried = state(&davit, &carrier, "succeeded").await;
    assert_eq!(carried["function"], "cleaner");
    let record: Value = serde_json::from_str(carried["result"].as_str().unwrap()).unwrap();
    assert_eq!(record["requestContext"]["requestId"], id.as_str());
    assert_eq!(record["requestPayload"]["n"], 3);
    assert_eq!(record["responsePayload"]["errorType"], "ValueError");
    // By the function's own address, too, where its caller prefers not to wait.
    cli.deploy_python("noter", "access = \"public\"", NOTER).await;
    let answer = eventually("the address to answer", async || {
        let request = davit.api().http.post(davit.url("/default/noter")).header("prefer", "respond-async");
        let answer = davit.api().send(request.body("hello")).await;
        if answer.status == 202 { Ok(answer) } else { Err(answer) }
    })
    .await;
    let view = state(&davit, answer.body["invocation_id"].as_str().unwrap(), "succeeded").await;
    assert_eq!(view["source"], "http");
}

#[tokio::test]
async fn having_no_place_to_run_costs_no_attempt() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    let code = "
import time
def handler(event, context):
    print('ran', context.aws_request_id)
    time.sleep(0.05)
    raise ValueError('as asked')
";
    let settings = "max_instances = 1\n[retry]\nmax_attempts = 2\nbase_delay_seconds = 0";
    cli.deploy_python("noter", settings, code).await;
    // More than one instance and its line of 64 can take.
    let items: Vec<Value> = (0..150).map(|n| json!({"payload": {"n": n}})).collect();
    let url = format!("{}/v1/namespaces/default/functions/noter/invocations/batch", davit.api().gateway);
    let request = davit.api().http.post(url).body(json!({ "invocations": items }).to_string());
    let accepted = davit.api().send(request).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let ids: Vec<String> = serde_json::from_value(accepted.body["invocation_ids"].clone()).unwrap();
    for id in &ids {
        state(&davit, id, "dead").await;
    }
    // Each by itself: all lines together are more than one look at a log gives.
    for id in &ids {
        let path = format!("/v1/namespaces/default/functions/noter/logs?invocation_id={id}&limit=100");
        eventually("two runs of each", async || {
            let log = davit.api().get(&path).await.body.to_string();
            if log.matches(&format!("ran {id}")).count() == 2 { Ok(()) } else { Err(log) }
        })
        .await;
    }
}
