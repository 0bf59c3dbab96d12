//! Publishing at the door: plain JSON and CloudEvents in their three modes, and what is refused.

use davit_api::{InvocationSource, NewSubscription};
use davit_registry::InvocationFilter;
use davit_registry::testing::TestDatabase;
use serde_json::{Value, json};

use super::{Door, body, door_over, status};

const PATH: &str = "/v1/namespaces/shop/topics/orders/messages";

/// A door over a database with the topic `orders`, to which a webhook subscribes that wants orders only.
async fn topic() -> (TestDatabase, Door) {
    let db = TestDatabase::new().await;
    let (davit, shop) = (db.registry().as_davit("test"), "shop".parse().unwrap());
    davit.ensure_namespace(&shop).await.unwrap();
    davit.create_topic(&shop, &"orders".parse().unwrap()).await.unwrap();
    let new: NewSubscription = serde_json::from_value(json!({
        "name": "hook", "to": {"webhook": {"url": "https://example.com/"}}, "settings": {"filter": {"type": ["order"]}}
    }))
    .unwrap();
    davit.subscribe(&shop, &"orders".parse().unwrap(), &new).await.unwrap();
    let door = door_over(db.registry().clone(), &[], |_| {}, None).await;
    (db, door)
}

async fn post(door: &Door, target: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer dvt_shop\r\ncontent-length: {length}\r\n{headers}"
    );
    door.raw(format!("{head}\r\n{body}").as_bytes()).await
}

fn event(id: &str, kind: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": kind, "data": {"n": 1}})
}

#[tokio::test]
async fn events_of_every_mode_are_accepted_and_go_to_who_wants_them() {
    let (db, door) = topic().await;
    let plain =
        post(&door, &format!("{PATH}?type=order"), "content-type: application/json\r\n", "{\"n\":1}").await;
    assert_eq!(status(&plain), 202, "{plain}");
    assert_eq!(body(&plain)["deliveries"], 1);
    let binary = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /shop\r\nce-type: order\r\ncontent-type: text/plain\r\n";
    let first = body(&post(&door, PATH, binary, "hello").await);
    assert_eq!((&first["deliveries"], &first["duplicate"]), (&json!(1), &json!(false)));

    let structured = "content-type: application/cloudevents+json\r\n";
    let again = body(&post(&door, PATH, structured, &event("1", "order").to_string()).await);
    assert_eq!(
        (&again["message_id"], &again["duplicate"]),
        (&first["message_id"], &json!(true)),
        "the same event"
    );
    let other = body(&post(&door, PATH, structured, &event("2", "refund").to_string()).await);
    assert_eq!((&other["deliveries"], &other["duplicate"]), (&json!(0), &json!(false)), "nobody wants it");

    let batch = json!([event("3", "order"), event("2", "refund"), event("4", "order")]).to_string();
    let batch =
        body(&post(&door, PATH, "content-type: application/cloudevents-batch+json\r\n", &batch).await);
    let counts: Vec<&Value> =
        batch["messages"].as_array().unwrap().iter().map(|m| &m["deliveries"]).collect();
    assert_eq!(counts, [1, 0, 1]);
    let none = post(&door, PATH, "content-type: application/cloudevents-batch+json\r\n", "[]").await;
    assert_eq!((status(&none), &body(&none)["messages"]), (202, &json!([])));

    let shop = "shop".parse().unwrap();
    let of_topics = InvocationFilter { source: Some(InvocationSource::Topic), ..Default::default() };
    assert_eq!(db.registry().list_invocations(&shop, &of_topics, 100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_and_leaves_nothing() {
    let (db, door) = topic().await;
    let structured = "content-type: application/cloudevents+json\r\n";
    let batch = "content-type: application/cloudevents-batch+json\r\n";
    let mut large = event("1", "order");
    large["data"] = "x".repeat(300_000).into();
    let (large, one_bad) = (large.to_string(), json!([event("1", "order"), event("", "order")]).to_string());
    let too_much = "x".repeat(1_100_000);
    for (target, headers, body_text, expected, message) in [
        (PATH, "", "{", 400, "body: is not JSON"),
        (PATH, "ce-id: 1\r\n", "{}", 400, "ce-specversion: is missing"),
        (PATH, structured, "{\"id\": 1}", 400, "specversion: is missing"),
        (PATH, structured, &large, 413, "the event is 300"),
        (PATH, structured, &too_much, 413, "the body is larger"),
        (PATH, batch, &one_bad, 400, "event [1]: id: must not be empty"),
        (PATH, "content-type: application/xml\r\n", "<a/>", 415, "send JSON"),
        ("/v1/namespaces/shop/topics/nothing/messages", "", "{}", 404, "there is no topic shop/nothing"),
        ("/v1/namespaces/shop/topics/Orders/messages", "", "{}", 400, "topic name \"Orders\""),
        ("/v1/namespaces/other/topics/orders/messages", "", "{}", 403, "the token belongs to another"),
    ] {
        let answer = post(&door, target, headers, body_text).await;
        let shown: String = body_text.chars().take(60).collect();
        assert_eq!(status(&answer), expected, "{target} {headers:?} {shown}: {answer}");
        let said = body(&answer)["message"].as_str().unwrap().to_owned();
        assert!(said.starts_with(message), "{target} {headers:?} {shown}: {said}");
    }
    let stranger = door
        .raw(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes())
        .await;
    assert_eq!(status(&stranger), 401);
    let wrong = door.get(PATH, "authorization: Bearer dvt_shop\r\n").await;
    assert!(status(&wrong) == 405 && wrong.contains("allow: POST"), "{wrong}");
    let detail =
        db.registry().topic_detail(&"shop".parse().unwrap(), &"orders".parse().unwrap()).await.unwrap();
    assert_eq!((detail.messages, detail.subscribers[0].queued), (0, 0));
    db.registry().close().await;
    let away = post(&door, PATH, "", "{}").await;
    assert!(status(&away) == 503 && body(&away)["retryable"] == true, "{away}");
}
