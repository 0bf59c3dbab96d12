//! The management API: pages, cursors, other people's namespaces, values that no field can hold.

use davit_e2e::Api;
use serde_json::{Value, json};

use super::{davit_and_stranger, refused, state};

const ECHO: &str = "/v1/namespaces/default/functions/echo";

#[tokio::test]
async fn pages_cursors_and_values_out_of_bounds_are_refused_by_the_running_process() {
    let (davit, _) = davit_and_stranger().await;
    let (api, before) = (davit.api(), state(&davit).await);
    for tail in [
        "/v1/namespaces/default/functions?limit=1001",
        "/v1/namespaces/default/functions?after=forged%20name",
        "/v1/namespaces/default/functions?search=%25",
        &format!("{ECHO}/versions?limit=0"),
        &format!("{ECHO}/versions?after=x"),
        "/v1/audit?before=-1e9",
        "/v1/audit?before=0x10",
        "/v1/audit?limit=1&limit=2",
        "/v1/audit?limit=%2D1",
        &format!("{ECHO}/invocations?limit=-1"),
        &format!("{ECHO}/invocations?limit=1000000000"),
        &format!("{ECHO}/invocations?cursor=forged"),
        &format!("{ECHO}/logs?limit=-1"),
        &format!("{ECHO}/logs?limit=1000000000"),
        &format!("{ECHO}/logs?after=forged"),
        &format!("{ECHO}/logs?after=9223372036854775808"),
        &format!("{ECHO}/logs?since=-292277022400-01-01T00:00:00Z"),
        &format!("{ECHO}/versions/1/events?after=1%27--"),
        &format!("{ECHO}/versions/1/events?wait=4294967296"),
        &format!("{ECHO}/versions/99999"),
        &format!("{ECHO}/schedules/none/fires?limit=0"),
        &format!("{ECHO}/schedules/none/fires?limit=-1"),
        &format!("{ECHO}/schedules/none/fires?before=yesterday"),
        "/v1/namespaces/default/schedules?limit=1001",
        "/v1/namespaces/default/schedules?after=forged",
        "/v1/namespaces/default/invocations/00000000-0000-0000-0000-000000000000",
        "/v1/namespaces/default/invocations/..%2f..%2faudit",
    ] {
        refused(tail, &api.get(tail).await);
    }
    for (path, body) in bodies() {
        refused(&format!("{path} {}", short(&body)), &api.post(&path, &body).await);
    }
    for (path, body) in [
        ("/v1/namespaces/default/secrets/UPPER", json!({"value": "x"})),
        ("/v1/namespaces/default/secrets/s", json!({"value": "a\u{0}b"})),
        ("/v1/namespaces/default/secrets/s", json!({"value": 7})),
        ("/v1/namespaces/default/secrets/s", json!({"value": "x", "more": 1})),
        ("/v1/namespaces/nowhere/secrets/s", json!({"value": "x"})),
    ] {
        refused(path, &put(&api, path, &body).await);
    }
    assert_eq!(state(&davit).await, before);
}

