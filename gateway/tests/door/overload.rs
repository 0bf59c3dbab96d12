//! More than can be served: refusals come at once and leave nothing, and a client that takes nothing keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use davit_api::{FunctionKind, PayloadFormat};
use davit_gateway::version::LiveVersion;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::server;
use crate::support::until;
use crate::{Door, body, door, public, status};

/// Longer than any test: what is answered is not answered because of it.
const BUDGET_SECONDS: u32 = 900;
const CONCURRENCY: u32 = 4;

/// One instance with a few slots, of a kind, and a client's patience.
async fn busy(kind: FunctionKind, patience: Duration) -> (Door, Arc<LiveVersion>) {
    let v = public(|s| {
        s.kind = kind;
        s.payload = PayloadFormat::Body;
        (s.concurrency, s.max_instances, s.timeout_seconds) = (CONCURRENCY, 1, BUDGET_SECONDS);
    });
    let door = door(std::slice::from_ref(&v), |l| l.write_timeout = patience).await;
    door.world.container_with(&v, Some(server().await)).await;
    (door, v)
}

async fn send(door: &Door, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_call_that_finds_the_line_full_is_told_at_once_when_to_come_back() {
    let held = r#"{"sleep": 1000000}"#;
    let post =
        format!("POST /shop/orders HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{held}", held.len());
    for (kind, hold, ask) in [
        (
            FunctionKind::Server,
            "GET /shop/orders/never HTTP/1.1\r\nhost: a\r\n\r\n",
            ["", "te: trailers\r\n"],
        ),
        (FunctionKind::Handler, &post, ["", "x: y\r\n"]),
    ] {
        let (door, v) = patient(kind).await;
        let counts = || door.world.instances.fleet(&v).counts();
        let slots = CONCURRENCY as usize;
        // The line of so few slots is as short as lines get.
        let line = davit_gateway::admit::line_bound(&v.spec, 1_000);
        let mut clients = Vec::new();
        for _ in 0..slots {
            clients.push(send(&door, hold).await);
        }
        // Behind an instance that is only starting, they would stand in the line themselves.
        until("every slot is taken", || counts().in_use == slots).await;
        for _ in 0..line {
            clients.push(send(&door, hold).await);
        }
        until("every slot and every place is taken", || counts().in_use == slots && counts().waiting == line)
            .await;
        for headers in ask.iter().cycle().take(20) {
            let request =
                format!("GET /shop/orders/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
            let mut answer = String::new();
            let mut client = send(&door, &request).await;
            let answered = client.read_to_string(&mut answer);
            tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap().unwrap();
            assert_eq!((status(&answer), body(&answer)["code"].as_str()), (429, Some("too_many_requests")));
            assert_eq!(body(&answer)["retryable"], true);
            assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
            // Nobody left the line for it, and no time has made room in between.
            assert_eq!((counts().in_use, counts().waiting), (slots, line));
        }
        drop(clients);
        until("nothing is left", || counts().waiting == 0 && counts().in_use == 0).await;
        let metrics = &door.world.metrics;
        until("no connection is left", || metrics.connections_open.get() == 0).await;
        assert_eq!((metrics.calls_open.get(), metrics.parked_bytes.get()), (0, 0));
    }
}

async fn patient(kind: FunctionKind) -> (Door, Arc<LiveVersion>) {
    busy(kind, Duration::from_secs(BUDGET_SECONDS.into())).await
}

/// An answer without end, of which nothing is read.
const FLOOD: &str = "GET /shop/orders/flood HTTP/1.1\r\nhost: a\r\n";

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_loses_its_slot() {
    let (door, v) = busy(FunctionKind::Server, Duration::from_millis(300)).await;
    let in_use = || door.world.instances.fleet(&v).counts().in_use;
    let open = || door.world.metrics.connections_open.get();
    for headers in ["", "te: trailers\r\n"] {
        let stuck = send(&door, &format!("{FLOOD}{headers}\r\n")).await;
        until("it is being answered", || in_use() == 1).await;
        until("it is given up", || in_use() == 0 && open() == 0).await;
        drop(stuck);
    }
    assert_eq!(door.world.metrics.clients_stalled.get(), 2);
}

#[tokio::test]
async fn a_client_of_http2_that_opens_no_window_loses_its_slot() {
    let (door, v) = busy(FunctionKind::Server, Duration::from_millis(300)).await;
    let in_use = || door.world.instances.fleet(&v).counts().in_use;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // It answers pings as ever, and reads what comes; only this one answer is not taken.
    tokio::spawn(connection);
    let request = http::Request::get("http://a/shop/orders/flood").body(Full::<Bytes>::default()).unwrap();
    let answer = send.send_request(request).await.unwrap();
    until("it is being answered", || in_use() == 1).await;
    until("it is given up", || in_use() == 0).await;
    drop(answer);
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_gets_all_of_it() {
    let (door, _) = busy(FunctionKind::Server, Duration::from_millis(400)).await;
    for headers in ["", "te: trailers\r\n"] {
        let mut slow = send(&door, &format!("{FLOOD}{headers}\r\n")).await;
        // For a good deal longer than it may pause.
        let mut buffer = vec![0; 4 * 1024 * 1024];
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            slow.read_exact(&mut buffer).await.unwrap();
        }
    }
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/shop/orders/flood").body(Full::<Bytes>::default()).unwrap();
    let mut answer = send.send_request(request).await.unwrap().into_body();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(answer.frame().await.unwrap().is_ok());
    }
}
