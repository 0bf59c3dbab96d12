//! The loops that make the world match the registry: reconcile, builds, collection, and the lease that says
//! who runs them. `davit up` and `davit controller` call [`spawn_loops`] once.

use std::collections::HashSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;

use davit_api::InstanceId;
use davit_daemon::Tasks;
use davit_registry::{Changes, MasterKey, Registry};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::backend::Backend;
use crate::build::BuildSettings;
use crate::pool::PoolLimits;
use crate::reconcile::Bounds;
use crate::{acting, build, canary, gc, reconcile};

/// Days that audit entries are kept, unless the operator says otherwise: a year, and a month to look back on it.
pub const AUDIT_DAYS: u32 = 400;

/// Days that ended invocations are kept, dead letters among them, unless the operator says otherwise.
pub const INVOCATION_DAYS: NonZeroU32 = NonZeroU32::new(7).unwrap();
/// Days that a schedule's instants are on record, unless the operator says otherwise.
pub const FIRE_DAYS: u32 = 30;
/// The same for messages of topics.
pub const MESSAGE_DAYS: NonZeroU32 = NonZeroU32::new(7).unwrap();

/// Settings of the loops.
#[derive(Debug, Clone)]
pub struct WorldSettings {
    /// davit's state directory, absolute.
    pub state_dir: PathBuf,
    /// Who holds the lease; see [`acting::holder`].
    pub holder: Uuid,
    /// Bounds of the pools.
    pub pool: PoolLimits,
    /// Bounds of all instances.
    pub bounds: Bounds,
    /// Days that audit entries are kept; `None` keeps them for ever.
    pub audit_days: Option<NonZeroU32>,
    /// Days that ended invocations are kept.
    pub invocation_days: NonZeroU32,
    /// Days that a schedule's instants are on record. The last one is for ever.
    pub fire_days: u32,
    /// Days that messages of topics are kept.
    pub message_days: NonZeroU32,
    /// How builds run.
    pub build: BuildSettings,
}

impl WorldSettings {
    /// Settings for this host: three quarters of its memory for instances, of which a third may wait in pools,
    /// and a start at a time for each core.
    pub fn for_host(state_dir: PathBuf, holder: Uuid, build: BuildSettings) -> Self {
        let memory_mb = host_memory_mb() * 3 / 4;
        Self {
            state_dir,
            holder,
            pool: PoolLimits { base: 2, per_key: 8, memory_mb: memory_mb / 3 },
            bounds: Bounds { memory_mb, instances: 200, starts: host_starts(), removals: 4 },
            audit_days: NonZeroU32::new(AUDIT_DAYS),
            invocation_days: INVOCATION_DAYS,
            fire_days: FIRE_DAYS,
            message_days: MESSAGE_DAYS,
            build,
        }
    }
}

/// A start keeps a core busy until its runtime is warm. At least two, since part of it is waiting for the engine;
/// at most sixteen, since the engine does much of its work under locks of its own.
fn host_starts() -> usize {
    std::thread::available_parallelism().map_or(2, NonZeroUsize::get).clamp(2, 16)
}

fn host_memory_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(2 * 1024 * 1024) / 1024
}

/// What the loops work with.
pub struct World {
    /// The registry.
    pub registry: Registry,
    /// Its news.
    pub changes: Changes,
    /// Opens the secrets that a first start needs.
    pub master_key: Arc<MasterKey>,
    /// The container engine.
    pub backend: Arc<dyn Backend>,
    /// Settings.
    pub settings: WorldSettings,
    /// Instances whose start runs in this process.
    pub(crate) starting: Busy,
    /// Builders and smoke starts of this process.
    pub(crate) errands: Busy,
    /// Containers that wait for the next deploy.
    pub(crate) spares: Arc<build::Spares>,
    /// What images say about their builds.
    pub(crate) recipes: build::Recipes,
}

impl World {
    /// Puts the parts together.
    pub fn new(
        registry: Registry,
        changes: Changes,
        master_key: Arc<MasterKey>,
        backend: Arc<dyn Backend>,
        settings: WorldSettings,
    ) -> Self {
        Self {
            registry,
            changes,
            master_key,
            backend,
            settings,
            starting: Busy::default(),
            errands: Busy::default(),
            spares: Arc::default(),
            recipes: build::Recipes::default(),
        }
    }
}

/// Ids that somebody in this process is busy with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<HashSet<InstanceId>>>);

impl Busy {
    /// Adds one until the guard is dropped.
    pub(crate) fn enter(&self, id: InstanceId) -> BusyGuard {
        self.0.lock().insert(id);
        BusyGuard { busy: self.clone(), id }
    }
    /// Those at this moment.
    pub(crate) fn now(&self) -> HashSet<InstanceId> {
        self.0.lock().clone()
    }
}

/// Takes its id out again when dropped.
pub(crate) struct BusyGuard {
    busy: Busy,
    id: InstanceId,
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.busy.0.lock().remove(&self.id);
    }
}

/// The loops that run.
pub struct Loops {
    /// What the reconcile loop saw and did last, for the admin routes.
    pub status: watch::Receiver<reconcile::Status>,
    spares: Arc<build::Spares>,
}

impl Loops {
    /// A look at how many containers are kept for the next deploy, for the admin routes.
    pub fn spares(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let spares = self.spares.clone();
        move || spares.waiting()
    }
    /// Removes the containers that are kept for the next deploy, and keeps none any more.
    pub fn close_spares(&self) {
        self.spares.close();
    }
}

/// Starts every loop of the controller except its HTTP server.
pub fn spawn_loops(world: World, tasks: &Tasks) -> Loops {
    let world = Arc::new(world);
    let acting = acting::spawn(world.registry.clone(), world.settings.holder, tasks);
    let status = reconcile::spawn(world.clone(), acting.clone(), tasks);
    build::spawn(world.clone(), acting.clone(), tasks);
    build::spawn_spares(world.clone(), acting.clone(), status.clone(), tasks);
    let spares = world.spares.clone();
    canary::spawn(world.clone(), acting.clone(), tasks);
    gc::spawn(world, acting, tasks);
    Loops { status, spares }
}
