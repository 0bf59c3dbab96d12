//! Several gateways, and what their ends cost: nothing that was accepted, and no call of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use davit_e2e::{ANSWERING_SERVER, Roles, Steady, Who, eventually, folder_of};
use serde_json::json;

const HANDLER: &str = "
import time

def handler(event, context):
    time.sleep(event.get('sleep', 0) if isinstance(event, dict) else 0)
    return 'fine'
";
const PUBLIC: &str = "access = \"public\"\npayload = \"body\"\nmax_instances = 6\n[retry]\nmax_attempts = 20\nbase_delay_seconds = 0";

/// One instance takes many calls, so that the story tells of gateways and not of how soon a busy machine starts containers.
const SERVER_TOML: &str = "name = \"probed\"\nruntime = \"python3.13\"\nkind = \"server\"\ncommand = [\"python3\", \"server.py\"]\naccess = \"public\"\nconcurrency = 100\nmax_instances = 4\ntimeout_seconds = 60\n";

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

/// Calls a hundred times a second and more, at the gateways in turn. One that refuses the connection, or a call
/// because it ends, is answered as a load balancer does: the next one is asked.
async fn probe(http: reqwest::Client, urls: Vec<String>, stop: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let mut calls = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_millis(8));
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let (http, urls, first) = (http.clone(), urls.clone(), calls.len());
        calls.push(tokio::spawn(async move {
            let mut told = String::new();
            for n in 0..4 {
                let url = &urls[(first + n) % urls.len()];
                match http.get(url).timeout(Duration::from_secs(60)).send().await {
                    Ok(answer) if answer.status() == 200 => return None,
                    Ok(answer) => {
                        let status = answer.status();
                        told = format!("{status} {}", answer.text().await.unwrap_or_default());
                        if status != 503 {
                            return Some(told);
                        }
                    }
                    // A GET without an answer may be sent again.
                    Err(error) => told = format!("{error:?}"),
                }
            }
            Some(told)
        }));
    }
    let (count, mut failed) = (calls.len(), Vec::new());
    for call in calls {
        failed.extend(call.await.expect("the call's task ends"));
    }
    (count, failed)
}

#[tokio::test]
async fn gateways_are_replaced_one_after_the_other_under_load_and_no_call_fails() {
    let mut roles = Roles::start(2).await;
    let home = gathered(&roles, "long").await;
    let server = folder_of(&[("davit.toml", SERVER_TOML), ("server.py", ANSWERING_SERVER)]);
    roles.cli().deploy(server.path()).await;
    let urls: Vec<String> = (0..2).map(|at| format!("{}/default/probed", roles.api(at).gateway)).collect();
    for (gateway, url) in urls.iter().enumerate() {
        eventually("an answer", async || {
            let answer = roles.http.get(url).send().await.map_err(|error| error.to_string())?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        roles.pooled(gateway, 1).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let began = std::time::Instant::now();
    let probing = tokio::spawn(probe(roles.http.clone(), urls, stop.clone()));
    for gateway in [home, 1 - home] {
        // A call that is under way when its gateway is asked to end.
        let api = roles.api(gateway);
        let long = tokio::spawn(async move { api.invoke("long", &json!({"sleep": 3})).await });
        eventually("the long call runs", async || {
            let statuses = [roles.status(0).await, roles.status(1).await];
            let fleets =
                statuses.iter().flat_map(|s| s["gateway"]["fleets"].as_array().cloned().unwrap_or_default());
            let fleets = fleets.filter(|fleet| fleet["function"] == "default/long");
            let in_use: u64 = fleets.filter_map(|fleet| fleet["in_use"].as_u64()).sum();
            if in_use > 0 { Ok(()) } else { Err(statuses) }
        })
        .await;
        roles.ask_to_end(Who::Gateway(gateway));
        let answer = long.await.expect("its task ends");
        assert_eq!(answer.status, 200, "calls under way end well: {answer:?}");
        eventually("the gateway to end", async || {
            roles
                .ended(Who::Gateway(gateway))
                .map(|status| assert!(status.success(), "{status}"))
                .ok_or("it runs")
        })
        .await;
        roles.start_gateway(gateway).await;
        // Whoever replaces gateways waits for that, too.
        roles.pooled(gateway, 1).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (calls, failed) = probing.await.expect("the prober ends");
    let rate = calls as f64 / began.elapsed().as_secs_f64();
    assert!(
        failed.is_empty(),
        "{} of {calls} at {rate:.0} a second: {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    eprintln!("{calls} calls at {rate:.0} a second, none failed");
}
