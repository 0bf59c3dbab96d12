//! What functions ask for, from agents that speak the real protocol: who may, what comes of it, what is cut short.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use davit_api::{InvocationId, InvocationSource, limits};
use davit_gateway::dispatch::Acceptor;
use davit_gateway::http::{Parts, Public};
use davit_gateway::instances::Answers;
use davit_gateway::invoke::Target;
use davit_gateway::routes::{Pins, Routes, Table};
use davit_gateway::version::LiveVersion;
use davit_registry::testing::TestDatabase;
use davit_registry::{InvocationFilter, MasterKey, Registry};
use serde_json::{Value, json};
use support::{World, call, named, until};

struct Asks {
    world: World,
    _public: Arc<Public>,
}

/// A gateway that answers what functions ask for, over a registry or none.
async fn gateway(versions: &[Arc<LiveVersion>], registry: Option<Registry>) -> Asks {
    let world = World::new(|limits| limits.abandon_grace = Duration::from_millis(50));
    let routes = Routes::empty();
    routes.store(Table::build(versions.to_vec(), HashMap::new()));
    let registry = match registry {
        Some(registry) => registry,
        None => {
            let registry = TestDatabase::new().await.registry().clone();
            registry.close().await;
            registry
        }
    };
    let public = Arc::new(Public::new(Parts {
        pins: Pins::new(routes.clone(), registry.clone(), Arc::new(MasterKey::from_bytes([7; 32]))),
        routes,
        corridor: world.corridor.clone(),
        acceptor: Acceptor::spawn(registry.clone(), Arc::default()),
        registry,
        metrics: world.metrics.clone(),
        parked_bytes: 8 << 20,
        port: 80,
    }));
    let answers: Arc<dyn Answers> = public.clone();
    assert!(world.instances.shared().answers.set(Arc::downgrade(&answers)).is_ok());
    Asks { world, _public: public }
}

impl Asks {
    /// Calls a function that asks for this; what it was answered.
    async fn ask(&self, from: &Arc<LiveVersion>, ask: Value) -> Value {
        self.world.call(from, json!({ "ask": ask })).await.unwrap()["asked"].clone()
    }
}

fn pair() -> (Arc<LiveVersion>, Arc<LiveVersion>) {
    (named("shop", "orders", |_| {}), named("shop", "stock", |_| {}))
}

#[tokio::test]
async fn a_function_calls_another_and_gets_its_answer() {
    let (orders, stock) = pair();
    let asks = gateway(&[orders.clone(), stock.clone()], None).await;
    asks.world.container(&orders).await;
    asks.world.container(&stock).await;
    let body = json!({"n": 7, "trace": true}).to_string();
    let answered =
        asks.ask(&orders, json!({"target": "/v1/functions/stock/invocations", "body": body})).await;
    assert_eq!((&answered["status"], &answered["body"]["event"]["n"]), (&json!(200), &json!(7)));
    assert_eq!(answered["headers"]["x-davit-version"], "1");
    assert_eq!(answered["headers"]["x-davit-invocation-id"], answered["body"]["id"]);
    let trace = answered["body"]["trace"].as_str().unwrap();
    assert!(trace.starts_with("Root=1-") && trace.contains(";Parent="), "{trace}");
    let lambda = "/2015-03-31/functions/stock/invocations?Qualifier=%24LATEST";
    let headers = json!({"x-amz-client-context": "eyJhIjoxfQ=="});
    let invoked = asks.ask(&orders, json!({"target": lambda, "body": body, "headers": headers})).await;
    assert_eq!((&invoked["status"], &invoked["body"]["event"]["n"]), (&json!(200), &json!(7)));
    assert_eq!(
        (&invoked["headers"]["x-amz-executed-version"], &invoked["body"]["context"]),
        (&json!("1"), &json!("{\"a\":1}"))
    );
    let large = asks.ask(&orders, json!({"target": lambda, "size": 3_000_000})).await;
    assert_eq!(large["status"], 200, "bodies of some size come when there is room");
    assert_eq!(asks.world.metrics.asked.calls.get(), 3);
}

