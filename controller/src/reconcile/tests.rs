//! The loop against a real registry and an engine that is a map.

use std::path::PathBuf;
use std::time::Duration;

use davit_api::{GatewayId, InstanceState, PoolKey};
use davit_daemon::Settings;
use davit_registry::testing::TestDatabase;
use davit_registry::{Changes, InstanceRow, InstanceUpdate, MasterKey, Registry};
use uuid::Uuid;

use super::*;
use crate::acting;
use crate::backend::fake::FakeBackend;
use crate::backend::{Backend as _, BackendError, Resized};
use crate::build::BuildSettings;
use crate::pool;
use crate::world::WorldSettings;

const IMAGE: &str = "davit/runtime-provided:latest";

/// As the fake engine knows it.
fn pinned() -> String {
    format!("davit/runtime-provided@sha256:{IMAGE}")
}

struct Stage {
    database: TestDatabase,
    backend: Arc<FakeBackend>,
    gateway: GatewayId,
    tasks: Tasks,
    status: watch::Receiver<Status>,
    state: tempfile::TempDir,
}

async fn stage() -> Stage {
    stage_with(|_| {}).await
}

async fn stage_with(prepare: impl FnOnce(&FakeBackend)) -> Stage {
    let database = TestDatabase::new().await;
    let registry = database.registry().clone();
    let gateway = GatewayId::new();
    registry.register_gateway(gateway, "http://localhost").await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let backend = Arc::new(FakeBackend::warm(&[IMAGE]));
    prepare(&backend);
    let tasks = Tasks::new();
    let status = run(&registry, backend.clone(), state.path().to_owned(), &tasks).await;
    Stage { database, backend, gateway, tasks, status, state }
}

/// Starts a controller's loop.
async fn run(
    registry: &Registry,
    backend: Arc<FakeBackend>,
    state_dir: PathBuf,
    tasks: &Tasks,
) -> watch::Receiver<Status> {
    let build = BuildSettings::read(&mut Settings::from_pairs([("PATH", "")]));
    let settings = WorldSettings::for_host(state_dir, Uuid::new_v4(), build);
    let changes = Changes::listen(registry).await.unwrap();
    let key = Arc::new(MasterKey::from_bytes([7; 32]));
    let world = Arc::new(World::new(registry.clone(), changes, key, backend, settings));
    let acting = acting::spawn(registry.clone(), world.settings.holder, tasks);
    spawn(world, acting, tasks)
}

impl Stage {
    fn registry(&self) -> &Registry {
        self.database.registry()
    }

