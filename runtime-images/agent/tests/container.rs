//! The agent in real, hardened containers of the runtime images. Build those and the static agent first:
//! `scripts/build-agent.sh`, `scripts/images.sh`, then `cargo test -p davit-agent --test container -- --ignored`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Instance, request, soon};
use davit_link::{FailureKind, InitRequest, Kind, LinkError};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

const APP: &str = r#"
import os, time
def handler(event, context):
    print("got", event)
    if "sleep" in event: time.sleep(event["sleep"])
    if "exit" in event: os._exit(event["exit"])
    if "raise" in event: raise ValueError(event["raise"])
    if "eat" in event:
        hold = []
        while True: hold.append(bytearray(b"x" * 1000000))
    try: os.kill(1, 9)
    except OSError: pass
    peek = []
    for name in ("/proc/1/environ", "/proc/1/mem"):
        try: open(name, "rb").read(1); peek.append(name)
        except OSError: pass
    return {"uid": os.getuid(), "colour": os.environ["COLOUR"], "peek": peek, "id": context.aws_request_id,
            "score": open("/proc/self/oom_score_adj").read().strip(), "left": context.get_remaining_time_in_millis()}
"#;

fn failure<T: std::fmt::Debug>(result: Result<T, LinkError>) -> davit_link::Failure {
    match result {
        Err(LinkError::Failure(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

async fn python(memory_mb: u32) -> Instance {
    let instance = Instance::container("python3.13", memory_mb).await;
    instance.init(request(Kind::Handler), &[("app.py", APP)]).await.unwrap();
    instance
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_python_function_lives_and_dies() {
    let instance = Instance::container("python3.13", 128).await;
    let begun = Instant::now();
    let done = instance.init(request(Kind::Handler), &[("app.py", APP)]).await.unwrap();
    println!("init {:?} {done:?}", begun.elapsed());
    let result = instance.invoke("0b4ef7a4-9e7b-4ad7-a7b5-7a1f1d9f6c59", "{}", SECONDS(5)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&result.body).unwrap();
    assert_eq!((answer["uid"].as_u64(), answer["colour"].as_str()), (Some(993), Some("blue")));
    assert_eq!(answer["score"], "1000");
    assert_eq!(answer["peek"], serde_json::json!([]));
    let begun = Instant::now();
    for i in 0..200 {
        instance.invoke(&format!("warm-{i}"), "{}", SECONDS(5)).await.unwrap();
    }
    println!("warm call {:?}", begun.elapsed() / 200);
    let begun = Instant::now();
    instance.link().freeze().await.unwrap();
    println!("freeze {:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    instance.link().thaw().await.unwrap();
    instance.invoke("thawed", "{}", SECONDS(5)).await.unwrap();
    println!("thaw and call {:?}", begun.elapsed());
    let failed = failure(instance.invoke("r", r#"{"raise":"boom"}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.message.as_str()), (FailureKind::FunctionError, "boom"));
    let mut instance = instance;
    let failed = failure(instance.invoke("r2", r#"{"sleep":60}"#, SECONDS(1)).await);
    assert_eq!(failed.kind, FailureKind::Timeout);
    instance.gone().await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn memory_and_exit_are_told_apart() {
    let mut instance = python(96).await;
    let failed = failure(instance.invoke("r", r#"{"eat":1}"#, SECONDS(30)).await);
    assert_eq!(failed.kind, FailureKind::OutOfMemory, "{failed}");
    instance.gone().await;
    let mut instance = python(128).await;
    let failed = failure(instance.invoke("r", r#"{"exit":4}"#, SECONDS(5)).await);
    assert_eq!((failed.kind, failed.exit_code), (FailureKind::Exited, Some(4)));
    instance.gone().await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn concurrent_python_calls_have_workers_of_their_own() {
    let instance = Instance::container("python3.13", 256).await;
    let request = InitRequest { concurrency: 4, ..request(Kind::Handler) };
    instance.init(request, &[("app.py", APP)]).await.unwrap();
    let begun = Instant::now();
    let calls: Vec<_> = (0..4)
        .map(|i| {
            let (link, id) = (instance.link().clone(), format!("r{i}"));
            tokio::spawn(async move {
                link.invoke(common::head(&id, SECONDS(9)), r#"{"sleep":0.5}"#.into(), soon()).await
            })
        })
        .collect();
    for (i, call) in calls.into_iter().enumerate() {
        let answer: serde_json::Value = serde_json::from_slice(&call.await.unwrap().unwrap().body).unwrap();
        assert_eq!(answer["id"], format!("r{i}"));
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn closing_the_link_ends_the_container() {
    let mut instance = python(128).await;
    instance.link = None;
    instance.gone().await;
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_node_function_answers() {
    let instance = Instance::container("node20", 256).await;
    let code =
        "exports.handler = async (event, context) => ({ id: context.awsRequestId, twice: event.n * 2 });";
    instance.init(request(Kind::Handler), &[("app.js", code)]).await.unwrap();
    let result = instance.invoke("r1", r#"{"n":21}"#, SECONDS(5)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&result.body).unwrap();
    assert_eq!(answer, serde_json::json!({"id": "r1", "twice": 42}));
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_shell_bootstrap_answers_as_at_aws() {
    // The loop of AWS's custom runtime tutorial.
    let bootstrap = r#"#!/bin/sh
set -euo pipefail
while true
do
  HEADERS="$(mktemp)"
  EVENT_DATA=$(curl -sS -LD "$HEADERS" "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/next")
  REQUEST_ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  curl -sS "http://${AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/$REQUEST_ID/response" -d "Echoing request: '$EVENT_DATA'" > /dev/null
done
"#;
    let instance = Instance::container("provided", 128).await;
    instance.init(request(Kind::Handler), &[("bootstrap", bootstrap)]).await.unwrap();
    let result = instance.invoke("r1", "{}", SECONDS(5)).await.unwrap();
    assert_eq!(&result.body[..], b"Echoing request: '{}'");
}

#[tokio::test]
#[ignore = "needs Docker and the runtime images"]
async fn a_server_in_a_warm_image_is_reached_without_a_network() {
    let instance = Instance::container("python3.13", 128).await;
    let command = ["python3", "-m", "http.server", "8080"].map(String::from).to_vec();
    instance.init(InitRequest { command, ..request(Kind::Server) }, &[("x.txt", "hello")]).await.unwrap();
    instance.link().freeze().await.unwrap();
    let mut stream = instance.link().open(soon()).await.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"GET /x.txt HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}
