//! Sources whose events are fetched: one gateway at a time, and nothing that it delivers is accepted twice.

use davit_api::{
    ErrorCode, FunctionId, GatewayId, InvocationSource, NewSource, PostgresSource, RetryPolicy, SourceId,
    SourceSpec, SourceState, SourceView,
};
use davit_registry::testing::TestDatabase;
use davit_registry::{Holding, MasterKey, NewInvocation, Registry, SourceBatch};
use sqlx::{Connection, PgConnection};

use crate::support::{code, deployed, fresh, function_id, name, ns, spec};

struct World {
    db: TestDatabase,
    function: FunctionId,
}

impl World {
    async fn new() -> Self {
        let db = fresh().await;
        deployed(db.registry(), "ship", &spec(), b"ship").await;
        let key = MasterKey::from_bytes([7; 32]);
        let davit = db.registry().as_davit("test");
        davit.set_secret(&ns(), &"orders-db".parse().unwrap(), "postgres://", &key).await.unwrap();
        let function = function_id(db.registry(), "ship").await;
        Self { db, function }
    }

    fn registry(&self) -> &Registry {
        self.db.registry()
    }

    async fn source(&self, called: &str) -> SourceView {
        let spec = PostgresSource::new("orders-db".parse().unwrap(), "orders".parse().unwrap());
        let spec = SourceSpec::Postgres(spec);
        let new = NewSource { name: called.parse().unwrap(), function: name("ship"), spec, paused: false };
        self.registry().as_davit("test").create_source(&ns(), &new).await.unwrap()
    }

    async fn gateway(&self) -> GatewayId {
        let id = GatewayId::new();
        self.registry().register_gateway(id, "http://g").await.unwrap();
        id
    }

    /// As if it had not been heard of for a minute.
    async fn silence(&self, gateway: GatewayId) {
        let mut raw = PgConnection::connect(self.db.url()).await.unwrap();
        let silent = sqlx::query("update gateways set seen_at = seen_at - interval '1 minute' where id = $1");
        silent.bind(gateway.0).execute(&mut raw).await.unwrap();
    }

    async fn begin(&self, source: SourceId, gateway: GatewayId) -> Option<(Holding, Vec<String>)> {
        self.registry().begin_source(source, gateway).await.unwrap()
    }

    async fn deliver(&self, holding: Holding, positions: &[&str]) -> bool {
        self.registry().deliver_source(holding, self.batch(positions)).await.unwrap()
    }

    fn batch(&self, positions: &[&str]) -> SourceBatch {
        let invocation = |position: &&str| NewInvocation {
            ordering_key: Some("k".into()),
            ..NewInvocation::new(
                ns(),
                self.function,
                InvocationSource::EventSource,
                position.as_bytes().to_vec(),
                RetryPolicy::default(),
            )
        };
        SourceBatch {
            invocations: positions.iter().map(invocation).collect(),
            positions: positions.iter().map(|p| (*p).to_owned()).collect(),
            lag_seconds: 1.5,
        }
    }

    async fn accepted(&self) -> Vec<String> {
        self.db.payloads().await
    }

    async fn state(&self, called: &str) -> davit_api::SourceStatus {
        self.registry().source(&ns(), &called.parse().unwrap()).await.unwrap().status.unwrap()
    }
}

#[tokio::test]
async fn one_gateway_holds_a_source_until_it_is_not_heard_of_any_more() {
    let world = World::new().await;
    let (a, b) = (world.gateway().await, world.gateway().await);
    let ids = [world.source("one").await.id, world.source("two").await.id, world.source("three").await.id];
    assert_eq!(world.state("one").await.state, SourceState::Unheld);
    let hold = async |gateway, most| {
        let mut held = world.registry().hold_sources(gateway, &ids, most).await.unwrap();
        held.sort();
        held
    };
    assert_eq!(hold(a, 2).await, ids[..2]);
    assert_eq!(hold(b, 2).await, ids[2..], "only what nobody holds");
    assert_eq!(hold(a, 2).await, ids[..2], "and it keeps what it has");
    assert_eq!(
        (world.state("one").await.gateway, world.state("one").await.state),
        (Some(a), SourceState::Active)
    );
    let (old, _) = world.begin(ids[0], a).await.unwrap();
    world.silence(a).await;
    assert_eq!(hold(b, 10).await, ids);
    assert_eq!(hold(a, 10).await, [], "who comes back has lost them");
    assert!(world.begin(ids[0], a).await.is_none());
    assert!(!world.deliver(old, &["1"]).await, "and can deliver nothing");
    // A gateway that ends in an orderly way is not waited for.
    world.registry().drop_gateway(b).await.unwrap();
    world.registry().register_gateway(a, "http://a").await.unwrap();
    assert_eq!(hold(a, 10).await, ids);
    assert_eq!(world.accepted().await, [""; 0]);
}

