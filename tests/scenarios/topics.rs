//! Publish and subscribe through the shipped binary: two functions that want different things, a webhook outside, and
//! a davit that is killed while deliveries are under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use davit_e2e::{Davit, eventually, eventually_within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Messages that are published in all, half of them before the kill.
const MESSAGES: u64 = 20;

const NOTES: &str = "
import time
def handler(event, context):
    time.sleep(0.2)
    return {'id': event['id'], 'type': event['type'], 'n': event['data']['n']}
";

/// Who was sent what: the event's id, and how often.
type Seen = Arc<Mutex<BTreeMap<String, u32>>>;

/// An HTTP server on this machine that takes every event, and refuses the first attempt of each.
async fn receiver() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let seen = Seen::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = kept.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                let body = loop {
                    let mut chunk = [0; 4096];
                    let Ok(read @ 1..) = stream.read(&mut chunk).await else { return };
                    request.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let whole = text
                        .split_once("\r\n\r\n")
                        .map(|(head, body)| (head.to_lowercase(), body.to_owned()));
                    if let Some((head, body)) = whole
                        && let Ok(event) = serde_json::from_str::<Value>(&body)
                    {
                        assert!(head.contains("content-type: application/cloudevents+json"), "{head}");
                        assert!(head.contains("webhook-signature: v1,"), "{head}");
                        break event;
                    }
                };
                let times = {
                    let mut seen = seen.lock().unwrap();
                    let times = seen.entry(body["id"].as_str().unwrap().to_owned()).or_default();
                    *times += 1;
                    *times
                };
                let status = if times == 1 { "503 Service Unavailable" } else { "204 No Content" };
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, seen)
}

fn event(n: u64) -> Value {
    let kind = if n.is_multiple_of(2) { "order.created" } else { "order.paid" };
    json!({"specversion": "1.0", "id": n.to_string(), "source": "/shop", "type": kind, "subject": format!("order-{n}"), "data": {"n": n}})
}

async fn publish(davit: &Davit, n: u64) -> Value {
    let api = davit.api();
    eventually("the gateway to take a message", async || {
        let request = api.http.post(format!("{}/v1/namespaces/default/topics/orders/messages", api.gateway));
        let request =
            request.header("content-type", "application/cloudevents+json").body(event(n).to_string());
        let answer = api.send(request).await;
        if answer.status == 202 { Ok(answer.body) } else { Err(answer) }
    })
    .await
}

/// What a function answered to deliveries, by the event's id.
async fn answered(davit: &Davit, function: &str, how_many: usize) -> BTreeMap<String, Value> {
    let path = format!("/v1/namespaces/default/functions/{function}/invocations?limit=1000&source=topic");
    eventually_within(Duration::from_secs(120), "every delivery to end", async || {
        let list = davit.api().get(&path).await;
        let all = list.body["items"].as_array().cloned().unwrap_or_default();
        if all.len() != how_many || all.iter().any(|view| view["state"] != "succeeded") {
            return Err(list);
        }
        let mut found = BTreeMap::new();
        for view in all {
            let view = davit.api().invocation(view["id"].as_str().unwrap()).await.body;
            let result: Value = serde_json::from_str(view["result"].as_str().unwrap()).unwrap();
            found.insert(result["id"].as_str().unwrap().to_owned(), result);
        }
        Ok(found)
    })
    .await
}

