//! Stories of sources over a real Postgres: what the snapshot learns of them, and that a delivery is one invocation.

use std::sync::Arc;

use davit_api::{ErrorCode, InvocationId, NewSource, SourceSpec, SourceView, Verification, WebhookSource};
use davit_registry::{Audited, MasterKey};

use super::{Event, Intake};
use crate::dispatch::Acceptor;
use crate::dispatch::stories::World;
use crate::routes::{Refresh, Routes, Table};

struct Follower {
    routes: Routes,
    refresh: Refresh,
}

impl Follower {
    fn of(world: &World) -> Self {
        let (routes, key) = (Routes::empty(), Arc::new(key()));
        Self { routes: routes.clone(), refresh: Refresh::new(routes, world.registry().clone(), key) }
    }
    async fn look(&mut self) -> Arc<Table> {
        self.refresh.look().await.unwrap();
        self.routes.current()
    }
}

fn key() -> MasterKey {
    MasterKey::from_bytes([7; 32])
}

fn admin(world: &World) -> Audited {
    world.registry().as_davit("test")
}

async fn made(world: &World, name: &str) -> SourceView {
    let secret = "hook".parse().unwrap();
    admin(world).set_secret(&world.namespace, &secret, "one", &key()).await.unwrap();
    let spec = SourceSpec::Webhook(WebhookSource::new(Verification::Github, Some(secret)));
    let new =
        NewSource { name: name.parse().unwrap(), function: world.function.clone(), spec, paused: false };
    admin(world).create_source(&world.namespace, &new).await.unwrap()
}

#[tokio::test]
async fn a_gateway_learns_of_sources_their_secrets_pauses_and_ends_without_a_question() {
    let world = World::new().await;
    let mut follower = Follower::of(&world);
    assert!(follower.look().await.source("shop", "orders").is_none());
    let view = made(&world, "orders").await;
    assert_eq!(view.path.as_deref(), Some("/v1/namespaces/shop/sources/orders/hook"));
    let table = follower.look().await;
    let found = table.source("shop", "orders").unwrap();
    assert_eq!((found.id, found.secret.as_deref(), found.paused), (view.id, Some("one"), false));
    assert!(table.source("other", "orders").is_none());

    admin(&world).set_secret(&world.namespace, &"hook".parse().unwrap(), "two", &key()).await.unwrap();
    assert_eq!(follower.look().await.source("shop", "orders").unwrap().secret.as_deref(), Some("two"));
    admin(&world).pause_source(&world.namespace, &view.name, true).await.unwrap();
    assert!(follower.look().await.source("shop", "orders").unwrap().paused);
    admin(&world).remove_secret(&world.namespace, &"hook".parse().unwrap()).await.unwrap();
    assert_eq!(follower.look().await.source("shop", "orders").unwrap().secret, None);
    // One that looks for the first time sees the same.
    let first = Follower::of(&world).look().await;
    assert_eq!(first.source("shop", "orders"), follower.look().await.source("shop", "orders"));

    admin(&world).remove_source(&world.namespace, &view.name).await.unwrap();
    assert!(follower.look().await.source("shop", "orders").is_none());
    made(&world, "again").await;
    admin(&world).delete_function(&world.namespace, &world.function).await.unwrap();
    assert!(follower.look().await.sources().next().is_none(), "a source goes with its function");
}

#[tokio::test]
async fn the_same_delivery_is_one_invocation_though_its_headers_differ() {
    let world = World::new().await;
    made(&world, "orders").await;
    made(&world, "refunds").await;
    let table = Follower::of(&world).look().await;
    let version = table.function_by_id(world.function_id).unwrap();
    let intake =
        Intake::new(world.registry().clone(), Acceptor::spawn(world.registry().clone(), Arc::default()));
    let deliver = async |source: &str, id: &str, payload: &str| -> InvocationId {
        let event = Event { id: id.to_owned(), payload: payload.into() };
        intake.deliver(table.source("shop", source).unwrap(), version, event).await.unwrap()
    };
    let first = deliver("orders", "a", "{\"try\":1}").await;
    assert_eq!(deliver("orders", "a", "{\"try\":1}").await, first);
    assert_eq!(deliver("orders", "a", "{\"try\":2}").await, first);
    let others = [deliver("orders", "b", "{\"try\":1}").await, deliver("refunds", "a", "{\"try\":1}").await];
    assert!(!others.contains(&first) && others[0] != others[1], "another id and another source are others");
    // At once, by several gateways: still one.
    let rush = (0..8).map(|n| deliver("orders", "c", if n % 2 == 0 { "{}" } else { "{\"try\":2}" }));
    let ids = futures_util::future::join_all(rush).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let kept = world.registry().invocation(&world.namespace, first).await.unwrap();
    assert_eq!((kept.source.as_str(), kept.function), ("event_source", Some(world.function.clone())));

    let large = Event { id: "large".into(), payload: vec![b'x'; 1024 * 1024 + 1] };
    let refused = intake.deliver(table.source("shop", "orders").unwrap(), version, large).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::TooLarge);
}
