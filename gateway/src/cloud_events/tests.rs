//! The three modes, plain JSON, and what none of them takes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn ask(headers: &[(&'static str, &str)], query: &str, body: &str) -> Result<Incoming, ApiError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let (namespace, topic) = ("shop".parse().unwrap(), "orders".parse().unwrap());
    let place = Place { namespace: &namespace, topic: &topic };
    read(place, &map, query, body.as_bytes(), "2030-01-01T00:00:00Z".parse().unwrap())
}

fn event(headers: &[(&'static str, &str)], query: &str, body: &str) -> Value {
    match ask(headers, query, body).unwrap_or_else(|e| panic!("{e:?}")) {
        Incoming::One(message) => serde_json::from_slice(&message.event.to_json()).unwrap(),
        Incoming::Batch(_) => panic!("a batch"),
    }
}

const BINARY: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "order")];

fn binary_with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    BINARY.iter().chain(more).copied().collect()
}

#[test]
fn attributes_come_as_headers_and_data_as_its_type_says() {
    let whole = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"});
    let with = |more: Value| {
        let mut event = whole.clone();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    for (more, body, expected) in [
        (&[][..], "", json!({})),
        (&[], "{\"n\":1}", json!({"data": {"n": 1}})),
        (
            &[("content-type", "application/json; charset=utf-8")],
            "5",
            json!({"datacontenttype": "application/json; charset=utf-8", "data": 5}),
        ),
        (
            &[("content-type", "application/vnd.x+json")],
            "[]",
            json!({"datacontenttype": "application/vnd.x+json", "data": []}),
        ),
        (
            &[("content-type", "text/plain")],
            "a \"b\"",
            json!({"datacontenttype": "text/plain", "data": "a \"b\""}),
        ),
        (
            &[("content-type", "image/png")],
            "\u{1}",
            json!({"datacontenttype": "image/png", "data_base64": "AQ=="}),
        ),
        // The example of the binding's section 3.1.3.2, and quotes.
        (&[("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80")], "", json!({"subject": "Euro € 😀"})),
        (&[("ce-tenant", "\"a \\\"b\\\"\"")], "", json!({"tenant": "a \"b\""})),
        (&[("ce-tenant", "100%")], "", json!({"tenant": "100%"})),
    ] {
        assert_eq!(event(&binary_with(more), "", body), with(expected), "{more:?} {body}");
    }
}

#[test]
fn plain_json_gets_an_event_around_it() {
    let made = event(&[("content-type", "application/json")], "", "{\"n\":1.50}");
    assert_eq!(made["source"], "/namespaces/shop/topics/orders");
    assert_eq!((&made["type"], &made["time"]), (&json!("davit.message"), &json!("2030-01-01T00:00:00.000Z")));
    assert_eq!(made["data"]["n"], 1.5);
    let made = event(&[("x-davit-event-subject", "caf%C3%A9")], "type=order.created&id=7", "5");
    assert_eq!(
        (&made["type"], &made["subject"], &made["id"]),
        (&json!("order.created"), &json!("café"), &json!("7"))
    );
    let fresh = |query| match ask(&[], query, "5").unwrap() {
        Incoming::One(message) => message.fresh,
        Incoming::Batch(_) => panic!("a batch"),
    };
    assert!(fresh("") && !fresh("id=7"), "only an id that somebody else made can come twice");
}

#[test]
fn what_is_wrong_is_said_precisely() {
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let good = json!({"specversion": "1.0", "id": "1", "source": "/", "type": "t"});
    let many = Value::from(vec![good.clone(); 101]).to_string();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    type Case<'c> = (Vec<(&'static str, &'static str)>, &'c str, &'c str, u16, &'c str);
    let cases: Vec<Case<'_>> = vec![
        (vec![("ce-id", "1")], "", "", 400, "ce-specversion: is missing"),
        (binary_with(&[("ce-specversion", "1.0")]), "", "", 400, "ce-specversion: given twice"),
        (
            vec![("ce-specversion", "0.3"), ("ce-id", "1"), ("ce-source", "/"), ("ce-type", "t")],
            "",
            "",
            400,
            "ce-specversion: only 1.0",
        ),
        (binary_with(&[("ce-time", "noon")]), "", "", 400, "ce-time: must be an instant"),
        (binary_with(&[("ce-under_score", "x")]), "", "", 400, "ce-under_score: an attribute is named"),
        (binary_with(&[("ce-subject", "%FF")]), "", "", 400, "ce-subject: is not UTF-8"),
        (binary_with(&[("ce-datacontenttype", "text/plain")]), "", "", 400, "ce-datacontenttype: is what"),
        (binary_with(&[("content-type", "application/json")]), "", "{", 400, "body: is not JSON"),
        (binary_with(&[]), "type=x", "", 400, "query: is for plain JSON"),
        (structured.to_vec(), "", "{", 400, "EOF while parsing"),
        (
            structured.to_vec(),
            "",
            "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/\"}",
            400,
            "type: is missing",
        ),
        (batch.to_vec(), "", "{}", 400, "invalid type: map"),
        (batch.to_vec(), "", "[{}]", 400, "event [0]: specversion: is missing"),
        (batch.to_vec(), "", &many, 400, "body: at most 100 events"),
        (vec![("content-type", "application/cloudevents+xml")], "", "<x/>", 415, "of the formats"),
        (vec![("content-type", "text/plain")], "", "hi", 415, "send JSON"),
        (vec![("content-encoding", "gzip")], "", "{}", 415, "content-encoding"),
        (vec![], "", "", 400, "body: is not JSON"),
        (vec![], "", &deep, 400, "body: is not JSON: recursion limit"),
        (vec![], "color=red", "1", 400, "query: only type"),
        (vec![], "type=a&type=b", "1", 400, "type: given twice"),
        (vec![("x-davit-event-type", "a")], "type=b", "1", 400, "type: given as a header and"),
        (vec![], "type=", "1", 400, "type: must not be empty"),
        (vec![], "source=a%20b", "1", 400, "source: must be a URI reference"),
    ];
    for (headers, query, body, status, message) in cases {
        let refused = ask(&headers, query, body).map(drop).unwrap_err();
        assert_eq!(refused.code.status(), status, "{headers:?} {query}: {refused:?}");
        assert!(refused.message.starts_with(message), "{headers:?} {query}: {}", refused.message);
    }
    assert!(matches!(ask(&batch, "", "[]").unwrap(), Incoming::Batch(all) if all.is_empty()));
}

proptest! {
    #[test]
    fn what_is_sent_in_binary_mode_reads_back_the_same(subject in "[^\\x00-\\x1f\\x7f-\\u{9f}]{1,40}", n in any::<i32>(), text in "[a-z\"\\\\]{0,10}") {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/", "type": "t", "subject": subject,
            "datacontenttype": "application/json", "data": {"n": n, "text": text}});
        let (headers, body) = as_binary(event.to_string().as_bytes()).unwrap();
        let (namespace, topic) = ("shop".parse().unwrap(), "orders".parse().unwrap());
        let place = Place { namespace: &namespace, topic: &topic };
        let Ok(Incoming::One(message)) = read(place, &headers, "", &body, Utc::now()) else { panic!("not one event") };
        prop_assert_eq!(serde_json::from_slice::<Value>(&message.event.to_json()).unwrap(), event);
    }
}
