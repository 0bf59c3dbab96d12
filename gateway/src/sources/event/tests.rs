use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn made(verify: Verification, pairs: &[(&str, &str)], query: &str, body: &[u8]) -> (String, Value) {
    let webhook = WebhookSource::new(verify, None);
    let headers = headers(pairs);
    let event =
        event(&"orders".parse().unwrap(), &webhook, Delivery { headers: &headers, query, body, now: 0 });
    let value: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(value["delivery_id"], event.id.as_str());
    assert_eq!(value["source"], "orders");
    (event.id, value)
}

#[test]
fn a_function_gets_everything_but_what_showed_who_sent_it() {
    let sent = [
        ("content-type", "application/json"),
        ("x-github-event", "push"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature", "sha1=1"),
        ("x-hub-signature-256", "sha256=1"),
        ("authorization", "Bearer x"),
        ("cookie", "session=1"),
        ("connection", "close"),
        ("accept", "text/html"),
        ("accept", "*/*"),
    ];
    let (id, event) = made(Verification::Github, &sent, "a=1&a=2&b=x%20y", b"{\"n\": 1.0}");
    assert_eq!(id, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    let expected = json!({
        "source": "orders",
        "delivery_id": id,
        "headers": {
            "accept": "text/html, */*",
            "content-type": "application/json",
            "x-github-delivery": id,
            "x-github-event": "push",
        },
        "query": {"a": "1, 2", "b": "x y"},
        "body": {"n": 1.0},
        "body_encoding": "json",
    });
    assert_eq!(event, expected);
    let webhook =
        WebhookSource { header: Some("x-key".into()), ..WebhookSource::new(Verification::Bearer, None) };
    let map = headers(&[("x-key", "secret"), ("x-other", "1")]);
    let delivery = Delivery { headers: &map, query: "", body: b"", now: 0 };
    let event = super::event(&"orders".parse().unwrap(), &webhook, delivery);
    assert!(!String::from_utf8(event.payload).unwrap().contains("secret"), "a chosen header is hidden, too");
}

#[test]
fn a_body_is_json_text_or_base64_and_says_which() {
    let of = |kind: &str, body: &[u8]| {
        let pairs = [("content-type", kind)];
        let (_, event) = made(Verification::None, if kind.is_empty() { &[] } else { &pairs }, "", body);
        (event["body"].clone(), event["body_encoding"].as_str().unwrap().to_owned())
    };
    let text = |text: &str| (json!(text), "text".to_owned());
    assert_eq!(of("application/cloudevents+JSON; charset=utf-8", b"[1]"), (json!([1]), "json".into()));
    assert_eq!(of("", b"7"), (json!(7), "json".into()));
    assert_eq!(of("text/plain", b"7"), text("7"));
    assert_eq!(of("application/x-www-form-urlencoded", b"payload=%7B%7D"), text("payload=%7B%7D"));
    assert_eq!(of("application/json", b"{"), text("{"), "what says it is JSON and is not stays as it is");
    assert_eq!(of("application/json", b""), text(""));
    assert_eq!(of("application/json", b"\xff\xfe"), (json!("//4="), "base64".into()));
    let deep = "[".repeat(limits::JSON_DEPTH + 1) + &"]".repeat(limits::JSON_DEPTH + 1);
    assert_eq!(of("application/json", deep.as_bytes()), text(&deep));
}

#[test]
fn numbers_pass_as_they_were_written() {
    let webhook = WebhookSource::new(Verification::None, None);
    let body = br#"{"id":12345678901234567890123,"x":1.10}"#;
    let map = HeaderMap::new();
    let event =
        event(&"orders".parse().unwrap(), &webhook, Delivery { headers: &map, query: "", body, now: 0 });
    let text = String::from_utf8(event.payload).unwrap();
    assert!(text.contains(r#""body":{"id":12345678901234567890123,"x":1.10}"#), "{text}");
}

#[test]
fn a_delivery_is_known_by_its_senders_id_or_else_by_what_it_is() {
    let id = |verify, pairs: &[(&str, &str)], query, body: &[u8]| made(verify, pairs, query, body).0;
    assert_eq!(id(Verification::Standard, &[("webhook-id", "msg_1")], "", b"{}"), "msg_1");
    assert_eq!(id(Verification::Stripe, &[], "", br#"{"type":"x","id":"evt_\u0031"}"#), "evt_1");
    // No id, an id of another type, no JSON at all: the same again is the same, and anything else is not.
    for body in [&b"{}"[..], br#"{"id":7}"#, b"x"] {
        let first = id(Verification::Stripe, &[], "", body);
        assert!(first.starts_with("sha256:") && first.len() == 71, "{first}");
        assert_eq!(id(Verification::Stripe, &[("stripe-signature", "t=2")], "", body), first);
        assert_ne!(id(Verification::Stripe, &[], "again", body), first);
    }
    assert_ne!(id(Verification::None, &[], "ab", b"c"), id(Verification::None, &[], "a", b"bc"));
    let long = "x".repeat(limits::DELIVERY_ID_CHARS + 1);
    let kept = id(Verification::Github, &[("x-github-delivery", &long)], "", b"{}");
    assert!(kept.starts_with("sha256:"), "{kept}");
    assert_ne!(kept, id(Verification::Github, &[], "", b"{}"));
    let mut webhook = WebhookSource::new(Verification::Hmac, None);
    webhook.delivery_header = Some("x-shopify-webhook-id".into());
    let map = headers(&[("x-shopify-webhook-id", " w-1 ")]);
    assert_eq!(delivery_id(&webhook, Delivery { headers: &map, query: "", body: b"", now: 0 }), "w-1");
}