#[tokio::test]
async fn many_gateways_that_look_at_once_share_and_never_both_have_one() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(world.source(&format!("s-{n}")).await.id);
    }
    let gateways = [world.gateway().await, world.gateway().await, world.gateway().await];
    for _ in 0..6 {
        let looks = gateways.map(|gateway| world.registry().hold_sources(gateway, &ids, 1));
        futures_util::future::try_join_all(looks).await.unwrap();
    }
    let held = gateways.map(|gateway| world.registry().hold_sources(gateway, &ids, 0));
    let mut held = futures_util::future::try_join_all(held).await.unwrap().concat();
    held.sort();
    ids.sort();
    assert_eq!(held, ids);
}

#[tokio::test]
async fn what_is_delivered_is_noted_with_it_and_only_by_whoever_began_last() {
    let world = World::new().await;
    let (gateway, source) = (world.gateway().await, world.source("orders").await.id);
    world.registry().hold_sources(gateway, &[source], 9).await.unwrap();
    let (first, pending) = world.begin(source, gateway).await.unwrap();
    assert_eq!(pending, [""; 0]);
    assert!(world.deliver(first, &["1", "2"]).await);
    let (second, pending) = world.begin(source, gateway).await.unwrap();
    assert_eq!(pending, ["1", "2"]);
    assert!(!world.deliver(first, &["3"]).await);
    assert!(world.deliver(second, &["3"]).await);
    assert_eq!(world.accepted().await, ["1", "2", "3"]);
    let status = world.state("orders").await;
    assert_eq!((status.delivered, status.lag_seconds), (3, Some(1.5)));
    assert!(status.last_event_at.is_some() && status.last_error.is_none());

    // All or none, the note included.
    let mut batch = world.batch(&["4", "5"]);
    batch.invocations[1].payload = vec![b'x'; (1 << 20) + 1];
    let refused = world.registry().deliver_source(second, batch).await;
    assert_eq!(code(refused), ErrorCode::TooLarge);
    let (third, pending) = world.begin(source, gateway).await.unwrap();
    assert_eq!((pending, world.accepted().await.len()), (vec!["3".to_owned()], 3));

    world.registry().report_source(third, SourceState::Failing, None, Some("no\0way")).await.unwrap();
    let status = world.state("orders").await;
    assert_eq!((status.state, status.last_error.as_deref()), (SourceState::Failing, Some("no way")));
    world.registry().report_source(third, SourceState::Active, Some(0.0), None).await.unwrap();
    let status = world.state("orders").await;
    assert_eq!((status.state, status.lag_seconds), (SourceState::Active, Some(0.0)));
    assert_eq!(status.last_error.as_deref(), Some("no way"), "the last error stays to be seen");
    assert_eq!(world.registry().open_invocations(world.function, 2).await.unwrap(), 2);
    assert_eq!(world.registry().open_invocations(world.function, 9).await.unwrap(), 3);
}

#[tokio::test]
async fn whoever_begins_waits_for_a_delivery_that_is_under_way() {
    let world = World::new().await;
    let (gateway, source) = (world.gateway().await, world.source("orders").await.id);
    world.registry().hold_sources(gateway, &[source], 9).await.unwrap();
    let (mut holding, mut seen) = world.begin(source, gateway).await.unwrap();
    let mut expected = Vec::new();
    for n in 0..30 {
        // Given up at once, as a gateway does whose patience ends; it goes on all the same, or never starts.
        let position = n.to_string();
        let late = world.registry().deliver_source(holding, world.batch(&[&position]));
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 40), late).await;
        let (next, pending) = world.begin(source, gateway).await.unwrap();
        if pending != seen {
            assert_eq!(pending, std::slice::from_ref(&position));
            expected.push(position);
        }
        (holding, seen) = (next, pending);
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(world.accepted().await, expected, "what was not there when the next one began never comes");
}

#[tokio::test]
async fn a_pause_ends_a_holding_at_once_and_a_function_stays_while_something_is_fetched_for_it() {
    let world = World::new().await;
    let (gateway, source) = (world.gateway().await, world.source("orders").await);
    let davit = world.registry().as_davit("test");
    world.registry().hold_sources(gateway, &[source.id], 9).await.unwrap();
    let (holding, _) = world.begin(source.id, gateway).await.unwrap();
    let paused = davit.pause_source(&ns(), &source.name, true).await.unwrap();
    assert_eq!(paused.status.map(|s| s.state), Some(SourceState::Paused));
    assert!(!world.deliver(holding, &["1"]).await);
    assert_eq!(world.registry().hold_sources(gateway, &[source.id], 9).await.unwrap(), []);
    davit.pause_source(&ns(), &source.name, false).await.unwrap();
    assert_eq!(world.registry().hold_sources(gateway, &[source.id], 9).await.unwrap(), [source.id]);

    let refused = davit.delete_function(&ns(), &name("ship")).await.unwrap_err().into_api();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("davit source delete orders"), "{}", refused.message);
    davit.remove_source(&ns(), &source.name).await.unwrap();
    assert!(world.begin(source.id, gateway).await.is_none());
    davit.delete_function(&ns(), &name("ship")).await.unwrap();
}
