//! Topics: who subscribed gets what it asked for, once, and nothing that was published is lost on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use chrono::Utc;
use davit_api::{
    CloudEvent, Destination, Destinations, ErrorCode, FunctionSubscription, GatewayId, InvocationSource,
    Lineage, NewSubscription, Published, Replay, Subscriber, TopicName, VersionSpec, Webhook,
};
use davit_registry::{ClaimedTarget, Job, NewMessage, Registry, Settlement};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::queues::claim;
use crate::support::*;

fn topic() -> TopicName {
    "orders".parse().unwrap()
}

async fn make(registry: &Registry, name: &str) {
    registry.as_davit("test").create_topic(&ns(), &name.parse().unwrap()).await.unwrap();
}

fn event(id: &str, more: Value) -> NewMessage {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "order.created"});
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    NewMessage { event: CloudEvent::parse(event.to_string().as_bytes()).unwrap(), fresh: false }
}

async fn publish(registry: &Registry, message: NewMessage) -> Published {
    registry.publish(&ns(), &topic(), vec![message], Lineage::default()).await.unwrap().remove(0)
}

fn subscription(name: &str, function: &str, settings: Value) -> NewSubscription {
    let to = json!({ "function": function });
    serde_json::from_value(json!({"name": name, "to": to, "settings": settings})).unwrap()
}

async fn subscribe(registry: &Registry, new: NewSubscription) {
    new.check().unwrap();
    registry.as_davit("test").subscribe(&ns(), &topic(), &new).await.unwrap();
}

/// What each claimed job would do, as `function id`.
fn seen(jobs: &[Job]) -> Vec<String> {
    let mut seen: Vec<String> = jobs
        .iter()
        .map(|job| {
            let to = match &job.target {
                ClaimedTarget::Function { name, .. } => name.to_string(),
                ClaimedTarget::Webhook(hook) => hook.url.clone(),
            };
            let event: Value = serde_json::from_slice(&job.payload).unwrap();
            format!("{to} {}", event["id"].as_str().unwrap())
        })
        .collect();
    seen.sort();
    seen
}

async fn succeed(registry: &Registry, job: &Job) {
    let done = Settlement::Succeeded { result: b"{}".to_vec() };
    assert!(registry.settle(job.id, job.attempt, done).await.unwrap());
}

async fn fail(registry: &Registry, job: &Job) {
    let error = davit_api::ApiError::new(ErrorCode::FunctionError, "boom").body();
    assert!(registry.settle(job.id, job.attempt, Settlement::Dead { error }).await.unwrap());
}

#[tokio::test]
async fn a_message_goes_to_every_subscription_that_wants_it() {
    let db = fresh().await;
    let registry = db.registry();
    for (n, function) in ["all", "large", "never"].into_iter().enumerate() {
        deployed(registry, function, &spec(), [&b"a"[..], b"b", b"c"][n]).await;
    }
    make(registry, "orders").await;
    subscribe(registry, subscription("all", "all", json!({}))).await;
    let large = json!({"filter": {"data": {"sum": [{"numeric": [">=", 100]}]}}, "retry": {"max_attempts": 9}, "priority": "high"});
    subscribe(registry, subscription("large", "large", large)).await;
    subscribe(registry, subscription("never", "never", json!({"filter": {"type": ["refund"]}}))).await;
    let hook = Webhook { url: "https://example.com/hook".into(), secret: None, mode: Default::default() };
    let to = Subscriber::Webhook(hook.clone());
    subscribe(
        registry,
        NewSubscription { name: "hook".parse().unwrap(), to, settings: Default::default(), replace: false },
    )
    .await;

    let small = publish(registry, event("1", json!({"data": {"sum": 5}}))).await;
    let big = publish(registry, event("2", json!({"data": {"sum": 100}}))).await;
    assert_eq!((small.deliveries, big.deliveries, big.duplicate), (2, 3, false));
    let jobs = claim(registry, GatewayId::new(), 20).await;
    assert_eq!(
        seen(&jobs),
        ["all 1", "all 2", "https://example.com/hook 1", "https://example.com/hook 2", "large 2"]
    );
    assert!(jobs.iter().all(|job| job.source == InvocationSource::Topic));
    let attempts = |name: &str| {
        let of =
            |job: &&Job| matches!(&job.target, ClaimedTarget::Function { name: n, .. } if n.as_str() == name);
        jobs.iter().find(of).unwrap().policy.max_attempts
    };
    assert_eq!((attempts("large"), attempts("all")), (9, 3), "its own, and the function's");

    let unknown = registry
        .publish(&ns(), &"nothing".parse().unwrap(), vec![event("1", json!({}))], Lineage::default())
        .await;
    assert_eq!(code(unknown), ErrorCode::NotFound);
    let huge = event("3", json!({"data": "x".repeat(300_000)}));
    assert_eq!(
        code(registry.publish(&ns(), &topic(), vec![huge], Lineage::default()).await),
        ErrorCode::TooLarge
    );
    let foreign = registry
        .publish(&"other".parse().unwrap(), &topic(), vec![event("1", json!({}))], Lineage::default())
        .await;
    assert_eq!(code(foreign), ErrorCode::NotFound, "a topic of another namespace");
}

