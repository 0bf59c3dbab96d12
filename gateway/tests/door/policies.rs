//! What holds for an address besides who may call: CORS, limits, compression, headers, paths, error pages.

use std::io::Read as _;
use std::sync::atomic::Ordering::SeqCst;

use davit_api::{FunctionKind, VersionSpec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::server;
use crate::{Door, body, door, public, status};

/// Sends bytes, asks for the connection's end, and reads until it comes, however long that takes.
async fn raw(door: &Door, bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).unwrap().replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(door: &Door, path: &str, headers: &str) -> String {
    raw(door, format!("GET {path} HTTP/1.1\r\nhost: x.example.com\r\n{headers}\r\n").as_bytes()).await
}

/// A header's value in an answer.
fn header(answer: &str, name: &str) -> Option<String> {
    let head = answer.split_once("\r\n\r\n").map_or(answer, |(head, _)| head);
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

fn set(spec: &mut VersionSpec, http: Value, routes: Value) {
    // What is looked at here is no matter of time, however busy the machine is.
    spec.timeout_seconds = 120;
    spec.http = Some(serde_json::from_value(http).unwrap());
    spec.routes = serde_json::from_value(routes).unwrap();
    spec.check().unwrap();
}

async fn handler(http: Value, routes: Value) -> (Door, std::sync::Arc<crate::support::Seen>) {
    let v = public(|s| set(s, http, routes));
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    let seen = door.world.container(&v).await;
    (door, seen)
}

async fn serving(http: Value, routes: Value) -> Door {
    let v = public(|s| {
        (s.kind, s.concurrency, s.max_instances) = (FunctionKind::Server, 4, 1);
        set(s, http, routes);
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    door.world.container_with(&v, Some(server().await)).await;
    door
}

async fn preflight(door: &Door, path: &str, origin: &str, method: &str) -> String {
    let asked = format!("origin: {origin}\r\naccess-control-request-method: {method}\r\n");
    raw(door, format!("OPTIONS {path} HTTP/1.1\r\nhost: a\r\n{asked}\r\n").as_bytes()).await
}

#[tokio::test]
async fn preflights_are_answered_without_the_function_and_every_answer_says_who_may_read_it() {
    let (door, seen) = handler(
        json!({"cors": {"origins": ["https://a.example.com"], "credentials": true}}),
        json!([
            {"method": "POST", "path": "/orders", "access": "token"},
            {"method": "GET", "path": "/inside", "access": "private"},
            {"method": "GET", "path": "/open", "http": {"cors": {"origins": ["*"]}}},
        ]),
    )
    .await;
    let origin = "https://a.example.com";
    for path in ["/shop/orders/x", "/orders"] {
        let answer = preflight(&door, path, origin, "POST").await;
        assert_eq!(status(&answer), 204, "{answer}");
        assert_eq!(header(&answer, "access-control-allow-origin").as_deref(), Some(origin));
        assert_eq!(header(&answer, "access-control-allow-methods").as_deref(), Some("POST"));
    }
    let refused = preflight(&door, "/orders", "https://evil.example", "POST").await;
    assert_eq!((status(&refused), &body(&refused)["code"]), (403, &json!("forbidden")), "{refused}");
    // What a page may not call, or what is not there, says nothing about itself.
    assert_eq!(status(&preflight(&door, "/orders", origin, "PUT").await), 405);
    assert_eq!(status(&preflight(&door, "/inside", origin, "GET").await), 405);
    assert_eq!(seen.invokes.load(SeqCst), 0, "no function was asked");

    let from = format!("origin: {origin}\r\n");
    for (path, expected) in [("/shop/orders", 200), ("/open", 200)] {
        let answer = get(&door, path, &from).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(header(&answer, "access-control-allow-origin").is_some(), "{answer}");
    }
    let open = get(&door, "/open", &from).await;
    assert_eq!(header(&open, "access-control-allow-origin").as_deref(), Some("*"));
    // A refusal is for the page to read, too.
    let post = format!("POST /orders HTTP/1.1\r\nhost: a\r\n{from}content-length: 0\r\n\r\n");
    let refused = raw(&door, post.as_bytes()).await;
    assert_eq!(status(&refused), 401);
    assert_eq!(header(&refused, "access-control-allow-origin").as_deref(), Some(origin));
    assert_eq!(header(&refused, "access-control-allow-credentials").as_deref(), Some("true"));
    let other = get(&door, "/shop/orders", "origin: https://evil.example\r\n").await;
    assert_eq!((status(&other), header(&other, "access-control-allow-origin")), (200, None));
}

#[tokio::test]
async fn servers_are_left_to_answer_preflights_where_nothing_is_said_about_them() {
    let door =
        serving(json!({}), json!([{"method": "POST", "path": "/own", "http": {"cors": {"origins": ["*"]}}}]))
            .await;
    let answer = preflight(&door, "/shop/orders/x", "https://a", "PUT").await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("OPTIONS /x HTTP/1.1"), "the server echoes it: {answer}");
    assert_eq!(status(&preflight(&door, "/own", "https://a", "POST").await), 204);
}

#[tokio::test]
async fn a_call_too_many_is_told_when_again_and_each_address_has_its_own_limit() {
    let limit = |n: u32| json!({"rate_limit": {"requests": n, "per_seconds": 3_600}});
    let (door, seen) = handler(
        limit(2),
        json!([
            {"path": "/shared"},
            {"path": "/own", "http": limit(1)},
            {"path": "/mine", "access": "token", "http": {"rate_limit": {"requests": 1, "per_seconds": 3600, "by": "token"}}},
        ]),
    )
    .await;
    assert_eq!(status(&get(&door, "/shop/orders", "").await), 200);
    assert_eq!(status(&get(&door, "/shared", "").await), 200);
    for path in ["/shared", "/shop/orders"] {
        let answer = get(&door, path, "").await;
        assert_eq!((status(&answer), &body(&answer)["code"]), (429, &json!("rate_limited")), "{answer}");
        let again: u64 = header(&answer, "retry-after").unwrap().parse().unwrap();
        assert!((1..=1_800).contains(&again), "{again}");
    }
    assert_eq!([status(&get(&door, "/own", "").await), status(&get(&door, "/own", "").await)], [200, 429]);
    let token = "authorization: Bearer dvt_shop\r\n";
    // Who is not let in uses up nothing.
    assert_eq!(status(&get(&door, "/mine", "").await), 401);
    assert_eq!(
        [status(&get(&door, "/mine", token).await), status(&get(&door, "/mine", token).await)],
        [200, 429]
    );
    assert_eq!(seen.invokes.load(SeqCst), 4);
}

#[tokio::test]
async fn bodies_are_held_to_the_limit_of_their_address() {
    let handler = handler(json!({"max_request_bytes": 10}), json!([])).await.0;
    let server = serving(
        json!({"max_request_bytes": 10}),
        json!([{"path": "/more", "http": {"max_request_bytes": 20}}]),
    )
    .await;
    let post = |path: &str, framing: &str, sent: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{sent}").into_bytes()
    };
    for door in [&handler, &server] {
        let fits = raw(door, &post("/shop/orders", "content-length: 10", "0123456789")).await;
        assert_eq!(status(&fits), 200, "{fits}");
        for (framing, sent) in [
            ("content-length: 11", "01234567890"),
            ("transfer-encoding: chunked", "b\r\n01234567890\r\n0\r\n\r\n"),
        ] {
            let answer = raw(door, &post("/shop/orders", framing, sent)).await;
            assert_eq!(
                (status(&answer), &body(&answer)["code"]),
                (413, &json!("too_large")),
                "{framing} {answer}"
            );
            assert!(body(&answer)["message"].as_str().unwrap().contains("10 bytes"), "{answer}");
        }
    }
    assert_eq!(
        status(&raw(&server, &post("/more", "content-length: 20", "01234567890123456789")).await),
        200
    );
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_take_it() {
    let (door, _) =
        handler(json!({"compression": true}), json!([{"path": "/plain", "http": {"compression": false}}]))
            .await;
    let long = format!("/shop/orders?x={}", "abc".repeat(500));
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    let request =
        format!("GET {long} HTTP/1.1\r\nhost: a\r\nconnection: close\r\naccept-encoding: gzip\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    assert_eq!(header(&head, "content-encoding").as_deref(), Some("gzip"), "{head}");
    assert_eq!(header(&head, "vary").as_deref(), Some("accept-encoding"));
    let (mut rest, mut coded) = (&answer[end + 4..], Vec::new());
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        coded.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&coded[..]).read_to_string(&mut plain).unwrap();
    let event: Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(event["event"]["rawQueryString"].as_str().unwrap().len(), 1_502);
    let route = long.replace("/shop/orders", "/plain");
    for (path, headers) in [(&long, ""), (&route, "accept-encoding: gzip\r\n")] {
        let answer = get(&door, path, headers).await;
        assert_eq!((status(&answer), header(&answer, "content-encoding")), (200, None), "{answer}");
    }
}

#[tokio::test]
async fn headers_and_paths_are_changed_as_a_route_says() {
    let changes = json!({
        "request_headers": {"set": {"x-stage": "live"}, "remove": ["x-secret"]},
        "response_headers": {"set": {"strict-transport-security": "max-age=1"}, "remove": ["x-mine"]},
    });
    let routes = json!([
        {"path": "/api/{rest+}", "strip_prefix": "/api", "add_prefix": "/v2"},
        {"path": "/cut/{rest+}", "strip_prefix": "/cut"},
    ]);
    let door = serving(changes.clone(), routes.clone()).await;
    let answer = get(&door, "/api/a?b=c", "x-secret: 1\r\nx-keep: 1\r\n").await;
    assert_eq!(status(&answer), 200);
    assert_eq!(header(&answer, "strict-transport-security").as_deref(), Some("max-age=1"));
    assert_eq!(header(&answer, "x-mine"), None);
    let told = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(told.starts_with("GET /v2/a?b=c HTTP/1.1\r\n"), "{told}");
    assert!(
        told.contains("x-stage: live\r\n") && told.contains("x-keep: 1") && !told.contains("x-secret"),
        "{told}"
    );
    assert!(told.contains("x-forwarded-prefix: /api\r\n"), "{told}");

    let (door, _) = handler(changes, routes).await;
    let answer = get(&door, "/api/a?b=c", "x-secret: 1\r\n").await;
    let event = &body(&answer)["event"];
    assert_eq!(
        (&event["rawPath"], &event["headers"]["x-stage"]),
        (&json!("/v2/a"), &json!("live")),
        "{answer}"
    );
    assert!(event["headers"]["x-secret"].is_null());
    assert_eq!(body(&get(&door, "/cut/a", "").await)["event"]["rawPath"], "/a");
}

#[tokio::test]
async fn routes_have_their_own_access_and_time_and_errors_their_own_pages() {
    let v = public(|s| {
        (s.kind, s.concurrency, s.max_instances) = (FunctionKind::Server, 4, 1);
        let page =
            json!({"error_pages": [{"statuses": [401], "content_type": "text/plain", "body": "later"}]});
        set(
            s,
            page,
            json!([
                {"path": "/never", "access": "public", "timeout_seconds": 1},
                {"path": "/hidden", "access": "private"},
                {"path": "/token", "access": "token"},
            ]),
        );
        s.access = davit_api::Access::Private;
    });
    let door = door(std::slice::from_ref(&v), |_| {}).await;
    door.world.container_with(&v, Some(server().await)).await;
    assert_eq!(status(&get(&door, "/shop/orders", "").await), 404);
    assert_eq!(status(&get(&door, "/hidden", "").await), 404);
    let refused = get(&door, "/token", "").await;
    assert_eq!((status(&refused), refused.split_once("\r\n\r\n").unwrap().1), (401, "later"), "{refused}");
    assert_eq!(header(&refused, "content-type").as_deref(), Some("text/plain"));
    assert_eq!(header(&refused, "x-davit-error").as_deref(), Some("unauthenticated"));
    assert_eq!(header(&refused, "www-authenticate").as_deref(), Some("Bearer"));
    let token = "authorization: Bearer dvt_shop\r\n";
    assert_eq!(status(&get(&door, "/token", token).await), 200);
    let late = get(&door, "/never", "").await;
    assert_eq!((status(&late), &body(&late)["code"]), (504, &json!("function_timeout")), "{late}");
    assert!(body(&late)["message"].as_str().unwrap().contains("within 1 s"), "{late}");
}
