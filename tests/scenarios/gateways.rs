//! Several gateways, and what their ends cost: nothing that was accepted, and no call of the others.

use std::time::Duration;

use davit_e2e::{Roles, Steady, Who, eventually};
use serde_json::json;

const HANDLER: &str = "
import time

def handler(event, context):
    time.sleep(event.get('sleep', 0) if isinstance(event, dict) else 0)
    return 'fine'
";
const PUBLIC: &str = "access = \"public\"\npayload = \"body\"\nmax_instances = 6\n[retry]\nmax_attempts = 20\nbase_delay_seconds = 0";

async fn fleet(roles: &Roles, gateway: usize, function: &str) -> u64 {
    let status = roles.status(gateway).await;
    let fleets = status["gateway"]["fleets"].as_array().cloned().unwrap_or_default();
    let its = fleets.iter().filter(|fleet| fleet["function"] == format!("default/{function}"));
    its.filter_map(|fleet| Some(fleet["active"].as_u64()? + fleet["frozen"].as_u64()?)).sum()
}

/// Deploys a function and calls it at every gateway; answers which one of two its calls are gathered at.
async fn gathered(roles: &Roles, function: &str) -> usize {
    roles.cli().deploy_python(function, PUBLIC, HANDLER).await;
    for _ in 0..3 {
        for gateway in [0, 1] {
            eventually("an answer", async || {
                let answer = roles.api(gateway).invoke(function, &json!({})).await;
                if answer.status == 200 { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }
    let there = [fleet(roles, 0, function).await, fleet(roles, 1, function).await];
    assert_eq!(there.iter().filter(|n| **n > 0).count(), 1, "calls at both, instances at one: {there:?}");
    usize::from(there[1] > 0)
}

#[tokio::test]
async fn a_gateway_that_is_killed_costs_the_other_nothing_and_no_accepted_work() {
    let mut roles = Roles::start(2).await;
    let home = gathered(&roles, "steady").await;
    let other = 1 - home;
    let url = format!("{}/default/steady", roles.api(home).gateway);
    let steady = Steady::calling(&roles.http, url, "{}".into(), Duration::from_millis(10));
    let mut promised = Vec::new();
    for n in 0..60 {
        let api = roles.api(n as usize % 2);
        promised.push(api.promised("steady", n).await.expect("the queue takes work"));
    }
    roles.crash(Who::Gateway(other));
    for n in 60..80 {
        promised.push(roles.api(home).promised("steady", n).await.expect("the queue takes work"));
    }
    for id in &promised {
        roles.api(home).succeeded(id).await;
    }
    let tally = steady.stop().await;
    assert!(tally.good > 50, "{tally:?}");
    tally.all_good("warm calls at the other gateway");

    // Now the one that had the instances. Whoever comes next is served by the one that is left.
    roles.start_gateway(other).await;
    roles.crash(Who::Gateway(home));
    let api = roles.api(other);
    eventually("an answer", async || {
        let answer = api.invoke("steady", &json!({})).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    let url = format!("{}/default/steady", api.gateway);
    let steady = Steady::calling(&roles.http, url, "{}".into(), Duration::from_millis(10));
    roles.start_gateway(home).await;
    steady.stop().await.all_good("calls while the other one comes back");
}