#[tokio::test]
async fn published_twice_is_delivered_once() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    make(registry, "orders").await;
    subscribe(registry, subscription("f", "f", json!({}))).await;
    let first = publish(registry, event("1", json!({"data": 1}))).await;
    let again = publish(registry, event("1", json!({"data": 2}))).await;
    assert_eq!(again, Published { message_id: first.message_id, deliveries: 0, duplicate: true });
    let other = publish(registry, event("1", json!({"source": "/elsewhere"}))).await;
    assert_eq!((other.deliveries, other.duplicate), (1, false), "another source's 1");

    // In a batch, twice in it, and by many at the same moment.
    let batch = vec![event("2", json!({})), event("1", json!({})), event("2", json!({}))];
    let batch = registry.publish(&ns(), &topic(), batch, Lineage::default()).await.unwrap();
    assert_eq!(
        batch.iter().map(|p| (p.deliveries, p.duplicate)).collect::<Vec<_>>(),
        [(1, false), (0, true), (0, true)]
    );
    assert_eq!((batch[1].message_id, batch[2].message_id), (first.message_id, batch[0].message_id));
    let racing = (0..8).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move { publish(&registry, event("3", json!({}))).await })
    });
    let mut raced = Vec::new();
    for one in racing.collect::<Vec<_>>() {
        raced.push(one.await.unwrap());
    }
    assert_eq!(raced.iter().map(|p| p.deliveries).sum::<u32>(), 1);
    assert!(raced.iter().all(|p| p.message_id == raced[0].message_id));
    assert_eq!(claim(registry, GatewayId::new(), 50).await.len(), 4);

    // After a day it is news again.
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let later = "update message_keys set published_at = published_at - interval '25 hours'";
    sqlx::raw_sql(later).execute(&mut raw).await.unwrap();
    let news = publish(registry, event("1", json!({}))).await;
    assert!(!news.duplicate && news.message_id != first.message_id);
    assert_eq!(registry.keep_messages(7).await.unwrap().deleted, 3, "keys of a day ago");
    assert_eq!(registry.topic_detail(&ns(), &topic()).await.unwrap().messages, 5);
}

#[tokio::test]
async fn a_subscription_can_be_changed_in_place_and_keeps_what_it_has_queued() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    make(registry, "orders").await;
    subscribe(registry, subscription("s", "f", json!({}))).await;
    publish(registry, event("before", json!({"type": "odd"}))).await;
    let mut changed = subscription("s", "f", json!({"filter": {"type": ["even"]}}));
    let davit = registry.as_davit("test");
    let refused = davit.subscribe(&ns(), &topic(), &changed).await.unwrap_err();
    assert_eq!(refused.into_api().code, ErrorCode::Conflict);
    changed.replace = true;
    assert_eq!(davit.subscribe(&ns(), &topic(), &changed).await.unwrap().queued, 1);
    for kind in ["odd", "even"] {
        publish(registry, event(kind, json!({ "type": kind }))).await;
    }
    let jobs = claim(registry, GatewayId::new(), 10).await;
    assert_eq!(seen(&jobs), ["f before", "f even"]);

    let own: FunctionSubscription = serde_json::from_value(json!({"topic": "orders"})).unwrap();
    deployed(registry, "listed", &VersionSpec { subscriptions: vec![own], ..spec() }, b"b").await;
    let by_hand = NewSubscription { replace: true, ..subscription("listed", "f", json!({})) };
    let refused = davit.subscribe(&ns(), &topic(), &by_hand).await.unwrap_err().to_string();
    assert!(refused.contains("manifest"), "{refused}");
}

