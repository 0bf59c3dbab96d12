//! Results that are streamed, from a real runtime process through a real agent to the link's other end.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Instance, head, request, soon};
use davit_link::{FailureKind, InitRequest, Kind, LinkError, Reply, ResultStream, STREAM_BYTES};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Streams as the event says, and notes how much it has got rid of.
const RUNTIME: &str = r#"#!/usr/bin/env python3
import http.client, json, os, threading, time
api = "/2018-06-01/runtime/invocation/"
def work():
    c = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        c.request("GET", api + "next")
        answer = c.getresponse()
        rid, e = answer.headers["Lambda-Runtime-Aws-Request-Id"], json.loads(answer.read())
        c.putrequest("POST", api + rid + "/response")
        for name, value in (("Transfer-Encoding", "chunked"), ("Content-Type", "text/plain"),
                            ("Lambda-Runtime-Function-Response-Mode", e.get("mode", "streaming"))):
            c.putheader(name, value)
        c.endheaders()
        size = e.get("size", 3)
        chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
        for i in range(e.get("chunks", 1)):
            c.send(chunk)
            if size > 1000:
                with open("/run/davit/sent", "w") as note: note.write(str((i + 1) * size))
        end = e.get("end")
        if end == "exit": time.sleep(0.3); os._exit(3)
        if end == "hang": time.sleep(60)
        if end == "cut": c.close(); continue
        trailers = (b"Lambda-Runtime-Function-Error-Type: Error\r\n"
            b"Lambda-Runtime-Function-Error-Body: eyJlcnJvck1lc3NhZ2UiOiJtaWQiLCJlcnJvclR5cGUiOiJFcnJvciJ9\r\n")
        c.send(b"0\r\n" + (trailers if end == "error" else b"") + b"\r\n")
        answer = c.getresponse()
        answer.read()
        with open("/run/davit/answered", "w") as note: note.write(str(answer.status))
