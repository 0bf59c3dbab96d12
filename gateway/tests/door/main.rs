//! The public door, byte by byte: what is refused, what reaches a handler, what passes through to a server.
#![allow(clippy::unwrap_used, reason = "test code")]

mod aliases;
mod contracts;
mod express;
mod gateways;
mod overload;
mod policies;
mod protocols;
mod server;
mod sources;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod topics;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use davit_api::{Access, FunctionKind, PayloadFormat, Role, RouteSpec, TokenId, VersionSpec};
use davit_gateway::config::HttpLimits;
use davit_gateway::dispatch::Acceptor;
use davit_gateway::http::{Door as OpenDoor, Parts, Public, Tls, serve};
use davit_gateway::lanes::Lanes;
use davit_gateway::routes::{Pins, Routes, Table, TokenEntry};
use davit_gateway::version::LiveVersion;
use davit_registry::testing::TestDatabase;
use davit_registry::{MasterKey, Registry, hash_token};
use serde_json::json;
use server::server;
use support::{Seen, World, until, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Door {
    world: World,
    routes: Routes,
    address: SocketAddr,
}

/// A registry that was closed: calls must not need it (invariant 4).
async fn no_registry() -> Registry {
    let registry = TestDatabase::new().await.registry().clone();
    registry.close().await;
    registry
}

async fn door(versions: &[Arc<LiveVersion>], change: impl FnOnce(&mut HttpLimits)) -> Door {
    door_with(versions, change, None).await
}

async fn door_with(
    versions: &[Arc<LiveVersion>],
    change: impl FnOnce(&mut HttpLimits),
    tls: Option<Tls>,
) -> Door {
    door_over(no_registry().await, versions, change, tls).await
}

async fn door_over(
    registry: Registry,
    versions: &[Arc<LiveVersion>],
    change: impl FnOnce(&mut HttpLimits),
    tls: Option<Tls>,
) -> Door {
    let world = World::new(|_| {});
    let routes = Routes::empty();
    let token = |namespace: &str| TokenEntry {
        id: TokenId::new(),
        namespace: Some(namespace.parse().unwrap()),
        role: Role::Invoke,
        expires_at: None,
    };
    let tokens =
        HashMap::from([(hash_token("dvt_shop"), token("shop")), (hash_token("dvt_other"), token("other"))]);
    routes.store(Table::build(versions.to_vec(), tokens));
    open(registry, world, routes, change, tls).await
}

/// A door to these routes.
async fn open(
    registry: Registry,
    world: World,
    routes: Routes,
    change: impl FnOnce(&mut HttpLimits),
    tls: Option<Tls>,
) -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let public = Public::new(Parts {
        pins: Pins::new(routes.clone(), registry.clone(), Arc::new(MasterKey::from_bytes([7; 32]))),
        routes: routes.clone(),
        corridor: world.corridor.clone(),
        acceptor: Acceptor::spawn(registry.clone(), Arc::default()),
        registry,
        metrics: world.metrics.clone(),
        parked_bytes: 1 << 30,
        port: address.port(),
    });
    let mut limits = HttpLimits::default();
    change(&mut limits);
    let lanes = Arc::new(Lanes::start(2).unwrap());
    let hard = CancellationToken::new();
    let stop = world.stop.clone();
    tokio::spawn(serve(listener, OpenDoor { public: Arc::new(public), limits, tls, stop, hard }, lanes));
    Door { world, routes, address }
}