#[tokio::test]
async fn what_is_kept_can_be_delivered_again_to_one_subscription() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    deployed(registry, "late", &spec(), b"b").await;
    make(registry, "orders").await;
    subscribe(registry, subscription("f", "f", json!({}))).await;
    let from = Utc::now();
    for n in 0..1_200 {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        publish(registry, event(&n.to_string(), json!({ "type": kind }))).await;
    }
    subscribe(
        registry,
        subscription("late", "late", json!({"filter": {"type": ["even"]}, "ordering": "type"})),
    )
    .await;
    let davit = registry.as_davit("test");
    let late = "late".parse().unwrap();
    let mut which = Replay { from, to: None, after: None };
    let first = davit.replay(&ns(), &topic(), &late, which).await.unwrap();
    assert_eq!((first.messages, first.deliveries), (1_000, 500));
    // What is published meanwhile comes by itself, and not once more.
    publish(registry, event("new", json!({"type": "even"}))).await;
    (which.to, which.after) = (Some(first.to), first.next);
    let second = davit.replay(&ns(), &topic(), &late, which).await.unwrap();
    assert_eq!((second.messages, second.deliveries), (200, 100));
    which.after = second.next;
    let last = davit.replay(&ns(), &topic(), &late, which).await.unwrap();
    assert_eq!((last.messages, last.next), (0, None));

    let detail = registry.topic_detail(&ns(), &topic()).await.unwrap();
    assert_eq!(detail.messages, 1_201);
    let queued = |name: &str| detail.subscribers.iter().find(|s| s.name.as_str() == name).unwrap().queued;
    assert_eq!((queued("f"), queued("late")), (1_201, 601));
    // One at a time, in the order in which they were published.
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let jobs = claim(registry, GatewayId::new(), 2_000).await;
        let of_late: Vec<&Job> = jobs
            .iter()
            .filter(
                |job| matches!(&job.target, ClaimedTarget::Function { name, .. } if name.as_str() == "late"),
            )
            .collect();
        assert_eq!(of_late.len(), 1, "in turn");
        ids.push(serde_json::from_slice::<Value>(&of_late[0].payload).unwrap()["id"].clone());
        succeed(registry, of_late[0]).await;
    }
    assert_eq!(ids, ["0", "2", "4"]);
    let unknown = davit.replay(&ns(), &topic(), &"nobody".parse().unwrap(), which).await;
    assert_eq!(code(unknown), ErrorCode::NotFound);
}

#[tokio::test]
async fn what_was_accepted_is_delivered_though_topic_and_subscription_go() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    deployed(registry, "gone", &spec(), b"b").await;
    make(registry, "orders").await;
    for name in ["f", "gone"] {
        subscribe(registry, subscription(name, name, json!({}))).await;
    }
    publish(registry, event("1", json!({}))).await;
    let davit = registry.as_davit("test");
    davit.unsubscribe(&ns(), &topic(), &"f".parse().unwrap()).await.unwrap();
    assert_eq!(code(davit.unsubscribe(&ns(), &topic(), &"f".parse().unwrap()).await), ErrorCode::NotFound);
    davit.delete_function(&ns(), &name("gone")).await.unwrap();
    let left = registry.topic_detail(&ns(), &topic()).await.unwrap().subscribers;
    assert!(left.is_empty(), "a function that is gone subscribes to nothing: {left:?}");
    assert_eq!(publish(registry, event("2", json!({}))).await.deliveries, 0);
    davit.delete_topic(&ns(), &topic()).await.unwrap();
    assert_eq!(code(davit.delete_topic(&ns(), &topic()).await), ErrorCode::NotFound);
    let jobs = claim(registry, GatewayId::new(), 10).await;
    assert_eq!(seen(&jobs), ["f 1"]);
    fail(registry, &jobs[0]).await;
    // A dead letter of a subscription that is gone can still be redriven.
    assert_eq!(davit.redrive(&ns(), None, Some(jobs[0].id)).await.unwrap().len(), 1);

    make(registry, "orders").await;
    assert_eq!(code(davit.create_topic(&ns(), &topic()).await), ErrorCode::Conflict);
    assert_eq!(
        registry.topic_detail(&ns(), &topic()).await.unwrap().messages,
        0,
        "a new one of the same name"
    );
    assert!(!publish(registry, event("1", json!({}))).await.duplicate);
}

