//! HTTP through the gateway: routes, events, refusals.

use davit_e2e::Davit;
use serde_json::Value;

#[tokio::test]
async fn an_api_gateway_handler_serves_its_methods_and_paths() {
    let davit = Davit::up().await;
    davit.cli().deploy_example("orders-api").await;
    let base = davit.url("/default/orders-api");

    let made = davit
        .http
        .post(format!("{base}/orders"))
        .body(r#"{"item":"rope","quantity":2}"#)
        .header("content-type", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201, "{:?}", made.text().await);
    let refused = davit
        .http
        .post(format!("{base}/orders"))
        .body(r#"{"quantity":-1}"#)
        .header("content-type", "application/json")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
    let missing = davit.http.get(format!("{base}/orders/no-such-order")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn a_plain_http_server_gets_requests_byte_for_byte() {
    let davit = Davit::up().await;
    davit.cli().deploy_example("plain-http").await;
    let answer = davit.http.get(davit.url("/default/plain-http/")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{:?}", answer.text().await);
}

#[tokio::test]
async fn paths_that_could_be_read_two_ways_are_refused_before_any_function_sees_them() {
    let davit = Davit::up().await;
    davit.cli().deploy_example("orders-api").await;
    let address = davit.endpoint("gateway_url");
    let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    for path in [
        "/default/orders-api/../user-auth",
        "/default/orders-api/%2e%2e/x",
        "/default/orders-api/a%2fb",
        "/default/orders-api/%252e%252e",
        "/default/orders-api/a\\b",
        "/default/orders-api/%00",
        "/default//orders-api",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(&address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn malformed_requests_are_closed_or_refused() {
    let davit = Davit::up().await;
    let address = davit.endpoint("gateway_url");
    let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: 0x10",
        "Transfer-Encoding: xchunked",
        "Bad Header: x",
        "X: a\0b",
    ] {
        let request =
            format!("POST /default/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n");
        let answer = raw(&address, request.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{head:?}: {answer}");
    }
}

#[tokio::test]
async fn errors_have_one_shape_and_say_whose_they_are() {
    let davit = Davit::up().await;
    let answer = davit.http.get(davit.url("/default/nothing")).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!((body["code"].as_str(), body["source"].as_str()), (Some("not_found"), Some("client")));
}

/// Sends bytes as they are and reads until the other side closes.
async fn raw(address: &str, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the gateway listens");
    stream.write_all(request).await.expect("the gateway reads");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}
