//! Bad input through the real doors: whatever is sent, the answer is a client's error with its code, never one
//! of davit's own, and nothing has changed afterwards. What the management API's router refuses by itself is
//! tested beside it; here is what goes through the process.

mod archives;
mod commands;
mod gateway;
mod management;

use davit_e2e::{Answer, Davit};
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context):\n    return event\n";

/// A davit with one function, and a token that is bound to a namespace beside it.
async fn davit_and_stranger() -> (Davit, String) {
    let davit = Davit::up().await;
    davit.cli().deploy_python("echo", "access = \"public\"\npayload = \"body\"", ECHO).await;
    let made = davit.api().post("/v1/namespaces", &json!({"name": "beside"})).await;
    assert!(matches!(made.status, 200 | 201), "{made:?}");
    let token = davit.cli().json(&["token", "create", "--role", "admin", "--namespace", "beside", "x"]).await;
    (davit, token["token"].as_str().expect("the secret is shown once").to_owned())
}

/// Fails unless this is a refusal that names the client's mistake.
fn refused(what: &str, answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    assert!(!answer.code().is_empty(), "{what}: an error without a code: {answer:?}");
    assert_eq!(answer.body["source"], "client", "{what}: {answer:?}");
}

/// Everything that bad input could have changed.
async fn state(davit: &Davit) -> Value {
    let mut all = serde_json::Map::new();
    for path in [
        "/v1/namespaces",
        "/v1/namespaces/default/functions/echo",
        "/v1/namespaces/default/functions/echo/versions",
        "/v1/namespaces/default/functions/echo/schedules",
        "/v1/namespaces/default/secrets",
        "/v1/namespaces/beside/functions",
        "/v1/namespaces/beside/secrets",
        "/v1/tokens",
    ] {
        let answer = davit.api().get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        all.insert(path.to_owned(), settled(answer.body));
    }
    let functions = davit.api().get("/v1/namespaces/default/functions").await;
    let names: Vec<Value> =
        functions.body["items"].as_array().unwrap().iter().map(|f| f["name"].clone()).collect();
    all.insert("functions".to_owned(), names.into());
    Value::Object(all)
}

/// Without what changes by looking at it and by calling.
fn settled(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = settled(item.take())),
        Value::Object(fields) => {
            fields.retain(|name, _| !["last_used_at", "usage", "instances"].contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = settled(field.take()));
        }
        _ => {}
    }
    value
}