#[tokio::test]
async fn subscriptions_of_the_manifest_come_and_go_with_the_version() {
    let db = fresh().await;
    let registry = db.registry();
    let with = |topics: &[(&str, Option<&str>)]| VersionSpec {
        subscriptions: topics
            .iter()
            .map(|(topic, name)| {
                serde_json::from_value::<FunctionSubscription>(json!({"topic": topic, "name": name})).unwrap()
            })
            .collect(),
        ..spec()
    };
    let listed = async |topic: &str| {
        let detail = registry.topic_detail(&ns(), &topic.parse().unwrap()).await.unwrap();
        detail.subscribers.into_iter().map(|s| (s.name.to_string(), s.from_manifest)).collect::<Vec<_>>()
    };
    deployed(registry, "f", &with(&[("orders", None), ("refunds", Some("back"))]), b"a").await;
    assert_eq!(listed("orders").await, [("f".to_owned(), true)]);
    assert_eq!(listed("refunds").await, [("back".to_owned(), true)]);
    subscribe(registry, subscription("by-hand", "f", json!({}))).await;
    publish(registry, event("1", json!({}))).await;

    deployed(registry, "f", &with(&[("orders", None)]), b"b").await;
    assert_eq!(listed("orders").await, [("by-hand".to_owned(), false), ("f".to_owned(), true)]);
    assert!(listed("refunds").await.is_empty());
    let f = &registry.topic_detail(&ns(), &topic()).await.unwrap().subscribers[1];
    assert_eq!(f.queued, 1, "one that stays keeps what it has queued");
    registry.as_davit("test").rollback(&ns(), &name("f"), Some(1)).await.unwrap();
    assert_eq!(listed("refunds").await.len(), 1);

    // Another function cannot take the name.
    let other = built(registry, "g", &with(&[("orders", Some("f"))]), b"c").await;
    assert_eq!(code(registry.version_ready_and_live(other.id).await), ErrorCode::Conflict);
}

#[tokio::test]
async fn an_outcome_is_published_and_loops_end() {
    let db = fresh().await;
    let registry = db.registry();
    // What it makes of its messages goes to the topic that it gets them from.
    let on = |name: &str| Some(Destination::Topic(name.parse().unwrap()));
    let circle = VersionSpec {
        destinations: Destinations { on_success: on("orders"), on_failure: on("nowhere") },
        ..spec()
    };
    deployed(registry, "f", &circle, b"a").await;
    make(registry, "orders").await;
    subscribe(registry, subscription("f", "f", json!({}))).await;
    publish(registry, event("1", json!({"data": {"n": 1}}))).await;
    let gateway = GatewayId::new();
    let mut types = Vec::new();
    for _ in 0..20 {
        let Some(job) = claim(registry, gateway, 1).await.pop() else { break };
        let event: Value = serde_json::from_slice(&job.payload).unwrap();
        types.push(event["type"].as_str().unwrap().to_owned());
        if let Some(cause) = event["data"]["requestContext"]["requestId"].as_str() {
            assert_eq!((event["id"].as_str(), event["subject"].as_str()), (Some(cause), Some("f")));
        }
        succeed(registry, &job).await;
        let view = registry.invocation(&ns(), job.id).await.unwrap();
        let sent = view.sent_on.unwrap();
        assert_eq!(sent.destination, "topic orders");
        assert_eq!(sent.messages.is_empty(), sent.error.is_some(), "{sent:?}");
    }
    assert_eq!(types.len(), 9, "eight hops after the first");
    assert_eq!((types[0].as_str(), types[1].as_str()), ("order.created", "davit.invocation.succeeded"));

    publish(registry, event("2", json!({}))).await;
    let job = claim(registry, gateway, 1).await.remove(0);
    fail(registry, &job).await;
    let sent = registry.invocation(&ns(), job.id).await.unwrap().sent_on.unwrap();
    assert_eq!(sent.error.as_deref(), Some("not sent: there is no such topic"));
    let f = registry.topic_detail(&ns(), &topic()).await.unwrap().subscribers.remove(0);
    assert_eq!((f.queued, f.dead), (0, 1));
    registry.as_davit("test").redrive(&ns(), None, None).await.unwrap();
    let f = registry.topic_detail(&ns(), &topic()).await.unwrap().subscribers.remove(0);
    assert_eq!((f.queued, f.dead), (1, 0), "redriven, it counts for its subscription again");
}

#[tokio::test]
async fn an_outcome_that_is_too_large_or_too_deep_is_published_all_the_same() {
    let db = fresh().await;
    let registry = db.registry();
    let on_success = Some(Destination::Topic(topic()));
    let spec = VersionSpec { destinations: Destinations { on_success, on_failure: None }, ..spec() };
    deployed(registry, "f", &spec, b"a").await;
    make(registry, "orders").await;
    let function = function_id(registry, "f").await;
    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    for result in [vec![b'x'; 1_000_000], deep.into_bytes()] {
        let mut work = crate::queues::work(function, "{}");
        work.destinations = spec.destinations.clone();
        registry.enqueue(work).await.unwrap();
        let job = claim(registry, GatewayId::new(), 1).await.remove(0);
        assert!(registry.settle(job.id, 1, Settlement::Succeeded { result }).await.unwrap());
        let sent = registry.invocation(&ns(), job.id).await.unwrap().sent_on.unwrap();
        assert_eq!((sent.messages.len(), sent.error), (1, None));
    }
}

