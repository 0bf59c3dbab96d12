//! Controller and gateways as processes of their own, over one Postgres.

use std::collections::HashSet;
use std::time::Duration;

use davit_e2e::{Roles, Steady, containers_of, eventually, eventually_within};
use serde_json::{Value, json};

const HANDLER: &str = "
def handler(event, context):
    print('ran', context.aws_request_id)
    return {'n': event.get('n')}
";
const PUBLIC: &str =
    "access = \"public\"\npayload = \"body\"\n[retry]\nmax_attempts = 20\nbase_delay_seconds = 0";

async fn answers(roles: &Roles, gateway: usize, function: &str) {
    eventually("an answer", async || {
        let answer = roles.api(gateway).invoke(function, &json!({})).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn each_role_may_go_while_the_other_goes_on() {
    let mut roles = Roles::start(1).await;
    let cli = roles.cli();
    for name in ["warm", "cold"] {
        cli.deploy_python(name, PUBLIC, HANDLER).await;
    }
    answers(&roles, 0, "warm").await;
    let id = roles.api(0).promised("warm", 7).await.expect("the queue takes work");
    assert_eq!(roles.api(0).succeeded(&id).await["result"], json!({"n": 7}).to_string().replace(':', ": "));

    // Without a controller: what is warm or pooled answers, and so does the queue.
    roles.pooled(0, 1).await;
    roles.stop_controller();
    let url = format!("{}/default/warm", roles.api(0).gateway);
    let steady = Steady::calling(&roles.http, url, "{}".into(), Duration::from_millis(20));
    let cold = roles.api(0).invoke("cold", &json!({})).await;
    assert_eq!(cold.status, 200, "a pooled cold start needs no controller: {cold:?}");
    let id = roles.api(0).promised("warm", 8).await.expect("the queue needs no controller");
    roles.start_controller().await;
    roles.api(0).succeeded(&id).await;
    steady.stop().await.all_good("warm calls without a controller");

    // A killed gateway comes back, and what its former self held is cleared away.
    let before = containers_of(&roles.installation());
    roles.kill_gateway(0);
    roles.start_gateway(0).await;
    answers(&roles, 0, "warm").await;
    let installation = roles.installation();
    eventually("the old gateway's containers to be removed", async || {
        let now = containers_of(&installation);
        let left: Vec<_> = before.iter().filter(|id| now.contains(id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    cli.deploy_python("later", PUBLIC, HANDLER).await;
    answers(&roles, 0, "later").await;
}

#[tokio::test]
async fn a_standby_takes_over_from_a_controller_that_died() {
    let mut roles = Roles::start(1).await;
    roles.cli().deploy_python("before", PUBLIC, HANDLER).await;
    assert!(roles.acts().await);
    roles.start_standby().await;

    roles.lose_controller();
    assert!(!roles.acts().await, "the other one's lease had not lapsed yet");
    // Any controller takes orders; this one is carried out as soon as it acts.
    roles.cli().deploy_python("after", PUBLIC, HANDLER).await;
    assert!(roles.acts().await);
    answers(&roles, 0, "after").await;
    answers(&roles, 0, "before").await;
}

#[tokio::test]
async fn two_gateways_share_the_work_and_do_nothing_twice() {
    let roles = Roles::start(2).await;
    let cli = roles.cli();
    cli.deploy_python("worker", PUBLIC, HANDLER).await;
    cli.run(&["schedule", "add", "worker", "every-minute", "* * * * *"]).await;
    for gateway in [0, 1] {
        answers(&roles, gateway, "worker").await;
    }
    let mut promised = HashSet::new();
    for n in 0..40 {
        let id = roles.api(n as usize % 2).promised("worker", n).await.expect("the queue takes work");
        assert!(promised.insert(id));
    }
    let fires = eventually_within(Duration::from_secs(100), "an instant of the schedule", async || {
        let fires = cli.json(&["schedule", "history", "worker", "every-minute"]).await;
        if fires.as_array().is_some_and(|f| !f.is_empty()) { Ok(fires) } else { Err(fires) }
    })
    .await;
    let mut due: Vec<&Value> = fires.as_array().unwrap().iter().map(|f| &f["due_at"]).collect();
    due.dedup();
    assert_eq!(due.len(), fires.as_array().unwrap().len(), "an instant is there twice: {fires}");
    for fire in fires.as_array().unwrap() {
        promised.insert(fire["invocation_id"].as_str().expect("it fired").to_owned());
    }
    for id in &promised {
        let view = roles.api(0).succeeded(id).await;
        assert_eq!(view["attempt"], 1, "{view}");
    }
    let log = eventually("a line from each run", async || {
        let log = cli.run(&["logs", "worker", "--lines", "1000"]).await.stdout;
        let missing = promised.iter().filter(|id| !log.contains(&format!("ran {id}"))).count();
        if missing == 0 { Ok(log) } else { Err(format!("{missing} lines are missing: {log}")) }
    })
    .await;
    for id in &promised {
        assert_eq!(log.matches(&format!("ran {id}")).count(), 1, "{id} ran more than once: {log}");
    }
}
