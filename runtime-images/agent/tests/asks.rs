//! What functions ask of their platform, through a real agent: what reaches the gateway, and what comes back.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Instance, request};
use davit_link::{AnswerHead, Ask, InitRequest, Kind, LinkEvent};
use serde_json::{Value, json};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A runtime in Python's standard library whose events are the requests that it makes, side by side.
const RUNTIME: &str = r#"#!/usr/bin/env python3
import http.client, json, os, threading
api = "/2018-06-01/runtime/invocation/"
c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
def call(method, path, body=None):
    c.request(method, path, body)
    answer = c.getresponse()
    return answer, answer.read()
def ask(how, answers, n):
    door = http.client.HTTPConnection("127.0.0.1:9001", timeout=how.get("timeout"))
    try:
        door.request(how.get("method", "POST"), how["path"], "x" * how.get("size", 2), how.get("headers", {}))
        answer = door.getresponse()
        text = answer.read().decode()
        answers[n] = {"status": answer.status, "headers": {k.lower(): v for k, v in answer.getheaders()}, "body": text[:99], "size": len(text)}
    except OSError as error:
        answers[n] = {"error": type(error).__name__}
    door.close()
while True:
    answer, event = call("GET", api + "next")
    asks = json.loads(event)
    answers = [None] * len(asks)
    threads = [threading.Thread(target=ask, args=(how, answers, n)) for n, how in enumerate(asks)]
    for t in threads: t.start()
    for t in threads: t.join()
    env = {k: v for k, v in os.environ.items() if k.startswith(("AWS_", "DAVIT_"))}
    call("POST", api + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", json.dumps({"answers": answers, "env": env}))
"#;

async fn running(answers_asks: bool) -> Instance {
    let instance = Instance::start(None).await;
    let request = InitRequest { answers_asks, timeout_seconds: 30, ..request(Kind::Handler) };
    instance.init(request, &[("bootstrap", RUNTIME)]).await.unwrap();
    instance
}

async fn asked(instance: &mut Instance) -> Ask {
    loop {
        let event =
            tokio::time::timeout(SECONDS(20), instance.events.as_mut().unwrap().recv()).await.unwrap();
        match event.unwrap() {
            LinkEvent::Asked(ask) => return ask,
            LinkEvent::Log(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn invoke(instance: &Instance, asks: Value) -> tokio::task::JoinHandle<Value> {
    let link = instance.link().clone();
    let head = common::head("r1", SECONDS(20));
    tokio::spawn(async move {
        let result = link.invoke(head, asks.to_string().into(), common::soon()).await.unwrap();
        serde_json::from_slice(&result.body).unwrap()
    })
}

fn head(status: u16) -> AnswerHead {
    AnswerHead { status, headers: vec![("x-davit-version".into(), "3".into())] }
}

#[tokio::test]
async fn a_request_reaches_the_gateway_without_keys_and_its_answer_the_function() {
    let mut instance = running(true).await;
    let headers = json!({"Authorization": "AWS4-HMAC-SHA256 x", "X-Amz-Security-Token": "t", "Cookie": "c",
        "X-Amz-Invocation-Type": "Event", "Content-Type": "application/json", "X-Davit-Invocation-Id": "forged"});
    let call =
        invoke(&instance, json!([{"path": "/v1/functions/f/invocations?async=true", "headers": headers}]));
    let ask = asked(&mut instance).await;
    assert_eq!(
        (&*ask.head.method, &*ask.head.target, ask.head.size),
        ("POST", "/v1/functions/f/invocations?async=true", 2)
    );
    assert_eq!(ask.head.request_id.as_deref(), Some("r1"), "its own call, whatever it says");
    let mut names: Vec<&str> = ask.head.headers.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "x-amz-invocation-type"]);
    assert_eq!(ask.body.whole().await.unwrap(), "xx");
    ask.to.send(&head(202), Bytes::from_static(b"{}"));
    let result = call.await.unwrap();
    let answer = &result["answers"][0];
    assert_eq!(
        (&answer["status"], &answer["headers"]["x-davit-version"], &answer["body"]),
        (&json!(202), &json!("3"), &json!("{}"))
    );
    assert_eq!(result["env"]["DAVIT_ENDPOINT"], "http://127.0.0.1:9001");
    assert_eq!(result["env"]["AWS_ENDPOINT_URL_LAMBDA"], "http://127.0.0.1:9001");
}

#[tokio::test]
async fn large_bodies_go_both_ways_and_many_requests_side_by_side() {
    let mut instance = running(true).await;
    let asks: Vec<Value> =
        (0..20).map(|n| json!({"path": format!("/v1/{n}"), "size": 1 + n * 40_000})).collect();
    let call = invoke(&instance, json!(asks));
    for _ in 0..20 {
        let ask = asked(&mut instance).await;
        tokio::spawn(async move {
            let body = ask.body.whole().await.unwrap();
            assert_eq!(body.len() as u64, ask.head.size);
            let large = Bytes::from(vec![b'y'; 2 * body.len()]);
            ask.to.send(&head(200), large);
        });
    }
    let result = call.await.unwrap();
    for (n, answer) in result["answers"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&answer["status"], &answer["size"]), (&json!(200), &json!(2 * (1 + n * 40_000))));
    }
}

#[tokio::test]
async fn who_hangs_up_is_noticed_and_who_gets_no_answer_is_told() {
    let mut instance = running(true).await;
    let call = invoke(&instance, json!([{"path": "/v1/x", "timeout": 0.3}]));
    let mut ask = asked(&mut instance).await;
    tokio::time::timeout(SECONDS(10), ask.to.gone()).await.unwrap();
    assert_eq!(call.await.unwrap()["answers"][0]["error"], "TimeoutError");
    let call = invoke(&instance, json!([{"path": "/v1/x"}]));
    drop(asked(&mut instance).await);
    let answer = call.await.unwrap()["answers"][0].clone();
    assert_eq!(
        (&answer["status"], &answer["headers"]["x-amzn-errortype"]),
        (&json!(503), &json!("ServiceException"))
    );
}

#[tokio::test]
async fn what_is_too_much_never_leaves_and_other_paths_are_not_found() {
    let mut instance = running(true).await;
    let long = "h".repeat(70_000);
    let result = invoke(
        &instance,
        json!([
            {"path": "/v1/x", "size": 6_291_557},
            {"path": "/v1/x", "headers": {"x-davit-long": long}},
            {"path": "/2020-01-01/extension/register"},
            {"path": "/v1"},
        ]),
    )
    .await
    .unwrap();
    let statuses: Vec<&Value> = result["answers"].as_array().unwrap().iter().map(|a| &a["status"]).collect();
    assert_eq!(statuses, [413, 431, 404, 404]);
    assert_eq!(result["answers"][0]["headers"]["x-amzn-errortype"], "RequestTooLargeException");
    // More at a time than may be: those over it are refused, and the others are answered.
    let call = invoke(&instance, json!(vec![json!({"path": "/v1/x"}); 300]));
    let mut held = Vec::new();
    while held.len() < davit_link::ASKS {
        held.push(asked(&mut instance).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    held.into_iter().for_each(|ask| ask.to.send(&head(200), Bytes::new()));
    let serve = async {
        loop {
            asked(&mut instance).await.to.send(&head(200), Bytes::new());
        }
    };
    let result = tokio::select! { result = call => result.unwrap(), () = serve => unreachable!() };
    let answers = result["answers"].as_array().unwrap();
    let of = |status: u64| answers.iter().filter(|a| a["status"] == status).count();
    assert_eq!((of(200) + of(429), of(429) > 0), (300, true));
}

#[tokio::test]
async fn a_gateway_that_does_not_know_of_it_is_never_asked() {
    let instance = running(false).await;
    let result = invoke(&instance, json!([{"path": "/v1/functions/f/invocations"}])).await.unwrap();
    assert_eq!(result["answers"][0]["status"], 503);
    assert!(
        result["env"].get("DAVIT_ENDPOINT").is_none() && result["env"].get("AWS_ACCESS_KEY_ID").is_none()
    );
}