    /// Waits until the gateway's instances are as wanted, and gives them.
    async fn until(&self, what: &str, wanted: impl Fn(&[InstanceRow]) -> bool) -> Vec<InstanceRow> {
        let patience = Duration::from_secs(20);
        let waiting = async {
            loop {
                let rows = self.registry().gateway_instances(self.gateway).await.unwrap();
                if wanted(&rows) {
                    return rows;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    async fn becomes(&self, row: &InstanceRow, state: InstanceState) {
        let update =
            InstanceUpdate { id: row.id, state, version_id: None, config_digest: None, calls: 0, errors: 0 };
        self.registry().record_instances(self.gateway, &[update]).await.unwrap();
    }

    async fn end(self) {
        self.tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}

fn pooled(rows: &[InstanceRow]) -> usize {
    rows.iter().filter(|r| r.state == InstanceState::Pooled).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_filled_refilled_and_cleared_of_the_dead() {
    let stage = stage().await;
    let first = stage.until("the standing pool", |rows| pooled(rows) == 2).await;

    stage.becomes(&first[0], InstanceState::Released).await;
    let second =
        stage.until("a refill", |rows| pooled(rows) == 2 && rows.iter().all(|r| r.id != first[0].id)).await;

    let seen = stage.backend.observe().await.unwrap();
    assert!(seen.iter().all(|c| c.instance != Some(first[0].id)), "the released one has no container");
    let victim = seen.iter().find(|c| c.instance == Some(second[0].id)).unwrap();
    stage.backend.kill(&victim.container);
    stage.until("a substitute", |rows| pooled(rows) == 2 && rows.iter().all(|r| r.id != second[0].id)).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_waits_for_is_started_though_no_pool_holds_it() {
    let stage = stage().await;
    let unusual = PoolKey { memory_mb: 1_024, ..pool::standing_key(&pinned()).unwrap() };
    stage.registry().write_demand(stage.gateway, &[(unusual.clone(), 1, 0)]).await.unwrap();
    stage
        .until("the unusual one", |rows| {
            rows.iter().any(|r| r.key == unusual && r.state == InstanceState::Pooled)
        })
        .await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_refuses_leaves_no_open_rows_and_heals() {
    let mut stage = stage().await;
    stage.until("the standing pool", |rows| pooled(rows) == 2).await;
    stage.backend.refuse(Some(BackendError::Unavailable("restarting".into())));
    let rows = stage.registry().gateway_instances(stage.gateway).await.unwrap();
    stage.becomes(&rows[0], InstanceState::Released).await;
    let looks = stage.status.borrow().looks;
    stage.status.wait_for(|status| status.looks > looks && status.error.is_some()).await.unwrap();
    stage.backend.refuse(None);
    stage.until("the pool to be whole again", |rows| pooled(rows) == 2 && rows.len() == 2).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_start_fails_is_on_record_until_one_succeeds() {
    let stage = stage().await;
    stage.until("the standing pool", |rows| pooled(rows) == 2).await;
    let full = BackendError::Refused("exceeded quota: few".into());
    stage.backend.refuse_starts(Some(full.clone()));
    let unusual = PoolKey { memory_mb: 1_024, ..pool::standing_key(&pinned()).unwrap() };
    let absent = PoolKey { image: "davit/runtime-none@sha256:aa".into(), ..unusual.clone() };
    let demand = [(unusual.clone(), 1, 0), (absent.clone(), 1, 0)];
    stage.registry().write_demand(stage.gateway, &demand).await.unwrap();
    let noted = async |key: &PoolKey, wanted: Option<&str>| {
        let waiting = async {
            while stage.registry().obstacle(key).await.unwrap().as_deref() != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{wanted:?}"));
    };
    noted(&unusual, Some(&full.to_string())).await;
    noted(&absent, Some(&BackendError::NoImage(absent.image.clone()).to_string())).await;
    assert_eq!(stage.registry().obstacles().await.unwrap().len(), 2);
    stage.backend.refuse_starts(None);
    noted(&unusual, None).await;
    stage.end().await;
}

/// A stage whose engine answers wishes so, the pool's two instances, and a kind of another size.
async fn sized(outcome: Result<Resized, BackendError>) -> (Stage, Vec<InstanceRow>, PoolKey) {
    let stage = stage_with(|backend| backend.resize_with(outcome)).await;
    let first = stage.until("the standing pool", |rows| pooled(rows) == 2).await;
    assert!(first.iter().all(|row| row.resizable));
    let large = PoolKey { memory_mb: 1_024, ..first[0].key.clone() };
    (stage, first, large)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_gets_the_size_that_is_wished_for_and_its_pool_another_instance() {
    let (stage, first, large) = sized(Ok(Resized::Done)).await;
    stage.registry().wish_sizes(stage.gateway, &[(first[0].id, large.clone())]).await.unwrap();
    stage.registry().write_demand(stage.gateway, &[(large.clone(), 1, 0)]).await.unwrap();
    let done = stage
        .until("the other size", |rows| rows.iter().any(|r| r.id == first[0].id && r.wish.is_none()))
        .await;
    let row = done.iter().find(|row| row.id == first[0].id).unwrap();
    assert_eq!((&row.key, row.state, row.resizable), (&large, InstanceState::Pooled, false));
    assert_eq!(stage.backend.size(row.id).as_ref(), Some(&large));
    let rows = stage.until("the pool's next one", |rows| pooled(rows) == 3).await;
    assert_eq!(rows.iter().filter(|row| row.key == large).count(), 1, "no other was started for the call");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_stays_as_it_is_has_no_wish_any_more_and_another_is_started() {
    let (stage, first, large) = sized(Ok(Resized::Refused("no such subresource".into()))).await;
    stage.registry().wish_sizes(stage.gateway, &[(first[0].id, large.clone())]).await.unwrap();
    stage.registry().write_demand(stage.gateway, &[(large.clone(), 1, 0)]).await.unwrap();
    let rows = stage
        .until("a start", |rows| rows.iter().any(|r| r.key == large && r.state == InstanceState::Pooled))
        .await;
    let kept = rows.iter().find(|row| row.id == first[0].id).unwrap();
    assert_eq!((&kept.key, &kept.wish, kept.resizable), (&first[0].key, &None, false));
    // The next wish for it is declined without asking the engine.
    stage.backend.resize_with(Ok(Resized::Done));
    stage.registry().wish_sizes(stage.gateway, &[(first[1].id, large.clone())]).await.unwrap();
    let declined = |rows: &[InstanceRow]| rows.iter().any(|r| r.id == first[1].id && !r.resizable);
    let rows = stage.until("an answer", declined).await;
    assert_eq!(rows.iter().find(|row| row.id == first[1].id).unwrap().key, first[1].key);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_which_nobody_knows_the_size_goes() {
    let (stage, first, large) = sized(Err(BackendError::Deadline("resizing a pod"))).await;
    stage.registry().wish_sizes(stage.gateway, &[(first[0].id, large.clone())]).await.unwrap();
    let gone = |rows: &[InstanceRow]| rows.iter().all(|r| r.id != first[0].id) && pooled(rows) == 2;
    stage.until("its end, and another in its place", gone).await;
    assert_eq!(stage.backend.size(first[0].id), None);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_controller_began_is_done_by_the_next_one() {
    let (stage, first, large) = sized(Ok(Resized::Done)).await;
    stage.tasks.stop(Duration::from_secs(10)).await.unwrap();
    let registry = stage.registry();
    registry.wish_sizes(stage.gateway, &[(first[0].id, large.clone())]).await.unwrap();
    assert!(registry.begin_resize(first[0].id, &large, Uuid::new_v4()).await.unwrap());
    let tasks = Tasks::new();
    let next = run(registry, stage.backend.clone(), stage.state.path().to_owned(), &tasks).await;
    let done = |rows: &[InstanceRow]| rows.iter().any(|r| r.id == first[0].id && r.key == large);
    stage.until("its end", done).await;
    assert_eq!(stage.backend.size(first[0].id), Some(large));
    drop(next);
    tasks.stop(Duration::from_secs(10)).await.unwrap();
}