#[tokio::test]
async fn functions_errors_are_results_for_lambda_and_errors_for_davit() {
    let (orders, stock) = pair();
    let asks = gateway(&[orders.clone(), stock.clone()], None).await;
    asks.world.container(&orders).await;
    asks.world.container(&stock).await;
    let body = json!({"fail": true}).to_string();
    let plain = asks.ask(&orders, json!({"target": "/v1/functions/stock/invocations", "body": body})).await;
    assert_eq!((&plain["status"], &plain["body"]["code"]), (&json!(502), &json!("function_error")));
    let lambda =
        asks.ask(&orders, json!({"target": "/2015-03-31/functions/stock/invocations", "body": body})).await;
    assert_eq!(
        (&lambda["status"], &lambda["headers"]["x-amz-function-error"]),
        (&json!(200), &json!("Unhandled"))
    );
    assert_eq!(lambda["body"]["errorMessage"], "boom");
    for (target, body, status, exception) in [
        ("/2015-03-31/functions/nobody/invocations", "{}", 404, "ResourceNotFoundException"),
        ("/2015-03-31/functions/stock:beta/invocations", "{}", 404, "ResourceNotFoundException"),
        ("/2015-03-31/functions/stock/invocations", "{", 400, "InvalidRequestContentException"),
        ("/2015-03-31/functions/a%3Ab%3Ac/invocations", "{}", 400, "InvalidParameterValueException"),
        ("/2015-03-31/functions/billing%3Afunction%3Af/invocations", "{}", 403, "AccessDeniedException"),
        (
            "/2021-11-15/functions/stock/response-streaming-invocations",
            "{}",
            404,
            "ResourceNotFoundException",
        ),
    ] {
        let refused = asks.ask(&orders, json!({"target": target, "body": body})).await;
        let seen =
            (refused["status"].as_u64().unwrap(), refused["headers"]["x-amzn-errortype"].as_str().unwrap());
        assert_eq!(seen, (status, exception), "{target}: {refused}");
        assert!(refused["body"]["Message"].is_string() && refused["body"]["message"].is_string());
    }
    let dry = json!({"x-amz-invocation-type": "DryRun"});
    let dry =
        asks.ask(&orders, json!({"target": "/2015-03-31/functions/stock/invocations", "headers": dry})).await;
    assert_eq!(dry["status"], 204);
}

#[tokio::test]
async fn who_asks_is_whom_the_connection_belongs_to_whatever_is_sent() {
    let (orders, stock) = pair();
    let foreign = named("billing", "report", |s| s.allow_callers = Some(vec!["shop/stock".parse().unwrap()]));
    let asks = gateway(&[orders.clone(), stock.clone(), foreign.clone()], None).await;
    asks.world.container(&orders).await;
    asks.world.container(&stock).await;
    asks.world.container(&foreign).await;
    let target = "/v1/namespaces/billing/functions/report/invocations";
    assert_eq!(asks.ask(&stock, json!({ "target": target })).await["status"], 200);
    let forged = json!({"x-davit-caller": "shop/stock", "x-davit-namespace": "billing", "x-davit-function": "stock",
        "x-davit-hops": "0", "authorization": "Bearer dvt_shop", "x-davit-invocation-id": InvocationId::new().to_string()});
    for how in [
        json!({ "target": target }),
        json!({ "target": target, "headers": forged }),
        json!({ "target": target, "as": InvocationId::new().to_string() }),
    ] {
        let refused = asks.ask(&orders, how).await;
        assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(403), &json!("forbidden")));
        let message = refused["body"]["message"].as_str().unwrap();
        assert!(message.contains("allow_callers = [\"shop/orders\"]"), "{message}");
    }
    // Whether another tenant's function exists is not told.
    let nothing = asks.ask(&orders, json!({"target": target.replace("report", "nothing")})).await;
    assert_eq!((&nothing["status"], &nothing["body"]["code"]), (&json!(403), &json!("forbidden")));
    let topic = asks.ask(&orders, json!({"target": "/v1/namespaces/billing/topics/t/messages"})).await;
    assert_eq!(topic["status"], 403);
    assert_eq!(asks.world.metrics.asked.refused.get(), 5);
}

#[tokio::test]
async fn a_function_that_calls_itself_ends_with_a_precise_error() {
    let target = "/v1/functions/orders/invocations";
    // Room for one: the second call would wait for the first, which waits for it.
    let narrow = named("shop", "orders", |s| s.max_instances = 1);
    let asks = gateway(std::slice::from_ref(&narrow), None).await;
    asks.world.container(&narrow).await;
    let begun = Instant::now();
    let refused = asks.ask(&narrow, json!({ "target": target })).await;
    assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(422), &json!("loop_detected")));
    assert!(refused["body"]["message"].as_str().unwrap().contains("raise its max_instances"));
    assert!(begun.elapsed() < Duration::from_secs(2), "at once");

    // Room for many: the chain is cut.
    let wide = named("shop", "orders", |s| s.max_instances = 20);
    let asks = gateway(std::slice::from_ref(&wide), None).await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(asks.world.container(&wide).await);
    }
    let mut answered =
        asks.world.call(&wide, json!({"ask": {"target": target, "to_itself": true}})).await.unwrap();
    let mut depth = 0;
    while answered["asked"]["status"] == 200 {
        depth += 1;
        answered = answered["asked"]["body"].clone();
    }
    assert_eq!(
        (depth, &answered["asked"]["body"]["code"]),
        (u64::from(limits::HOPS), &json!("loop_detected"))
    );
    assert_eq!(seen.iter().map(|s| s.invokes.load(SeqCst)).sum::<u32>(), u32::from(limits::HOPS) + 1);
}

