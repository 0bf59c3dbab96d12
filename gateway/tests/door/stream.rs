//! Handlers that stream: what the client sees while the function still writes, and when it fails in the middle.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use davit_api::{PayloadFormat, VersionSpec};
use davit_gateway::version::LiveVersion;
use davit_link::RESULT_WINDOW;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Seen, until};
use crate::{Door, body, door, public, status};

const PRELUDE: &str = "application/vnd.awslambda.http-integration-response";

async fn streaming(change: impl FnOnce(&mut VersionSpec)) -> (Door, Arc<LiveVersion>, Arc<Seen>) {
    let v = public(|s| {
        s.payload = PayloadFormat::Body;
        change(s);
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let seen = door.world.container(&v).await;
    (door, v, seen)
}

fn post(event: &Value) -> String {
    let event = event.to_string();
    format!(
        "POST /shop/orders HTTP/1.1\r\nhost: x.example.com\r\ncontent-length: {}\r\n\r\n{event}",
        event.len()
    )
}

async fn send(door: &Door, event: Value) -> TcpStream {
    let mut client = TcpStream::connect(door.address).await.unwrap();
    client.write_all(post(&event).as_bytes()).await.unwrap();
    client
}

/// Reads until this text has come; what came.
async fn read_to(client: &mut TcpStream, text: &str) -> String {
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains(text) {
        let read = tokio::time::timeout(Duration::from_secs(10), client.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("{text:?} never came, only {answer:?}")).unwrap();
        assert_ne!(read, 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    answer
}

fn idle(door: &Door, v: &Arc<LiveVersion>) -> bool {
    door.world.instances.fleet(v).counts().in_use == 0
}

#[tokio::test]
async fn the_first_bytes_reach_the_client_while_the_function_still_writes() {
    let (door, v, seen) = streaming(|_| {}).await;
    let mut client =
        send(&door, json!({"stream": {"chunks": 2, "wait": true, "type": "text/event-stream"}})).await;
    let first = read_to(&mut client, "xxx\r\n").await;
    assert_eq!(status(&first), 200);
    assert!(first.contains("content-type: text/event-stream\r\n"), "{first}");
    assert!(
        first.contains("transfer-encoding: chunked\r\n") && first.contains("x-davit-invocation-id: "),
        "{first}"
    );
    assert_eq!(door.world.metrics.calls_ok.get(), 0, "it has not ended");
    assert!(!idle(&door, &v), "its slot is taken");
    seen.go_on.store(true, SeqCst);
    assert!(read_to(&mut client, "0\r\n\r\n").await.contains("3\r\nxxx\r\n"));
    until("it counts", || door.world.metrics.calls_ok.get() == 1).await;
    until("the slot is back", || idle(&door, &v)).await;
    // The connection and the instance both go on.
    client.write_all(post(&json!({"stream": {}})).as_bytes()).await.unwrap();
    read_to(&mut client, "0\r\n\r\n").await;
    assert_eq!((seen.inits.load(SeqCst), seen.invokes.load(SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_prelude_makes_the_head_and_a_bad_one_a_clean_refusal() {
    let (door, v, seen) = streaming(|_| {}).await;
    let head =
        r#"{"statusCode":418,"headers":{"x-tea":"green","content-length":"3"},"cookies":["a=1","b=2"]}"#;
    let answer = door.raw(post(&json!({"stream": {"type": PRELUDE, "prelude": head}})).as_bytes()).await;
    assert_eq!(status(&answer), 418);
    assert!(
        answer.contains("x-tea: green\r\n") && answer.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"),
        "{answer}"
    );
    assert!(
        !answer.contains("content-length") && answer.ends_with("\r\n\r\n3\r\nxxx\r\n0\r\n\r\n"),
        "{answer}"
    );
    let nothing = door.raw(post(&json!({"stream": {"chunks": 0}})).as_bytes()).await;
    assert!(status(&nothing) == 200 && nothing.ends_with("\r\n\r\n0\r\n\r\n"), "{nothing}");
    let bodiless = json!({"stream": {"type": PRELUDE, "prelude": r#"{"statusCode":204}"#}});
    let answer = door.raw(post(&bodiless).as_bytes()).await;
    assert!(status(&answer) == 204 && answer.ends_with("\r\n\r\n"), "{answer}");
    for how in [
        json!({"prelude": "[1]"}),
        json!({"prelude": "{\"statusCode\":7}"}),
        json!({}),
        json!({"size": 100_000, "chunks": 3}),
    ] {
        let mut how = how;
        how["type"] = PRELUDE.into();
        let answer = door.raw(post(&json!({ "stream": how })).as_bytes()).await;
        assert_eq!(status(&answer), 502, "{answer}");
        assert_eq!(body(&answer)["code"], "function_bad_response", "{answer}");
    }
    until("every slot is back", || idle(&door, &v)).await;
    assert_eq!(seen.inits.load(SeqCst), 1, "the function was well all the time");
}

#[tokio::test]
async fn a_failure_in_the_middle_breaks_the_answer_off_visibly() {
    let (door, v, seen) = streaming(|_| {}).await;
    let answer = door.raw(post(&json!({"stream": {"chunks": 2, "end": "fail"}})).as_bytes()).await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("3\r\nxxx\r\n") && !answer.contains("\r\n0\r\n"), "{answer}");
    assert_eq!(door.world.metrics.calls_ok.get(), 0);
    until("the slot is back", || idle(&door, &v)).await;
    // By HTTP/2 the stream is reset, and the connection goes on.
    let client = TcpStream::connect(door.address).await.unwrap();
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    for (end, whole) in [("fail", false), ("good", true)] {
        let event = json!({"stream": {"chunks": 2, "end": end}}).to_string();
        let request = http::Request::post(format!("http://{}/shop/orders", door.address));
        let response = send.send_request(request.body(Full::<Bytes>::from(event)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.is_ok(), whole);
    }
    assert_eq!(seen.inits.load(SeqCst), 1, "an error of the function does not cost the instance");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_function_and_its_hang_up_ends_it() {
    let (door, v, seen) = streaming(|s| s.timeout_seconds = 60).await;
    let client = send(&door, json!({"stream": {"chunks": 10_000, "size": 10_000, "end": "hang"}})).await;
    let mut before = 0;
    until("it comes to a stand", || {
        std::thread::sleep(Duration::from_millis(100));
        let now = seen.streamed.load(SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
    // What the gateway holds is a window and what HTTP buffers; the kernel's buffers are the rest.
    assert!(before < 16_000_000 + RESULT_WINDOW as usize, "{before} bytes are somewhere");
    assert!(!idle(&door, &v));
    drop(client);
    until("the call is cancelled", || seen.cancels.load(SeqCst) == 1).await;
    until("the slot is back", || idle(&door, &v)).await;
    assert_eq!(door.world.metrics.calls_abandoned.get(), 1);
}

#[tokio::test]
async fn the_deadline_frees_the_slot_even_of_a_client_that_never_reads() {
    let (door, v, _) = streaming(|s| s.timeout_seconds = 1).await;
    let _client = send(&door, json!({"stream": {"chunks": 10_000, "size": 10_000}})).await;
    until("it runs", || !idle(&door, &v)).await;
    until("the slot is back", || idle(&door, &v)).await;
}

#[tokio::test]
async fn the_invoke_api_gets_the_whole_result() {
    let (door, _, seen) = streaming(|_| {}).await;
    let event = json!({"stream": {"chunks": 2}}).to_string();
    let request = format!(
        "POST /v1/namespaces/shop/functions/orders/invocations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer dvt_shop\r\ncontent-length: {}\r\n\r\n{event}",
        event.len()
    );
    let answer = door.raw(request.as_bytes()).await;
    assert!(answer.contains("content-length: "), "{answer}");
    assert_eq!(body(&answer)["event"]["stream"]["chunks"], 2);
    assert_eq!(seen.streamed.load(SeqCst), 0);
}
