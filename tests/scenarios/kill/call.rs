//! A call that is cut short is the caller's to repeat; the next one is answered, and nothing is left over.

use std::time::Duration;

use davit_e2e::{Chance, Davit, containers_of, eventually};
use serde_json::json;
use tokio::task::JoinSet;

const SLEEPER: &str = "
import time
def handler(event, context):
    time.sleep(event.get('s', 0))
    return 'ok'
";

#[tokio::test]
async fn after_kills_in_the_middle_of_calls_it_comes_back_without_its_old_containers() {
    let mut chance = Chance::new();
    let mut davit = Davit::up().await;
    davit.cli().deploy_python("slow", "max_instances = 3", SLEEPER).await;
    let installation = davit.endpoint("installation");
    for round in 0..3 {
        // The first round's kill falls into cold starts, the others' into calls as well.
        if round > 0 {
            answers(&davit).await;
        }
        let mut calls = JoinSet::new();
        for _ in 0..6 {
            let api = davit.api();
            calls.spawn(async move { api.invoke("slow", &json!({"s": 5})).await });
        }
        chance.pause(Duration::from_millis(2_000)).await;
        let before = davit.containers();
        davit.kill();
        while let Some(call) = calls.join_next().await {
            // The connection breaks; nobody waits for an answer that cannot come.
            assert_eq!(call.unwrap().status, 0, "no call had the time to be answered");
        }
        davit.start().await;
        answers(&davit).await;
        eventually("the old containers to be removed", async || {
            let now = containers_of(&installation);
            let left: Vec<_> = before.iter().filter(|id| now.contains(id)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

async fn answers(davit: &Davit) {
    eventually("an answer", async || {
        let answer = davit.api().invoke("slow", &json!({})).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}
