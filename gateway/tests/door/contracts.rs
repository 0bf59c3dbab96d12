//! Requests to routes that are operations: what does not fit goes no further, what fits arrives as it was sent.

use std::sync::atomic::Ordering::SeqCst;

use davit_api::{FunctionKind, OpenApiDocument, VersionSpec};
use serde_json::json;

use crate::server::server;
use crate::{Door, body, door, public, status};

fn set(spec: &mut VersionSpec) {
    let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
    spec.openapi = Some(OpenApiDocument::new(json!({"openapi": "3.1.1", "paths": {
        "/things/{id}": {"post": {
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}],
            "requestBody": {"required": true, "content": {"application/json": {"schema": schema}, "text/*": {}}},
        }},
        "/free": {"post": {}},
    }})));
    spec.http = Some(serde_json::from_value(json!({"max_request_bytes": 100_000})).unwrap());
    // The route calls its parameter otherwise; it is the first all the same.
    spec.routes = serde_json::from_value(json!([
        {"method": "POST", "path": "/things/{other}", "operation": "POST /things/{id}"},
        {"method": "POST", "path": "/free", "operation": "POST /free"},
    ]))
    .unwrap();
    spec.check().unwrap();
}

async fn post(door: &Door, path: &str, headers: &str, sent: &str) -> String {
    let text = format!("POST {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n{sent}");
    door.raw(text.as_bytes()).await
}

fn framed(sent: &str) -> String {
    format!("content-type: application/json\r\ncontent-length: {}", sent.len())
}

#[tokio::test]
async fn what_does_not_fit_reaches_no_function_of_either_kind() {
    let handler = public(|s| {
        s.timeout_seconds = 120;
        set(s);
    });
    let serving = public(|s| {
        (s.kind, s.concurrency, s.max_instances, s.timeout_seconds) = (FunctionKind::Server, 4, 1, 120);
        set(s);
    });
    let door_of_handler = door(std::slice::from_ref(&handler), |_| {}).await;
    let seen = door_of_handler.world.container(&handler).await;
    let door_of_server = door(std::slice::from_ref(&serving), |_| {}).await;
    door_of_server.world.container_with(&serving, Some(server().await)).await;
    let large = format!("{{\"b\": \"{}\"}}", "x".repeat(50_000));
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked";
    for door in [&door_of_handler, &door_of_server] {
        for (path, headers, sent, expected, said) in [
            (
                "/things/1",
                framed("{}"),
                "{}",
                400,
                "the request does not fit POST /things/{id}: body/a: is missing",
            ),
            ("/things/x", framed("{}"), "{}", 400, "path.id: must be a number"),
            ("/things/1", framed(&large), &large, 400, "body/a: is missing"),
            (
                "/things/1",
                chunked.into(),
                "8\r\n{\"a\":1.5\r\n1\r\n}\r\n0\r\n\r\n",
                400,
                "body/a: the value is not of type",
            ),
            (
                "/things/1",
                "content-type: image/png\r\ncontent-length: 1".into(),
                "x",
                415,
                "\"image/png\" is not taken here",
            ),
            ("/things/1", "content-length: 0".into(), "", 400, "body: is missing"),
            (
                "/things/1",
                "content-type: application/json\r\ncontent-length: 100001".into(),
                "",
                413,
                "100000 bytes",
            ),
        ] {
            let answer = post(door, path, &format!("connection: close\r\n{headers}"), sent).await;
            assert_eq!(status(&answer), expected, "{said}: {answer}");
            assert!(body(&answer)["message"].as_str().unwrap().contains(said), "{said}: {answer}");
        }
    }
    assert_eq!(seen.invokes.load(SeqCst), 0);
    let good = "{\"a\": 1}";
    let answer = post(&door_of_handler, "/things/1", &framed(good), good).await;
    assert_eq!(body(&answer)["event"]["body"], good);
    let answer = post(&door_of_server, "/things/1", &framed(good), good).await;
    assert!(answer.ends_with(good) && answer.contains("content-length: 8"), "{answer}");
    let answer = post(&door_of_server, "/things/1", chunked, "8\r\n{\"a\": 1}\r\n0\r\n\r\n").await;
    assert!(answer.ends_with(good) && !answer.contains("chunked"), "{answer}");
    let text = "content-type: text/plain\r\ncontent-length: 2";
    assert_eq!(status(&post(&door_of_server, "/things/1", text, "no").await), 200);
    assert_eq!(
        status(&post(&door_of_server, "/free", &framed("["), "[").await),
        200,
        "nothing is asked of these"
    );
}
