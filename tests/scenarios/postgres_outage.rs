//! Postgres dies; deployed functions do not notice, and nothing is promised that cannot be kept.

use std::time::{Duration, Instant};

use davit_e2e::{Answer, Api, Cli, Davit, Postgres, Steady, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

const HANDLER: &str = "
def handler(event, context):
    return 'fine'
";
const PUBLIC: &str = "access = \"public\"\npayload = \"body\"";

/// Deploys one function that will be warm and some that nobody has called when Postgres goes.
async fn prepare(davit: &Davit, cold: usize) -> Steady {
    let cli = davit.cli();
    // One instance, so that jobs of the queue do not take those that the cold starts are to find.
    cli.deploy_python("warm", &format!("{PUBLIC}\nmax_instances = 1"), HANDLER).await;
    for n in 0..cold {
        cli.deploy_python(&format!("cold-{n}"), PUBLIC, HANDLER).await;
    }
    cli.invoke("warm", "{}").await;
    the_pool_is_full(davit, cold).await;
    let pause = Duration::from_millis(20);
    Steady::calling(&davit.http, davit.url("/default/warm"), "{}".into(), pause)
}

/// Waits until the gateway holds enough instances for as many cold starts.
async fn the_pool_is_full(davit: &Davit, starts: usize) {
    eventually("a full pool", async || {
        let status = davit.status().await;
        let ready = davit_e2e::pooled_python(&status);
        if ready >= starts as u64 { Ok(()) } else { Err(status) }
    })
    .await;
}

async fn everything_works_again(cli: &Cli, api: &Api, promised: &[String]) {
    let id = eventually("the queue to take work", async || api.promised("warm", 0).await).await;
    for id in promised.iter().chain([&id]) {
        api.succeeded(id).await;
    }
    // What is on its way through a restart of Postgres may fail once and be tried again, as a user would.
    eventually("a deploy", async || {
        let folder = davit_e2e::python_folder("later", PUBLIC, HANDLER);
        let output = cli.try_in(folder.path(), &["deploy"]).await;
        if output.code == 0 { Ok(()) } else { Err(output) }
    })
    .await;
    cli.invoke("later", "{}").await;
}

#[tokio::test]
async fn the_own_postgres_is_killed_and_comes_back_while_calls_go_on() {
    let davit = Davit::up_with(&[("DAVIT_POOL_BASE", "3")]).await;
    let steady = prepare(&davit, 2).await;
    let api = davit.api();
    let mut promised = Vec::new();
    for cold in ["cold-0", "cold-1"] {
        let old = davit.postgres_pid().expect("a Postgres of its own");
        kill_process(old, Signal::KILL).unwrap();
        let answer = davit.http.post(davit.url(&format!("/default/{cold}"))).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 200, "a pooled cold start needs no database: {:?}", answer.text().await);
        for n in 0..10 {
            promised.extend(kept_or_refused(api.promised("warm", n).await));
        }
        eventually("a new server", async || {
            let new = davit.postgres_pid().filter(|pid| *pid != old);
            let answers = api.get("/v1/namespaces").await;
            if new.is_some() && answers.status == 200 { Ok(()) } else { Err((new, answers)) }
        })
        .await;
    }
    everything_works_again(&davit.cli(), &api, &promised).await;
    steady.stop().await.all_good("warm calls while the own Postgres was killed twice");
}

/// A promise, or an honest refusal that may be tried again.
fn kept_or_refused(answer: Result<String, Answer>) -> Option<String> {
    match answer {
        Ok(id) => Some(id),
        Err(refused) => {
            assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{refused:?}");
            assert_eq!(refused.body["retryable"], true, "{refused:?}");
            None
        }
    }
}

#[tokio::test]
async fn with_an_external_postgres_down_functions_answer_and_the_queue_says_503() {
    let mut postgres = Postgres::start_new().await;
    let davit = Davit::up_with(&[("DATABASE_URL", &postgres.url()), ("DAVIT_POOL_BASE", "3")]).await;
    let steady = prepare(&davit, 2).await;
    let api = davit.api();
    let mut promised: Vec<String> = Vec::new();
    for n in 0..5 {
        promised.push(api.promised("warm", n).await.expect("it is up"));
    }
    postgres.kill();
    let down = Instant::now();
    let mut colds = ["cold-0", "cold-1"].into_iter();
    // Longer than a gateway's lease of ten seconds, twice, so that everybody's patience is tried.
    while down.elapsed() < Duration::from_secs(20) {
        let refused = api.promised("warm", 0).await.expect_err("nothing can be promised without a database");
        kept_or_refused(Err(refused));
        let answer = api.get("/v1/namespaces").await;
        assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
        if let Some(cold) = colds.next() {
            let answer = api.invoke(cold, &json!({})).await;
            assert_eq!(answer.status, 200, "a pooled cold start needs no database: {answer:?}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    postgres.start().await;
    everything_works_again(&davit.cli(), &api, &promised).await;
    steady.stop().await.all_good("warm calls while Postgres was down");
}
