//! The bounds of the accept loop, each met by a client that goes beyond it.

use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Limits, serve};

struct Server {
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<usize>,
}

async fn server(limits: Limits) -> Server {
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/panic", get(|| async { panic!("on purpose") as &'static str }))
        .route("/never", get(std::future::pending::<&'static str>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(serve(listener, app, limits, shutdown.clone()));
    Server { address, shutdown, running }
}

async fn ask(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn answers_and_survives_a_panic() {
    let server = server(Limits::default()).await;
    let panic = ask(&server, "GET /panic HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(panic.starts_with("HTTP/1.1 500") && panic.contains("internal"), "{panic}");
    assert!(ask(&server, HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn headers_that_never_end_are_cut_off() {
    let server = server(Limits { header_timeout: Duration::from_millis(100), ..Limits::default() }).await;
    let started = Instant::now();
    ask(&server, "GET / HTTP/1.1\r\nhost:").await;
    ask(&server, "").await;
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn too_large_headers_are_named() {
    let server = server(Limits { max_header_bytes: 9_000, ..Limits::default() }).await;
    let text = ask(&server, &format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "y".repeat(20_000))).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = server(Limits { max_connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = [0; 12];
    first.read_exact(&mut seen).await.unwrap();
    assert!(ask(&server, HELLO).await.starts_with("HTTP/1.1 503"));
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while !ask(&server, HELLO).await.ends_with("hello") {
        assert!(Instant::now() < deadline, "the slot never came back");
    }
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let server = server(Limits { drain: Duration::from_millis(200), ..Limits::default() }).await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    // An answered request on a second connection proves that the loop has accepted the first.
    assert!(ask(&server, HELLO).await.ends_with("hello"));
    server.shutdown.cancel();
    assert_eq!(server.running.await.unwrap(), 1);
}