impl Door {
    /// Sends raw bytes and reads until the other side closes or falls silent.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(400), stream.read(&mut buffer)).await
        {
            if n == 0 {
                break;
            }
            answer.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
    async fn get(&self, path: &str, headers: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x.example.com\r\n{headers}\r\n").as_bytes()).await
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn body(answer: &str) -> serde_json::Value {
    let text = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {answer:?}"))
}

fn public(change: impl FnOnce(&mut VersionSpec)) -> Arc<LiveVersion> {
    version(|s| {
        s.access = Access::Public;
        change(s);
    })
}

#[tokio::test]
async fn bad_requests_get_a_clean_refusal_and_reach_nobody() {
    let v = public(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let seen = door.world.container(&v).await;
    let big = "x".repeat(70_000);
    let many = (0..150).map(|n| format!("h{n}: x\r\n")).collect::<String>();
    for (request, statuses) in [
        ("GET /shop/orders/../x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &[400][..]),
        ("GET /shop/orders%2fx HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET /shop/orders/%2e%2e HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET /shop/orders/%252e HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET /shop/orders\\x HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET /shop/orders/%00 HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET //shop/orders HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("GET /shop/orders HTTP/1.1\r\n\r\n".into(), &[400]),
        ("GET /shop/orders HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), &[400]),
        ("GET /shop/orders HTTP/1.1\r\nhost: a@b\r\n\r\n".into(), &[400]),
        ("GET http://b/shop/orders HTTP/1.1\r\nhost: a\r\n\r\n".into(), &[400]),
        ("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n".into(), &[400, 405]),
        ("POST /shop/orders HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello".into(), &[400]),
        ("POST /shop/orders HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello".into(), &[400]),
        ("POST /shop/orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n".into(), &[400]),
        ("POST /shop/orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(), &[400]),
        ("POST /shop/orders HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0_2e\r\n".into(), &[400]),
        ("GET /shop/orders HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n".into(), &[400]),
        ("GET /shop/orders HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".into(), &[400]),
        (format!("GET /shop/orders HTTP/1.1\r\nhost: a\r\nx: {big}\r\n\r\n"), &[431]),
        (format!("GET /shop/orders HTTP/1.1\r\nhost: a\r\n{many}\r\n"), &[431]),
        (format!("POST /shop/orders HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 1u64 << 40), &[413]),
    ] {
        let answer = door.raw(request.as_bytes()).await;
        let shown: String = request.chars().take(120).collect();
        assert!(statuses.contains(&status(&answer)), "{shown:?} got {:?}", answer.lines().next());
    }
    assert_eq!((seen.inits.load(SeqCst), seen.invokes.load(SeqCst)), (0, 0));
}

#[tokio::test]
async fn before_its_first_look_at_the_routes_a_gateway_says_so_and_denies_nothing() {
    let door = open(no_registry().await, World::new(|_| {}), Routes::empty(), |_| {}, None).await;
    let token = "authorization: Bearer dvt_shop\r\n";
    let accept = "/v1/namespaces/shop/functions/orders/invocations";
    for (path, headers) in [("/shop/orders", ""), (accept, token), ("/shop/orders", token)] {
        let answer = door.get(path, headers).await;
        // Neither 404 nor 401: a client would believe that there is no such function, or that its token is bad.
        assert_eq!((status(&answer), &body(&answer)["code"]), (503, &json!("unavailable")), "{answer}");
        assert_eq!(body(&answer)["retryable"], true);
    }
    assert_eq!(status(&door.get("/healthz", "").await), 200);
}

#[tokio::test]
async fn a_client_that_still_sends_too_much_is_told_so_instead_of_being_cut_off() {
    let v = public(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    for framing in ["content-length: 7340032", "transfer-encoding: chunked"] {
        let mut request =
            format!("POST /shop/orders HTTP/1.1\r\nhost: x.example.com\r\n{framing}\r\n\r\n").into_bytes();
        if framing.ends_with("chunked") {
            request.extend(b"700000\r\n");
        }
        request.resize(request.len() + 7 * 1024 * 1024, b'x');
        if framing.ends_with("chunked") {
            request.extend(b"\r\n0\r\n\r\n");
        }
        // `raw` sends all of it before it reads, and fails if the connection is reset meanwhile.
        assert_eq!(status(&door.raw(&request).await), 413, "{framing}");
    }
}

#[tokio::test]
async fn two_lengths_in_one_request_never_leave_a_usable_connection() {
    let v = public(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    door.world.container(&v).await;
    for order in [
        ["content-length: 3", "transfer-encoding: chunked"],
        ["transfer-encoding: chunked", "content-length: 3"],
    ] {
        let smuggled = format!(
            "POST /shop/orders HTTP/1.1\r\nhost: a\r\n{}\r\n{}\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
            order[0], order[1]
        );
        let answer = door.raw(smuggled.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"));
    }
}

#[tokio::test]
async fn access_decides_who_reaches_a_function() {
    for (access, expected) in [
        (Access::Private, [404, 404, 404]),
        (Access::Token, [401, 403, 200]),
        (Access::Public, [200, 200, 200]),
    ] {
        let v = version(|s| s.access = access);
        let door = door(std::slice::from_ref(&v), |_| {}).await;
        door.world.container(&v).await;
        for (headers, expected) in
            ["", "authorization: Bearer dvt_other\r\n", "authorization: Bearer dvt_shop\r\n"]
                .iter()
                .zip(expected)
        {
            let answer = door.get("/shop/orders/x", headers).await;
            assert_eq!(status(&answer), expected, "{access:?} {headers:?}");
            if expected == 200 {
                assert!(
                    body(&answer)["event"]["headers"]["authorization"].is_null(),
                    "a function sees no token of ours"
                );
            }
        }
    }
}

#[tokio::test]
async fn handlers_get_the_path_below_their_address_and_routes_their_parameters() {
    let v = public(|s| {
        s.routes = vec![
            RouteSpec::new("GET".parse().unwrap(), "/items/{id}".parse().unwrap(), PayloadFormat::V2),
            RouteSpec {
                host: Some("api.example.com".parse().unwrap()),
                ..RouteSpec::new(Default::default(), "/{rest+}".parse().unwrap(), PayloadFormat::V2)
            },
        ];
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    door.world.container(&v).await;
    let event = body(&door.get("/shop/orders/a/b?x=1", "").await)["event"].clone();
    assert_eq!((event["rawPath"].as_str(), event["rawQueryString"].as_str()), (Some("/a/b"), Some("x=1")));
    let event = body(&door.get("/items/a%20b", "").await)["event"].clone();
    assert_eq!(event["pathParameters"], json!({"id": "a b"}));
    let wrong = door.raw(b"POST /items/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(status(&wrong), 405);
    assert!(wrong.contains("allow: GET"), "{wrong}");
    assert_eq!(status(&door.raw(b"GET /anything HTTP/1.1\r\nhost: API.example.com:99\r\n\r\n").await), 200);
    assert_eq!(status(&door.raw(b"GET /anything HTTP/1.1\r\nhost: other\r\n\r\n").await), 404);
}

#[tokio::test]
async fn the_invoke_api_needs_a_token_and_says_how_the_call_went() {
    let v = version(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    door.world.container(&v).await;
    let post = |headers: &str, path: &str, event: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n{event}", event.len())
    };
    let path = "/v1/namespaces/shop/functions/orders/invocations";
    let token = "authorization: Bearer dvt_shop\r\n";
    assert_eq!(status(&door.raw(post("", path, "{}").as_bytes()).await), 401);
    assert_eq!(
        status(&door.raw(post("authorization: Bearer dvt_other\r\n", path, "{}").as_bytes()).await),
        403
    );
    assert_eq!(status(&door.raw(post(token, path, "{").as_bytes()).await), 400);
    assert_eq!(
        status(
            &door.raw(post(token, "/v1/namespaces/shop/functions/none/invocations", "{}").as_bytes()).await
        ),
        404
    );
    let answer = door.raw(post(token, path, "{\"log\":\"hi\"}").as_bytes()).await;
    assert_eq!(status(&answer), 200);
    for header in [
        "x-davit-invocation-id: ",
        "x-davit-cold: true",
        "x-davit-version: 1",
        "x-davit-timing: wait=",
        "x-davit-cold-phases: wait=",
        "x-davit-log-tail: aGkK",
    ] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    let failed = door.raw(post(token, path, "{\"fail\":true}").as_bytes()).await;
    assert_eq!((status(&failed), body(&failed)["code"].as_str()), (502, Some("function_error")));
    assert_eq!(body(&failed)["function_error"]["errorMessage"], "boom");
    // With no registry, a promise cannot be made, and is not.
    let later = door.raw(post(token, &format!("{path}?async=true"), "{}").as_bytes()).await;
    assert_eq!((status(&later), body(&later)["code"].as_str()), (503, Some("unavailable")));
}

#[tokio::test]
async fn a_gateway_says_which_version_it_serves() {
    let v = version(|_| {});
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let get = |headers: &str, function: &str| {
        format!("GET /v1/namespaces/shop/functions/{function}/live HTTP/1.1\r\nhost: a\r\n{headers}\r\n")
    };
    let token = "authorization: Bearer dvt_shop\r\n";
    let answer = door.raw(get(token, "orders").as_bytes()).await;
    assert_eq!((status(&answer), body(&answer)["version"].as_u64()), (200, Some(1)));
    assert_eq!(status(&door.raw(get(token, "none").as_bytes()).await), 404);
    assert_eq!(status(&door.raw(get("", "orders").as_bytes()).await), 401);
}

#[tokio::test]
async fn headers_that_drip_are_cut_off_however_steadily_they_do() {
    let door = door(&[], |limits| limits.header_timeout = Duration::from_millis(300)).await;
    let (mut read, mut write) = TcpStream::connect(door.address).await.unwrap().into_split();
    let dripping = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        // Forty times the limit, if nobody cuts it off.
        for byte in b"GET /healthz HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat_n(&b'y', 240)) {
            pace.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
        panic!("it could drip to the end");
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), read.read_to_end(&mut answer)).await.unwrap();
    drop(read);
    dripping.await.unwrap();
}

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let door = door(&[], |l| l.header_timeout = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET /healthz HT").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
}

async fn serving() -> (Door, Arc<LiveVersion>, Arc<Seen>) {
    let v = public(|s| {
        s.kind = FunctionKind::Server;
        (s.concurrency, s.max_instances, s.timeout_seconds) = (4, 1, 1);
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let seen = door.world.container_with(&v, Some(server().await)).await;
    (door, v, seen)
}

#[tokio::test]
async fn servers_get_the_request_itself_without_the_address_and_the_hops() {
    let (door, v, seen) = serving().await;
    let answer = door
        .get(
            "/shop/orders/a%20b/?x=%2F&y",
            "x-keep: 1\r\nconnection: keep-alive, x-drop\r\nx-drop: 1\r\nx-forwarded-for: 9.9.9.9\r\n",
        )
        .await;
    assert_eq!(status(&answer), 200);
    let told = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(told.starts_with("GET /a%20b/?x=%2F&y HTTP/1.1\r\n"), "{told}");
    assert!(told.contains("host: x.example.com\r\n") && told.contains("x-keep: 1\r\n"));
    assert!(
        told.contains("x-forwarded-for: 127.0.0.1\r\n")
            && told.contains("x-forwarded-prefix: /shop/orders\r\n")
    );
    assert!(!told.contains("x-drop") && !told.contains("9.9.9.9"));
    let head = answer.split_once("\r\n\r\n").unwrap().0;
    assert!(head.contains("x-mine: yes") && !head.contains("x-hop"), "{head}");
    assert_eq!(seen.inits.load(SeqCst), 1);
    until("the slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
}

#[tokio::test]
async fn responses_stream_and_hold_their_slot_until_the_end() {
    let (door, v, _) = serving().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"GET /shop/orders/drip HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut so_far = String::new();
    while !so_far.contains("one") {
        let n = stream.read(&mut buffer).await.unwrap();
        so_far.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(!so_far.contains("two"));
    assert_eq!(door.world.instances.fleet(&v).counts().in_use, 1);
    drop(stream);
    until("the slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
}

#[tokio::test]
async fn websockets_pass_and_hold_their_slot() {
    let (door, v, _) = serving().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let ask = "GET /shop/orders/ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\nsec-websocket-version: 13\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    assert_eq!(door.world.instances.fleet(&v).counts().in_use, 1);
    drop(stream);
    until("the slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
    assert_eq!(status(&door.get("/shop/orders/unasked", "").await), 502);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
    let (door, v, _) = serving().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream
        .write_all(b"GET /shop/orders/never HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(3), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(status(&answer), 504);
    until("the slot is back", || door.world.instances.fleet(&v).counts().in_use == 0).await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_not_an_error_of_the_next_request() {
    let (door, _, _) = serving().await;
    for _ in 0..20 {
        assert_eq!(
            status(
                &door.raw(b"GET /shop/orders/once HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await
            ),
            200
        );
    }
}

#[tokio::test]
async fn an_event_reaches_a_server_as_a_post() {
    let (door, v, _) = serving().await;
    let outcome = door
        .world
        .corridor
        .invoke(davit_gateway::invoke::Target { version: v.clone() }, support::call(&v, json!({})))
        .await;
    let Ok(davit_gateway::invoke::Answer::Event { body, .. }) = outcome.result else { panic!("no answer") };
    assert!(body.starts_with(b"POST /events HTTP/1.1\r\n"), "{body:?}");
}
