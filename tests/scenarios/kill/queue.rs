//! A promise outlives the process that gave it.

use std::collections::HashMap;
use std::time::Duration;

use davit_e2e::{Chance, Davit, eventually_within};
use serde_json::Value;

/// Jobs that are promised in all.
const JOBS: u64 = 40;
/// Kills while they run.
const KILLS: u32 = 3;

const WORKER: &str = "
import time
def handler(event, context):
    print('ran', context.aws_request_id)
    time.sleep(0.3)
    return {'n': event['n']}
";

#[tokio::test]
async fn every_promised_job_is_done_exactly_once_however_often_davit_is_killed() {
    let mut chance = Chance::new();
    let mut davit = Davit::up().await;
    let cli = davit.cli();
    // A kill costs an attempt, so the policy allows as many as there are kills and then some.
    let settings = "max_instances = 4\n[retry]\nmax_attempts = 20\nbase_delay_seconds = 0";
    cli.deploy_python("worker", settings, WORKER).await;

    let mut promised: HashMap<String, u64> = HashMap::new();
    let first_kill = 5 + chance.below(JOBS - 10);
    for n in 0..JOBS {
        if n == first_kill {
            davit.kill();
            let refused = davit.api().promised("worker", n).await;
            assert!(refused.is_err(), "nobody can promise anything now: {refused:?}");
            davit.start().await;
        }
        let id = davit_e2e::eventually("the gateway to take jobs", async || {
            davit.api().promised("worker", n).await
        })
        .await;
        assert!(promised.insert(id, n).is_none(), "two jobs got one id");
    }
    for _ in 1..KILLS {
        chance.pause(Duration::from_millis(1_500)).await;
        davit.kill();
        davit.start().await;
    }

    let mut done: HashMap<String, Value> = HashMap::new();
    for (id, n) in &promised {
        let view = davit.api().succeeded(id).await;
        let result: Value =
            serde_json::from_str(view["result"].as_str().expect("its result is kept")).unwrap();
        assert_eq!(result["n"], *n, "{view}");
        done.insert(id.clone(), view);
    }
    let again = done.values().filter(|view| view["attempt"] != 1).count();
    eprintln!("{again} of {} jobs were interrupted by a kill", done.len());
    each_is_on_record_once(&davit, &done).await;

    // What is done stays as it is, and is not done again by whoever comes next.
    davit.kill();
    davit.start().await;
    for (id, view) in &done {
        assert_eq!(&davit.api().invocation(id).await.body, view);
    }
    let log = cli.run(&["logs", "worker", "--lines", "1000"]).await.stdout;
    for (id, view) in &done {
        let ran = log.matches(&format!("ran {id}")).count() as u64;
        assert!(ran <= view["attempt"].as_u64().unwrap(), "{id} ran {ran} times: {view}");
    }
}

async fn each_is_on_record_once(davit: &Davit, done: &HashMap<String, Value>) {
    let path = "/v1/namespaces/default/functions/worker/invocations?limit=1000";
    eventually_within(Duration::from_secs(60), "nothing to be left", async || {
        let list = davit.api().get(path).await;
        let all = list.body["items"].as_array().cloned().unwrap_or_default();
        let open = all.iter().any(|view| view["state"] != "succeeded");
        if list.status != 200 || open { Err(list) } else { Ok(()) }
    })
    .await;
    let list = davit.api().get(path).await.body;
    let ids: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|view| view["id"].as_str().unwrap()).collect();
    for id in done.keys() {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id} in {ids:?}");
    }
}