fn bodies() -> Vec<(String, Value)> {
    let version = |field: &str, value: Value| {
        let mut spec = json!({"runtime": "python3.13", "handler": "app.handler"});
        spec[field] = value;
        let source = format!("sha256:{}", "0".repeat(64));
        (format!("{ECHO}/versions"), json!({"spec": spec, "source": source}))
    };
    let schedule =
        |name: &str, spec: Value| (format!("{ECHO}/schedules"), json!({"name": name, "spec": spec}));
    let token = |body: Value| ("/v1/tokens".to_owned(), body);
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    vec![
        version("env", json!({"PATH\u{0}": "x"})),
        version("env", json!({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1"})),
        version("env", json!({"": "x"})),
        version("routes", json!([{"path": "no-slash"}])),
        version("routes", json!([{"path": "/{a}/{a}"}])),
        version("routes", json!([{"path": "/{rest+}/x"}])),
        version("routes", json!(vec![json!({"path": "/x"}); 65])),
        version("memory_mb", json!(10_241)),
        version("runtime", json!("python3.13:latest@sha256:0")),
        version("handler", json!("app.handler; rm -rf /")),
        schedule("every", json!({"cron": "@reboot"})),
        schedule("every", json!({"cron": "0 0 30 2 *"})),
        schedule("every", json!({"cron": "* * * * *", "timezone": "../../etc/localtime"})),
        schedule("every", json!({"cron": "* * * * *", "payload": "x".repeat(1_200_000)})),
        schedule("every", json!({"cron": "* * * * *", "payload": deep})),
        schedule("every\u{0}", json!({"cron": "* * * * *"})),
        schedule("every", json!({})),
        schedule("every", json!({"cron": "@daily", "at": "2090-01-01T00:00"})),
        schedule("every", json!({"every": "9223372036854775807d"})),
        schedule("every", json!({"at": "9999-99-99T99:99"})),
        schedule("every", json!({"cron": "@daily", "jitter": "1w"})),
        schedule("every", json!({"cron": "@daily", "payload": "{{".repeat(1_000)})),
        token(json!({"description": "x", "role": "root"})),
        token(json!({"description": "x", "role": "read", "expires_at": "yesterday"})),
        token(json!({"description": "x", "role": "read", "namespace": "nowhere"})),
        token(json!({"description": "x\u{0}", "role": "read"})),
        (format!("{ECHO}/rollback"), json!({"to": 0})),
        (format!("{ECHO}/rollback"), json!({"to": -1})),
        (format!("{ECHO}/rollback"), json!({"to": 4_294_967_296_u64})),
        (format!("{ECHO}/rollback"), json!({"to": 4_294_967_295_u64})),
        (format!("{ECHO}/rollback"), json!({})),
        (format!("{ECHO}/schedules/none/run"), json!({})),
        (format!("{ECHO}/schedules/none/pause"), json!({})),
    ]
}

#[tokio::test]
async fn a_token_of_one_namespace_reaches_into_no_other() {
    let (davit, stranger) = davit_and_stranger().await;
    let id = davit.api().promised("echo", 1).await.expect("the queue takes work");
    davit.api().succeeded(&id).await;
    let before = state(&davit).await;
    let api = Api { token: stranger, ..davit.api() };
    for path in [
        "/v1/namespaces/default/functions".to_owned(),
        "/v1/namespaces/default/secrets".to_owned(),
        format!("{ECHO}/logs"),
        format!("{ECHO}/versions/1/events"),
        format!("{ECHO}/invocations"),
        format!("/v1/namespaces/default/invocations/{id}"),
        // An id of one namespace, asked for in another.
        format!("/v1/namespaces/beside/invocations/{id}"),
        "/v1/instances".to_owned(),
    ] {
        refused(&path, &api.get(&path).await);
    }
    for (path, body) in [
        (format!("{ECHO}/rollback"), json!({})),
        (format!("{ECHO}/schedules"), json!({"name": "x", "spec": {"cron": "* * * * *"}})),
        ("/v1/namespaces".to_owned(), json!({"name": "mine"})),
        ("/v1/tokens".to_owned(), json!({"description": "x", "role": "admin"})),
        ("/v1/tokens".to_owned(), json!({"description": "x", "role": "admin", "namespace": "default"})),
    ] {
        refused(&path, &api.post(&path, &body).await);
    }
    refused("a secret", &put(&api, "/v1/namespaces/default/secrets/s", &json!({"value": "x"})).await);
    refused("a delete", &api.send(api.http.delete(format!("{}{ECHO}", api.management))).await);
    refused("a call", &api.invoke("echo", &json!({})).await);
    refused("a promise", &api.enqueue("echo", &json!({})).await);
    let status = format!("{}/v1/namespaces/default/invocations/{id}", api.gateway);
    refused("a status at the gateway", &api.send(api.http.get(status)).await);
    assert_eq!(state(&davit).await, before);
}

async fn put(api: &Api, path: &str, body: &Value) -> davit_e2e::Answer {
    let request = api.http.put(format!("{}{path}", api.management));
    api.send(request.header("content-type", "application/json").body(body.to_string())).await
}

fn short(body: &Value) -> String {
    body.to_string().chars().take(200).collect()
}