threads = [threading.Thread(target=work) for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1")))]
for t in threads: t.start()
for t in threads: t.join()
"#;

async fn running(concurrency: u32) -> Instance {
    let instance = Instance::start(None).await;
    let request = InitRequest { concurrency, ..request(Kind::Handler) };
    instance.init(request, &[("bootstrap", RUNTIME)]).await.unwrap();
    instance
}

async fn call(instance: &Instance, id: &str, event: &str, limit: Duration) -> Result<Reply, LinkError> {
    instance.link().call(head(id, limit), Bytes::copy_from_slice(event.as_bytes()), soon()).await
}

async fn stream(instance: &Instance, id: &str, event: &str) -> ResultStream {
    match call(instance, id, event, SECONDS(60)).await {
        Ok(Reply::Streamed(stream)) => stream,
        other => panic!("not streamed: {other:?}"),
    }
}

/// What comes until the end, and how that was.
async fn rest(stream: &mut ResultStream) -> (u64, Result<(), LinkError>) {
    let mut bytes = 0;
    loop {
        match stream.next().await {
            Some(Ok(part)) => bytes += part.len() as u64,
            Some(Err(error)) => return (bytes, Err(error)),
            None => return (bytes, Ok(())),
        }
    }
}

fn kind<T>(result: Result<T, LinkError>) -> FailureKind {
    match result {
        Err(LinkError::Failure(failure)) => failure.kind,
        Err(other) => panic!("no failure: {other}"),
        Ok(_) => panic!("it went well"),
    }
}

fn noted(instance: &Instance, name: &str) -> u64 {
    let text = std::fs::read_to_string(instance.socket().with_file_name(name)).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_runtime_and_nobody_else() {
    let instance = running(2).await;
    let mut slow = stream(&instance, "slow", r#"{"chunks":60,"size":1000000}"#).await;
    assert_eq!(slow.content_type(), "text/plain");
    // The runtime comes to a stand when the buffers on the way are full.
    let mut before = 1;
    while before != noted(&instance, "sent") || before <= 1 {
        before = noted(&instance, "sent");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // The sockets' buffers in the kernel are the largest part of it.
    assert!(before < 20_000_000, "{before} bytes are somewhere");
    instance.link().ping(soon()).await.unwrap();
    let mut other = stream(&instance, "other", r#"{"chunks":30,"size":100000}"#).await;
    assert!(matches!(rest(&mut other).await, (3_000_000, Ok(()))));
    assert!(matches!(rest(&mut slow).await, (60_000_000, Ok(()))));
    // It goes on with the next call as after any other.
    let mut next = stream(&instance, "next", "{}").await;
    assert!(matches!(rest(&mut next).await, (3, Ok(()))));
}

#[tokio::test]
async fn many_small_pieces_stay_within_the_window() {
    let instance = running(1).await;
    let mut tiny = stream(&instance, "r1", r#"{"chunks":15000,"size":1}"#).await;
    // With their headers these are more than a window; without, much less.
    assert!(matches!(rest(&mut tiny).await, (15_000, Ok(()))));
}

#[tokio::test]
async fn the_first_bytes_come_before_the_end_and_failures_come_after_them() {
    let instance = running(1).await;
    let mut failing = stream(&instance, "r1", r#"{"end":"error"}"#).await;
    let (bytes, end) = rest(&mut failing).await;
    assert_eq!((bytes, kind(end)), (3, FailureKind::FunctionError));
    // Nothing was sent: a plain failure, which a caller can be told as such.
    let failed = call(&instance, "r2", r#"{"chunks":0,"end":"error"}"#, SECONDS(5)).await;
    assert_eq!(kind(failed), FailureKind::FunctionError);
    let mut empty = stream(&instance, "r3", r#"{"chunks":0}"#).await;
    assert!(matches!(rest(&mut empty).await, (0, Ok(()))));
    let mut cut = stream(&instance, "r4", r#"{"end":"cut"}"#).await;
    assert_eq!(kind(rest(&mut cut).await.1), FailureKind::BadResponse);
    let mut dying = stream(&instance, "r5", r#"{"end":"exit"}"#).await;
    let (bytes, end) = rest(&mut dying).await;
    assert_eq!((bytes, kind(end)), (3, FailureKind::Exited));
}

#[tokio::test]
async fn the_deadline_and_a_reader_that_goes_away_end_it() {
    let mut instance = running(1).await;
    let Ok(Reply::Streamed(mut late)) =
        call(&instance, "r1", r#"{"end":"hang"}"#, Duration::from_millis(700)).await
    else {
        panic!("not streamed")
    };
    let (bytes, end) = rest(&mut late).await;
    assert_eq!((bytes, kind(end)), (3, FailureKind::Timeout));
    instance.gone().await;
    let mut instance = running(1).await;
    drop(stream(&instance, "r1", r#"{"end":"hang"}"#).await);
    instance.gone().await;
}

#[tokio::test]
async fn more_than_the_limit_is_cut_off_by_name() {
    let instance = running(1).await;
    let event = format!(r#"{{"chunks":{},"size":1048576}}"#, STREAM_BYTES / 1_048_576 + 1);
    let mut endless = stream(&instance, "r1", &event).await;
    let (bytes, end) = rest(&mut endless).await;
    assert!(bytes <= STREAM_BYTES && bytes > STREAM_BYTES - 2 * 1_048_576, "{bytes}");
    assert_eq!(kind(end), FailureKind::ResponseTooLarge);
}

#[tokio::test]
async fn who_wants_it_whole_gets_it_whole_up_to_the_payload_limit() {
    let instance = running(1).await;
    let whole = instance.invoke("r1", r#"{"chunks":5,"size":1000000}"#, SECONDS(10)).await.unwrap();
    assert_eq!(whole.body.len(), 5_000_000);
    let failed = instance.invoke("r2", r#"{"chunks":7,"size":1000000}"#, SECONDS(10)).await;
    assert_eq!(kind(failed), FailureKind::ResponseTooLarge);
}

#[tokio::test]
async fn an_unknown_response_mode_is_refused_and_does_not_end_the_call() {
    let instance = running(1).await;
    let refused = call(&instance, "r1", r#"{"mode":"backwards"}"#, SECONDS(15));
    tokio::pin!(refused);
    tokio::select! {
        reply = &mut refused => panic!("answered: {reply:?}"),
        () = async {
            while noted(&instance, "answered") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } => {}
    }
    assert_eq!(noted(&instance, "answered"), 400);
}
