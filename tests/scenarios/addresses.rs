//! What the gateway does for a function's addresses: CORS, limits, compression, access of routes, error pages.

use davit_e2e::Davit;
use reqwest::{Method, RequestBuilder};

const SETTINGS: &str = r#"
access = "private"

[http]
compression = true
cors = { origins = ["https://app.example.com"], max_age_seconds = 60 }
max_request_bytes = 1000
response_headers = { set = { x-content-type-options = "nosniff" } }

[[http.error_pages]]
statuses = [429]
content_type = "text/plain"
body = "slow down"

[[routes]]
path = "/front/{rest+}"
access = "public"
strip_prefix = "/front"

[[routes]]
method = "POST"
path = "/orders"
access = "token"
http = { rate_limit = { requests = 2, per_seconds = 3600, by = "token" } }
"#;

const CODE: &str = r#"
import json

def handler(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"},
            "body": json.dumps({"path": event["rawPath"], "padding": "abc" * 500})}
"#;

#[tokio::test]
async fn the_gateway_does_for_an_address_what_its_settings_say() {
    let davit = Davit::up().await;
    davit.cli().deploy_python("front", SETTINGS, CODE).await;
    let ask = |method: Method, path: &str| {
        let request = davit.http.request(method, davit.url(path));
        request.header("origin", "https://app.example.com")
    };
    let cors = |answer: &reqwest::Response| answer.headers().contains_key("access-control-allow-origin");

    // Before anybody has called it, a page may ask; that wakes nothing.
    let preflight =
        ask(Method::OPTIONS, "/orders").header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!((preflight.status().as_u16(), cors(&preflight)), (204, true));
    assert_eq!(davit.metric("davit_calls_ok_total").await, 0.0);

    // The function itself is private, its route is open, and the function sees what is left of the path.
    assert_eq!(ask(Method::GET, "/default/front/a").send().await.unwrap().status(), 404);
    let open = ask(Method::GET, "/front/a").header("accept-encoding", "br, gzip").send().await.unwrap();
    assert_eq!((open.status().as_u16(), cors(&open)), (200, true));
    assert_eq!(open.headers()["content-encoding"], "br");
    assert_eq!(open.headers()["x-content-type-options"], "nosniff");
    let open: serde_json::Value = ask(Method::GET, "/front/a").send().await.unwrap().json().await.unwrap();
    assert_eq!(open["path"], "/a");

    // The other route asks for a token, and each holder has two calls.
    let order = || ask(Method::POST, "/orders").body("{}");
    assert_eq!(order().send().await.unwrap().status(), 401);
    let token = davit.token();
    let with = |request: RequestBuilder| request.bearer_auth(&token);
    for _ in 0..2 {
        assert_eq!(with(order()).send().await.unwrap().status(), 200);
    }
    let refused = with(order()).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), cors(&refused)), (429, true));
    assert_eq!(refused.headers()["x-davit-error"], "rate_limited");
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.text().await.unwrap(), "slow down");
    let long = ask(Method::POST, "/front/a").body("x".repeat(1_001)).send().await.unwrap();
    assert_eq!(long.status(), 413);
    assert!(long.text().await.unwrap().contains("1000 bytes"));

    // A new version with the same limit counts on, and one that cannot be is refused by the key that is wrong.
    let changed = SETTINGS.replace("max_request_bytes = 1000", "max_request_bytes = 2000");
    davit.cli().deploy_python("front", &changed, CODE).await;
    let long = ask(Method::POST, "/front/a").body("x".repeat(1_001)).send().await.unwrap();
    assert_eq!(long.status(), 200);
    assert_eq!(with(order()).send().await.unwrap().status(), 429);
    let wrong = SETTINGS.replace("per_seconds = 3600", "per_seconds = 0");
    let folder = davit_e2e::python_folder("front", &wrong, CODE);
    let refused = davit.cli().try_in(folder.path(), &["deploy"]).await;
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("POST /orders: http.rate_limit.per_seconds: must be 1 to"),
        "{refused:?}"
    );
}