#[tokio::test]
async fn what_is_published_reaches_everyone_who_wants_it_though_davit_is_killed() {
    let mut davit = Davit::up_with(&[("DAVIT_OUTBOUND_ALLOW", "127.0.0.1")]).await;
    let cli = davit.cli();
    let patient = "[retry]\nmax_attempts = 20\nbase_delay_seconds = 0\n";
    // One says in its davit.toml what it wants, and the topic is there with it.
    let wants = format!("{patient}[[subscriptions]]\ntopic = \"orders\"\n");
    cli.deploy_python("everything", &wants, NOTES).await;
    cli.deploy_python("payments", patient, NOTES).await;
    cli.run(&[
        "topic",
        "subscribe",
        "orders",
        "--function",
        "payments",
        "--filter",
        r#"{"type": [{"suffix": ".paid"}]}"#,
    ])
    .await;
    let (url, seen) = receiver().await;
    std::fs::write(davit.state().join("key"), "s3cret").unwrap();
    cli.run(&["secret", "set", "partner", "--file", davit.state().join("key").to_str().unwrap()]).await;
    let large = r#"{"data": {"n": [{"numeric": [">=", 15]}]}}"#;
    let api = davit.api();
    let subscription = json!({"name": "partner", "to": {"webhook": {"url": url, "secret": "partner"}},
        "settings": {"filter": serde_json::from_str::<Value>(large).unwrap(), "retry": {"max_attempts": 20, "base_delay_seconds": 0}}});
    let made = api.post("/v1/namespaces/default/topics/orders/subscriptions", &subscription).await;
    assert_eq!(made.status, 201, "{made:?}");

    for n in 0..MESSAGES {
        if n == MESSAGES / 2 {
            davit.kill();
            davit.start().await;
        }
        publish(&davit, n).await;
    }
    davit.kill();
    davit.start().await;
    // Who does not know whether it arrived says it again, and nothing comes of it.
    let again = publish(&davit, 3).await;
    assert_eq!((&again["duplicate"], &again["deliveries"]), (&json!(true), &json!(0)));

    let all = answered(&davit, "everything", MESSAGES as usize).await;
    assert_eq!(all.len(), MESSAGES as usize, "each message once: {all:?}");
    let paid = answered(&davit, "payments", MESSAGES as usize / 2).await;
    assert!(
        paid.len() == MESSAGES as usize / 2 && paid.values().all(|one| one["type"] == "order.paid"),
        "{paid:?}"
    );
    eventually("the webhook to have everything", async || {
        let seen = seen.lock().unwrap().clone();
        let wanted: Vec<String> = (15..MESSAGES).map(|n| n.to_string()).collect();
        let there =
            seen.iter().filter(|(_, times)| **times >= 2).map(|(id, _)| id.clone()).collect::<Vec<_>>();
        if there == wanted && seen.len() == wanted.len() { Ok(()) } else { Err(seen) }
    })
    .await;

    let described = eventually("nothing to be left", async || {
        let described = davit.cli().json(&["topic", "describe", "orders"]).await;
        let left = described["subscribers"].as_array().unwrap().iter().any(|s| s["queued"] != 0);
        if left { Err(described) } else { Ok(described) }
    })
    .await;
    assert_eq!(described["messages"], MESSAGES);
    assert!(described["subscribers"].as_array().unwrap().iter().all(|s| s["dead"] == 0), "{described}");

    let cli = davit.cli();
    let replay =
        ["topic", "replay", "orders", "--from", "2020-01-01T00:00:00Z", "--subscription", "payments"];
    assert_eq!(cli.json(&replay).await, json!({"messages": MESSAGES, "deliveries": MESSAGES / 2}));
    answered(&davit, "payments", MESSAGES as usize).await;

    assert_ne!(cli.attempt(&["topic", "delete", "orders"]).await.code, 0, "it asks, and nobody answers");
    cli.run(&["topic", "delete", "orders", "--yes"]).await;
    assert_eq!(cli.json(&["topic", "list"]).await, json!([]));
}

#[tokio::test]
async fn the_example_hears_of_the_orders_it_asked_for() {
    let davit = Davit::up().await;
    let cli = davit.cli();
    cli.deploy_example("order-notices").await;
    let small =
        ["topic", "publish", "orders", r#"{"total": 5}"#, "--type", "order.created", "--subject", "order-8"];
    assert_eq!(cli.json(&small).await["deliveries"], 0);
    let large = [
        "topic",
        "publish",
        "orders",
        r#"{"total": 250, "customer": "Ada"}"#,
        "--type",
        "order.created",
        "--subject",
        "order 7",
    ];
    assert_eq!(cli.json(&large).await["deliveries"], 1);
    let list = davit.api().get("/v1/namespaces/default/invocations?source=topic").await.body;
    let ended = davit.api().succeeded(list["items"][0]["id"].as_str().unwrap()).await;
    assert_eq!(ended["result"], r#"{"notice": "order 7: 250.00 from Ada"}"#);
    assert_eq!(ended["ordering_key"], "order 7");
}
