//! Stories of a snapshot that follows a real Postgres.

use davit_api::{AliasSettings, NewToken, Role, VersionWeight};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::config::InstanceLimits;
use crate::demand::Demand;
use crate::dispatch::stories::{World, eventually};
use crate::facts::Recorder;
use crate::instances::{Bundles, RegistrySource};

fn key() -> Arc<MasterKey> {
    Arc::new(MasterKey::from_bytes([7; 32]))
}

fn refresh(world: &World) -> Refresh {
    Refresh::new(Routes::empty(), world.registry().clone(), key())
}

impl Refresh {
    fn version(&self, world: &World) -> Option<Arc<LiveVersion>> {
        self.routes.load().function_by_id(world.function_id).cloned()
    }
}

fn token() -> NewToken {
    NewToken { description: "ci".into(), role: Role::Invoke, namespace: None, expires_at: None }
}

#[tokio::test]
async fn what_did_not_change_is_neither_read_nor_replaced() {
    let world = World::new().await;
    let mut refresh = refresh(&world);
    assert_eq!(refresh.look().await.unwrap(), Looked::Whole);
    let (table, version) = (refresh.routes.current(), refresh.version(&world).unwrap());
    assert_eq!(refresh.look().await.unwrap(), Looked::Same);
    assert!(Arc::ptr_eq(&table, &refresh.routes.current()));

    let made = world.registry().as_davit("test").create_token(token()).await.unwrap();
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    assert!(Arc::ptr_eq(&version, &refresh.version(&world).unwrap()), "a token changes no version");
    assert_eq!(refresh.routes.load().tokens().len(), 1);
    world.registry().as_davit("test").revoke_token(made.view.id, None).await.unwrap();
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    assert!(refresh.routes.load().tokens().is_empty());

    // A full read that finds nothing new leaves the table in its place, too.
    let table = refresh.routes.current();
    refresh.seen = None;
    assert_eq!(refresh.look().await.unwrap(), Looked::Whole);
    assert!(Arc::ptr_eq(&table, &refresh.routes.current()));
}

#[tokio::test]
async fn a_secret_reaches_the_functions_that_name_it_and_a_deleted_function_goes() {
    let world = World::new().await;
    let mut refresh = refresh(&world);
    refresh.look().await.unwrap();
    let before = refresh.version(&world).unwrap();
    let secret = "api-key".parse().unwrap();
    let admin = world.registry().as_davit("test");
    admin.set_secret(&world.namespace, &secret, "one", &key()).await.unwrap();
    refresh.look().await.unwrap();
    assert!(Arc::ptr_eq(&before, &refresh.version(&world).unwrap()), "it names no secret");

    world.deploy(|spec| drop(spec.secrets.insert("KEY".parse().unwrap(), secret.clone()))).await;
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    let one = refresh.version(&world).unwrap();
    assert_eq!((one.number, &one.environment()["KEY"]), (2, &"one".to_owned()));
    admin.set_secret(&world.namespace, &secret, "two", &key()).await.unwrap();
    refresh.look().await.unwrap();
    let two = refresh.version(&world).unwrap();
    assert_eq!((two.number, &two.environment()["KEY"]), (2, &"two".to_owned()));
    assert_ne!(one.config, two.config);
    // A function that has it as a file only.
    world
        .deploy(|spec| {
            spec.secrets.clear();
            spec.secret_files.insert("key.txt".parse().unwrap(), secret.clone());
        })
        .await;
    refresh.look().await.unwrap();
    let before = refresh.version(&world).unwrap();
    assert_eq!(before.secret_files.as_ref(), [("key.txt".into(), "two".into())]);
    assert!(before.environment().is_empty() && before.has_secrets);
    admin.set_secret(&world.namespace, &secret, "three", &key()).await.unwrap();
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    let after = refresh.version(&world).unwrap();
    assert_eq!(after.secret_files.as_ref(), [("key.txt".into(), "three".into())]);
    assert_ne!(before.config, after.config, "other instances");
    admin.remove_secret(&world.namespace, &secret).await.unwrap();
    refresh.look().await.unwrap();
    assert_eq!(refresh.version(&world).unwrap().missing_secrets.as_ref(), ["api-key"]);

    admin.delete_function(&world.namespace, &world.function).await.unwrap();
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    assert!(refresh.version(&world).is_none());
}