#[tokio::test]
async fn the_time_that_is_left_goes_along() {
    let orders = named("shop", "orders", |s| s.timeout_seconds = 60);
    let stock = named("shop", "stock", |s| s.timeout_seconds = 600);
    let asks = gateway(&[orders.clone(), stock.clone()], None).await;
    asks.world.container(&orders).await;
    asks.world.container(&stock).await;
    let body = json!({"trace": true}).to_string();
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let answered =
        asks.ask(&orders, json!({"target": "/v1/functions/stock/invocations", "body": body})).await;
    assert_eq!(answered["status"], 200, "{answered}");
    let deadline = answered["body"]["deadline"].as_u64().unwrap();
    // Far from its own ten minutes, whatever the machine's haste.
    assert!(deadline <= before + 120_000, "{} ms", deadline.saturating_sub(before));
}

#[tokio::test]
async fn a_caller_who_goes_away_takes_his_call_along() {
    let (orders, stock) = pair();
    let asks = gateway(&[orders.clone(), stock.clone()], None).await;
    asks.world.container(&orders).await;
    let seen = asks.world.container(&stock).await;
    let body = json!({"sleep": 60_000}).to_string();
    let target = "/v1/functions/stock/invocations";
    let taken_back = asks.ask(&orders, json!({"target": target, "body": body, "take_back": true})).await;
    assert_eq!(taken_back["status"], 0);
    until("the function is stopped", || seen.closed.load(SeqCst)).await;
    // And so does one whose own caller goes.
    let seen = asks.world.container(&stock).await;
    let event = json!({"ask": {"target": target, "body": body}});
    let whole = asks.world.corridor.invoke(Target { version: orders.clone() }, call(&orders, event));
    let gone = tokio::time::timeout(Duration::from_millis(500), whole).await;
    assert!(gone.is_err() && seen.invokes.load(SeqCst) == 1);
    until("that function is stopped, too", || seen.closed.load(SeqCst)).await;
    until("nothing is under way", || asks.world.metrics.calls_open.get() == 0).await;
}

#[tokio::test]
async fn what_is_too_much_or_unknown_is_refused() {
    let (orders, stock) = pair();
    let asks = gateway(&[orders.clone(), stock.clone()], None).await;
    asks.world.container(&orders).await;
    for (target, status, code) in [
        ("/v1/functions/stock/invocations?async=true", 413, json!("too_large")),
        ("/v1/topics/t/messages", 413, json!("too_large")),
        ("/v1/functions/stock/invocations?later=true", 400, json!("invalid_request")),
        ("/v1/tokens", 404, json!("not_found")),
    ] {
        let refused = asks.ask(&orders, json!({"target": target, "size": 1_100_000})).await;
        assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(status), &code), "{target}");
    }
    assert_eq!(asks.world.metrics.asked.calls.get(), 0);
}

#[tokio::test]
async fn calls_for_later_and_messages_are_accepted_with_who_caused_them() {
    let db = TestDatabase::new().await;
    let shop = "shop".parse().unwrap();
    let davit = db.registry().as_davit("test");
    davit.ensure_namespace(&shop).await.unwrap();
    davit.create_topic(&shop, &"orders".parse().unwrap()).await.unwrap();
    let (orders, stock) = pair();
    let asks = gateway(&[orders.clone(), stock.clone()], Some(db.registry().clone())).await;
    asks.world.container(&orders).await;
    // The routes know a function that the registry does not: only the registry decides what is accepted.
    let target = "/v1/functions/stock/invocations?async=true";
    let refused = asks.ask(&orders, json!({ "target": target })).await;
    assert_eq!((&refused["status"], &refused["body"]["code"]), (&json!(404), &json!("not_found")));
    let hook = json!({"name": "hook", "to": {"webhook": {"url": "https://example.com/"}}});
    let hook = serde_json::from_value(hook).unwrap();
    davit.subscribe(&shop, &"orders".parse().unwrap(), &hook).await.unwrap();
    let headers = json!({"content-type": "application/json"});
    let publish =
        json!({"target": "/v1/topics/orders/messages?type=order", "headers": headers, "body": "{\"n\":1}"});
    let published = asks.ask(&orders, publish.clone()).await;
    assert_eq!((&published["status"], &published["body"]["deliveries"]), (&json!(202), &json!(1)));
    let filter = InvocationFilter { source: Some(InvocationSource::Topic), ..Default::default() };
    let delivery = db.registry().list_invocations(&shop, &filter, 10).await.unwrap().remove(0);
    let caller = delivery.caller.unwrap();
    assert_eq!((caller.to_string().as_str(), caller.version), ("shop/orders", 1));
    assert!(caller.invocation_id.is_some() && caller.trace_id.unwrap().starts_with("Root=1-"));
}
