//! The loop against a real registry and an engine that is a map.

use std::time::Duration;

use davit_api::{GatewayId, InstanceState, PoolKey};
use davit_daemon::Settings;
use davit_registry::testing::TestDatabase;
use davit_registry::{Changes, InstanceRow, InstanceUpdate, MasterKey, Registry};
use uuid::Uuid;

use super::*;
use crate::acting;
use crate::backend::fake::FakeBackend;
use crate::backend::{Backend as _, BackendError};
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
    _state: tempfile::TempDir,
}

async fn stage() -> Stage {
    let database = TestDatabase::new().await;
    let registry = database.registry().clone();
    let gateway = GatewayId::new();
    registry.register_gateway(gateway, "http://localhost").await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let build = BuildSettings::read(&mut Settings::from_pairs([("PATH", "")]));
    let settings = WorldSettings::for_host(state.path().to_owned(), Uuid::new_v4(), build);
    let backend = Arc::new(FakeBackend::warm(&[IMAGE]));
    let changes = Changes::listen(&registry).await.unwrap();
    let key = Arc::new(MasterKey::from_bytes([7; 32]));
    let tasks = Tasks::new();
    let world = Arc::new(World::new(registry.clone(), changes, key, backend.clone(), settings));
    let acting = acting::spawn(registry, world.settings.holder, &tasks);
    let status = spawn(world, acting, &tasks);
    Stage { database, backend, gateway, tasks, status, _state: state }
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