#[tokio::test]
async fn aliases_and_the_versions_behind_them_follow_the_registry() {
    let world = World::new().await;
    world.deploy(|spec| spec.memory_mb = 512).await;
    let mut refresh = refresh(&world);
    refresh.look().await.unwrap();
    let admin = world.registry().as_davit("test");
    let set = async |name: &str, shares: &[(u32, u32)]| {
        let versions = shares.iter().map(|&(version, weight)| VersionWeight { version, weight }).collect();
        let settings = AliasSettings { versions, ..AliasSettings::of(1) };
        admin.set_alias(&world.namespace, &world.function, &name.parse().unwrap(), &settings).await.unwrap();
    };
    set("beta", &[(1, 100)]).await;
    set("live", &[(2, 60), (1, 40)]).await;
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    let live = refresh.version(&world).unwrap();
    let table = refresh.routes.current();
    let shares = table.aliases(world.function_id).unwrap().live.as_ref().unwrap().shares();
    assert_eq!(shares.iter().map(|s| (s.version, s.weight)).collect::<Vec<_>>(), [(1, 40), (2, 60)]);
    assert_eq!(table.alias(&live, "beta", |_| None).unwrap().number, 1);
    assert_eq!(table.all_versions().map(|v| v.number).collect::<Vec<_>>(), [2, 1]);

    // Weights alone bring no version anew, and reading everything again finds nothing new.
    let behind = table.alias(&live, "beta", |_| None).unwrap().clone();
    set("live", &[(2, 50), (1, 50)]).await;
    assert_eq!(refresh.look().await.unwrap(), Looked::Changed);
    let table = refresh.routes.current();
    assert!(Arc::ptr_eq(&behind, table.alias(&live, "beta", |_| None).unwrap()));
    refresh.seen = None;
    assert_eq!(refresh.look().await.unwrap(), Looked::Whole);
    assert!(Arc::ptr_eq(&table, &refresh.routes.current()));

    admin.rollback(&world.namespace, &world.function, Some(1)).await.unwrap();
    admin.remove_alias(&world.namespace, &world.function, &"beta".parse().unwrap()).await.unwrap();
    refresh.look().await.unwrap();
    assert!(refresh.routes.load().aliases(world.function_id).is_none());
    assert_eq!(refresh.version(&world).unwrap().number, 1);
}

#[tokio::test]
async fn a_version_that_no_alias_leads_to_is_looked_up_once_and_held() {
    let world = World::new().await;
    world.deploy(|spec| spec.memory_mb = 512).await;
    let mut refresh = refresh(&world);
    refresh.look().await.unwrap();
    let (live, pins) = (refresh.version(&world).unwrap(), refresh.pins());
    let found = pins.find(&live, 1).await.unwrap();
    assert_eq!((found.number, pins.held().len()), (1, 1));
    assert_eq!(pins.find(&live, 9).await.unwrap_err().code, davit_api::ErrorCode::NotFound);
    assert!(!pins.review(&refresh.routes.load(), true), "it has no secrets that could have changed");
    world.registry().close().await;
    assert!(Arc::ptr_eq(&pins.find(&live, 1).await.unwrap(), &found));
    assert!(Arc::ptr_eq(&pins.find(&live, 2).await.unwrap(), &live));
    assert_eq!(pins.find(&live, 3).await.unwrap_err().code, davit_api::ErrorCode::Unavailable);
    assert!(pins.review(&Table::default(), false) && pins.held().is_empty(), "its function is gone");
}

/// Without the timer: it is the hint that brings a change to every gateway at once.
#[tokio::test]
async fn every_gateway_follows_the_hint_alone() {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let mut gateways = Vec::new();
    for n in 0..2 {
        let mut refresh = refresh(&world);
        refresh.check = Duration::from_secs(3_600);
        let routes = refresh.routes.clone();
        let source = Box::new(RegistrySource(world.registry().clone()));
        let bundles = Bundles::new(dir.path().join(n.to_string()), source).unwrap();
        let instances = Instances::new(
            InstanceLimits::default(),
            bundles,
            Recorder::channel().0,
            Arc::default(),
            Demand::default(),
            stop.clone(),
        );
        let changes = Changes::listen(world.registry()).await.unwrap();
        let (ready, read) = tokio::sync::oneshot::channel();
        let ready = move || ready.send(()).unwrap();
        let task = tokio::spawn(run(refresh, changes, instances, ready, stop.clone()));
        gateways.push((routes, AbortOnDropHandle::new(task)));
        read.await.unwrap();
    }
    let number = async |routes: &Routes| routes.load().function_by_id(world.function_id).map(|v| v.number);
    world.deploy(|spec| spec.access = davit_api::Access::Public).await;
    for (routes, _) in &gateways {
        eventually(async || number(routes).await.filter(|n| *n == 2)).await;
    }
    world.registry().as_davit("test").rollback(&world.namespace, &world.function, None).await.unwrap();
    for (routes, _) in &gateways {
        eventually(async || number(routes).await.filter(|n| *n == 1)).await;
    }
    stop.cancel();
    for (_, task) in gateways {
        task.await.unwrap();
    }
}