#[tokio::test]
async fn a_topic_has_only_so_many_subscriptions_and_a_namespace_so_many_topics() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    make(registry, "orders").await;
    for n in 0..davit_api::limits::SUBSCRIPTIONS {
        subscribe(registry, subscription(&format!("s{n}"), "f", json!({}))).await;
    }
    let davit = registry.as_davit("test");
    let one_more = davit.subscribe(&ns(), &topic(), &subscription("more", "f", json!({}))).await;
    assert_eq!(code(one_more), ErrorCode::Conflict);
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql(
        "insert into topics (id, namespace_id, name) select gen_random_uuid(), namespace_id, 't' || n
         from topics, generate_series(1, 999) n",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    assert_eq!(code(davit.create_topic(&ns(), &"more".parse().unwrap()).await), ErrorCode::Conflict);
    assert_eq!(registry.list_topics(&ns()).await.unwrap().len(), 1_000);
    assert_eq!(publish(registry, event("1", json!({}))).await.deliveries, 100);
}

#[tokio::test]
async fn old_days_of_messages_go_as_wholes() {
    let db = fresh().await;
    let registry = db.registry();
    make(registry, "orders").await;
    publish(registry, event("1", json!({}))).await;
    let round = registry.keep_messages(7).await.unwrap();
    assert_eq!((round.made, round.dropped), (4, 0));
    publish(registry, event("2", json!({}))).await;
    assert_eq!(registry.topic_detail(&ns(), &topic()).await.unwrap().messages, 2, "one moved to its day");
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql(
        "create table messages_d20200101 partition of messages for values from ('2020-01-01') to ('2020-01-02');
         insert into messages (id, topic_id, event, published_at) select gen_random_uuid(), id, '', '2020-01-01T10:00:00Z' from topics",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    assert_eq!(registry.keep_messages(7).await.unwrap().dropped, 1);
    let detail = registry.topic_detail(&ns(), &topic()).await.unwrap();
    assert_eq!(detail.messages, 2);
    assert!(
        Utc::now() - detail.last_published_at.unwrap()
            < chrono::TimeDelta::from_std(Duration::from_secs(600)).unwrap()
    );
}

/// Settles as a gateway does: what the database could not do now is tried again.
async fn settle_as_a_gateway(registry: &Registry, job: &Job) {
    for _ in 0..50 {
        let done = Settlement::Succeeded { result: b"{}".to_vec() };
        match registry.settle(job.id, job.attempt, done).await {
            Ok(recorded) => return assert!(recorded, "its lease is good"),
            Err(davit_registry::RegistryError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never settled");
}

#[tokio::test]
async fn outcomes_that_go_into_an_ordered_topic_all_arrive_while_many_publish_and_settle() {
    let db = fresh().await;
    let registry = db.registry();
    // Each outcome is a message of the topic it came from, in an order that all of them share: until the eighth hop.
    let on_success = Some(Destination::Topic(topic()));
    let spec = VersionSpec { destinations: Destinations { on_success, on_failure: None }, ..spec() };
    deployed(registry, "f", &spec, b"a").await;
    make(registry, "orders").await;
    subscribe(registry, subscription("f", "f", json!({"ordering": "subject"}))).await;
    let publishers = (0..4).map(|who| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for n in 0..5 {
                let subject = if n % 2 == 0 { "f" } else { "other" };
                publish(&registry, event(&format!("{who}-{n}"), json!({ "subject": subject }))).await;
            }
        })
    });
    // Each message and the eight outcomes after it.
    let (all, settled) = (20 * 9, Arc::new(AtomicUsize::new(0)));
    let workers = (0..4).map(|_| {
        let (registry, settled) = (registry.clone(), settled.clone());
        tokio::spawn(async move {
            let (gateway, started) = (GatewayId::new(), Instant::now());
            while settled.load(SeqCst) < all && started.elapsed() < Duration::from_secs(60) {
                for job in claim(&registry, gateway, 5).await {
                    settle_as_a_gateway(&registry, &job).await;
                    settled.fetch_add(1, SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    });
    let (publishers, workers): (Vec<_>, Vec<_>) = (publishers.collect(), workers.collect());
    for one in publishers.into_iter().chain(workers) {
        one.await.unwrap();
    }
    assert_eq!(settled.load(SeqCst), all);
    let f = registry.topic_detail(&ns(), &topic()).await.unwrap().subscribers.remove(0);
    assert_eq!((f.queued, f.dead), (0, 0));
}
