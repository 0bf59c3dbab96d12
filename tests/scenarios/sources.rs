//! Events from outside: a webhook that GitHub signs reaches a function once, and a forged one does not.

use std::time::Duration;

use davit_e2e::{Answer, Davit, eventually};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const ECHO: &str = "
def handler(event, context):
    return event
";
const SECRET: &str = "It's a Secret to Everybody";

fn signed(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

/// As GitHub sends it; the harness's client adds its own token, so this one is bare.
async fn deliver(davit: &Davit, address: &str, id: &str, signature: &str, body: &str) -> Answer {
    let request = davit.http.post(address).header("x-github-event", "push").header("x-github-delivery", id);
    let request = request.header("x-hub-signature-256", signature).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).timeout(Duration::from_secs(60)).send().await.unwrap();
    let status = answer.status().as_u16();
    Answer { status, body: answer.json().await.unwrap_or(Value::Null) }
}

#[tokio::test]
async fn a_signed_delivery_is_one_call_though_it_comes_twice_and_a_forged_one_is_none() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_python("build", "", ECHO).await;
    let secret = davit.state().join("hook-secret");
    std::fs::write(&secret, SECRET).unwrap();
    let create = ["source", "create", "webhook", "pushes", "--to", "function:build", "--verify", "github"];
    let create: Vec<&str> = create.into_iter().chain(["--secret", "github-hook"]).collect();
    let early = cli.attempt(&create).await;
    assert!(early.code != 0 && early.stderr.contains("set it first"), "{early:?}");
    cli.run(&["secret", "set", "github-hook", "--file", secret.to_str().unwrap()]).await;
    let address = cli.run(&create).await.stdout.trim().to_owned();
    assert_eq!(address, davit.url("/v1/namespaces/default/sources/pushes/hook"));

    let (body, id) = (json!({"ref": "refs/heads/main"}).to_string(), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    // The gateway learns of a source a moment after it was made.
    let first = eventually("the source to be known", async || {
        let answer = deliver(&davit, &address, id, &signed(SECRET, &body), &body).await;
        if answer.status == 404 { Err(answer) } else { Ok(answer) }
    })
    .await;
    assert_eq!(first.status, 202, "{first:?}");
    let again = deliver(&davit, &address, id, &signed(SECRET, &body), &body).await;
    assert_eq!((again.status, &again.body), (202, &first.body), "the same delivery is the same call");
    for (signature, body) in [(signed("guessed", &body), body.as_str()), (signed(SECRET, &body), "{}")] {
        let forged = deliver(&davit, &address, "another", &signature, body).await;
        assert_eq!((forged.status, forged.code()), (401, "unauthenticated"), "{forged:?}");
    }

    let called = davit.api().succeeded(first.body["invocation_id"].as_str().unwrap()).await;
    assert_eq!((&called["source"], &called["function"]), (&json!("event_source"), &json!("build")));
    let event: Value = serde_json::from_str(called["result"].as_str().unwrap()).unwrap();
    assert_eq!((&event["source"], &event["delivery_id"]), (&json!("pushes"), &json!(id)));
    assert_eq!(event["body"]["ref"], "refs/heads/main");
    assert_eq!(event["headers"]["x-github-event"], "push");
    assert!(event["headers"].get("x-hub-signature-256").is_none(), "{event}");
    let listed = cli.json(&["invocation", "list", "build"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "one call, and no trace of the forged ones: {listed}");

    cli.run(&["source", "pause", "pushes"]).await;
    eventually("the pause to be heeded", async || {
        let answer = deliver(&davit, &address, "while-paused", &signed(SECRET, &body), &body).await;
        if answer.status == 503 { Ok(()) } else { Err(answer) }
    })
    .await;
    cli.run(&["source", "resume", "pushes"]).await;
    let shown = cli.run(&["source", "describe", "pushes"]).await.stdout;
    assert!(shown.contains(&address) && shown.contains("github-hook"), "{shown}");
    cli.run(&["source", "delete", "pushes"]).await;
    assert_eq!(cli.json(&["source", "list"]).await, json!([]));
}
