//! The parts that roles are made of, each built from its own settings: Postgres, registry, control plane,
//! data plane.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use davit_controller::acting::Holder;
use davit_controller::build::BuildSettings;
use davit_controller::http::{Admin, ApiSettings, ApiState, management_router};
use davit_controller::world::{
    AUDIT_DAYS, FIRE_DAYS, INVOCATION_DAYS, Loops, MESSAGE_DAYS, World, WorldSettings, spawn_loops,
};
use davit_daemon::{Allowed, Drain, Limits, Settings, Tasks, listener};
use davit_gateway::config::{HttpLimits, PeersPort};
use davit_gateway::http::TlsFiles;
use davit_gateway::{Config as GatewayConfig, Deps, Gateway};
use davit_registry::{Changes, ConnectSettings, ContentStore, MasterKey, Registry, hash_token};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, Which};
use super::migrate::connect;
use super::process::Process;
use super::state::State;
use crate::failure::{Failure, Result};

/// The registry and what every part needs with it.
pub(super) struct Store {
    pub(super) registry: Registry,
    pub(super) changes: Changes,
    pub(super) key: Arc<MasterKey>,
}

/// Settings of the parts that come from the environment alone, read together so that all bad ones are named.
pub(super) struct PartSettings {
    pool_base: Option<u32>,
    memory_mb: Option<u64>,
    connections: u32,
    artifacts: Option<ContentStore>,
    audit_days: u32,
    invocation_days: NonZeroU32,
    message_days: NonZeroU32,
    outbound: Allowed,
    fire_days: u32,
    least_interval: Duration,
    key_file: Option<std::path::PathBuf>,
    gateway_threads: Option<usize>,
    write_timeout: Duration,
    tls: Option<TlsFiles>,
    pub(super) share_code: bool,
    /// Time from the first signal until everything must be over.
    pub(super) drain: Duration,
    /// Holds a token that an administrator is to have.
    pub(super) admin_token: Option<std::path::PathBuf>,
    /// Hash of what shows that somebody on another machine may read metrics and status.
    metrics_token: Option<[u8; 32]>,
    build: BuildSettings,
}

impl PartSettings {
    /// Reads them.
    pub(super) fn read() -> Result<Self> {
        let mut settings = Settings::from_env();
        let read = Self {
            pool_base: settings.optional("DAVIT_POOL_BASE"),
            memory_mb: settings.optional("DAVIT_MEMORY_MB"),
            connections: settings.or("DAVIT_DB_CONNECTIONS", 20),
            artifacts: settings.optional("DAVIT_ARTIFACTS_URL"),
            audit_days: settings.or("DAVIT_AUDIT_DAYS", AUDIT_DAYS),
            invocation_days: settings.or("DAVIT_INVOCATION_DAYS", INVOCATION_DAYS),
            message_days: settings.or("DAVIT_MESSAGE_DAYS", MESSAGE_DAYS),
            outbound: settings.or("DAVIT_OUTBOUND_ALLOW", Allowed::default()),
            fire_days: settings.or("DAVIT_FIRE_DAYS", FIRE_DAYS),
            least_interval: settings.duration("DAVIT_SCHEDULE_MIN_INTERVAL", Duration::from_secs(60)),
            key_file: settings.optional("DAVIT_MASTER_KEY_FILE"),
            gateway_threads: settings.optional("DAVIT_GATEWAY_THREADS"),
            write_timeout: settings.duration("DAVIT_WRITE_TIMEOUT", HttpLimits::default().write_timeout),
            share_code: settings.or("DAVIT_SHARE_CODE", true),
            drain: settings.duration("DAVIT_DRAIN", Duration::from_secs(30)),
            admin_token: settings.optional("DAVIT_ADMIN_TOKEN_FILE"),
            metrics_token: metrics_token(&mut settings),
            tls: tls(&mut settings),
            build: BuildSettings::read(&mut settings),
        };
        if !(2..=1_000).contains(&read.connections) {
            settings.problem("DAVIT_DB_CONNECTIONS", "must be 2 to 1000".into());
        }
        if read.gateway_threads.is_some_and(|n| !(1..=256).contains(&n)) {
            settings.problem("DAVIT_GATEWAY_THREADS", "must be 1 to 256".into());
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&read.write_timeout) {
            settings.problem("DAVIT_WRITE_TIMEOUT", "must be 1s to 1h".into());
        }
        if !(Duration::from_secs(15)..=Duration::from_secs(3_600)).contains(&read.drain) {
            settings.problem("DAVIT_DRAIN", "must be 15s to 1h".into());
        }
        if read.audit_days > 36_500 {
            settings.problem("DAVIT_AUDIT_DAYS", "must be 0 to 36500".into());
        }
        if read.invocation_days.get() > 3_650 {
            settings.problem("DAVIT_INVOCATION_DAYS", "must be 1 to 3650".into());
        }
        if !(1..=3_650).contains(&read.fire_days) {
            settings.problem("DAVIT_FIRE_DAYS", "must be 1 to 3650".into());
        }
        let day = Duration::from_secs(24 * 3600);
        if !(Duration::from_secs(60)..=day).contains(&read.least_interval) {
            settings.problem("DAVIT_SCHEDULE_MIN_INTERVAL", "must be 1m to 24h".into());
        }
        if read.message_days.get() > 3_650 {
            settings.problem("DAVIT_MESSAGE_DAYS", "must be 1 to 3650".into());
        }
        settings.finish().map_err(|e| Failure::Usage(e.to_string()))?;
        Ok(read)
    }

    /// What the admin listener shows, to those who may see it.
    pub(super) fn admin(&self, process: &Process) -> Admin {
        Admin::new(process.readiness.clone()).readers(self.metrics_token)
    }
}

/// What a role on a shared Postgres begins with.
pub(super) struct Opened<A> {
    pub(super) settings: PartSettings,
    pub(super) process: Process,
    pub(super) state: State,
    pub(super) store: Store,
    /// The addresses that were bound.
    pub(super) addresses: A,
}

/// Opens such a role. Settings, state directory and addresses first: what is wrong with them should not be said
/// only when the registry has answered.
pub(super) async fn open<A>(
    state: impl FnOnce() -> Result<State>,
    database_url: &str,
    addresses: impl Future<Output = Result<A>>,
) -> Result<Opened<A>> {
    let settings = PartSettings::read()?;
    let mut process = Process::new()?;
    let state = state()?;
    let addresses = addresses.await?;
    let store = process.start(store(database_url, state.dir(), &settings)).await?;
    Ok(Opened { settings, process, state, store, addresses })
}

/// A token that is given by its file; a short one could be guessed.
fn metrics_token(settings: &mut Settings) -> Option<[u8; 32]> {
    let name = "DAVIT_METRICS_TOKEN_FILE";
    let path: std::path::PathBuf = settings.optional(name)?;
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= 16 => return Some(hash_token(text.trim())),
        Ok(_) => settings.problem(name, format!("{} has to hold 16 characters or more", path.display())),
        Err(error) => settings.problem(name, format!("{}: {error}", path.display())),
    }
    None
}

/// A certificate and its key; one without the other is a mistake.
fn tls(settings: &mut Settings) -> Option<TlsFiles> {
    let certificate = settings.optional("DAVIT_TLS_CERT");
    let key = settings.optional("DAVIT_TLS_KEY");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        (Some(_), None) => {
            settings.problem("DAVIT_TLS_KEY", "is needed with DAVIT_TLS_CERT".into());
            None
        }
        (None, Some(_)) => {
            settings.problem("DAVIT_TLS_CERT", "is needed with DAVIT_TLS_KEY".into());
            None
        }
    }
}

/// Connects to the registry, waiting a while for one that is only just starting, and brings it up to date.
pub(super) async fn store(url: &str, state_dir: &Path, settings: &PartSettings) -> Result<Store> {
    let connect_settings =
        ConnectSettings { max_connections: settings.connections, ..ConnectSettings::new(url) };
    let registry = connect(&connect_settings, Duration::from_secs(30)).await?;
    let failed = |e| Failure::while_doing("registry", e);
    let registry = match settings.artifacts.clone() {
        None => registry,
        Some(content) => {
            content.probe().await.map_err(|e| Failure::while_doing("DAVIT_ARTIFACTS_URL", e))?;
            registry.with_content_in(content)
        }
    };
    registry.migrate().await.map_err(failed)?;
    let default = "default".parse().map_err(|e| Failure::Failed(format!("{e}")))?;
    if !registry.list_namespaces().await.map_err(failed)?.contains(&default) {
        registry.as_davit("namespaces.create").ensure_namespace(&default).await.map_err(failed)?;
    }
    let changes = Changes::listen(&registry).await.map_err(failed)?;
    let path = settings.key_file.clone().unwrap_or_else(|| state_dir.join("master.key"));
    let key = MasterKey::load_or_create(&path).map_err(|e| Failure::while_doing(path.display(), e))?;
    Ok(Store { registry, changes, key: Arc::new(key) })
}

/// The control plane at work.
pub(super) struct ControlPlane {
    engine: Engine,
    loops: Loops,
    api: JoinHandle<usize>,
    stop_api: CancellationToken,
    /// Others may have this id only when this process is done.
    _holder: Holder,
}

/// Starts the management API and the loops that make containers match the registry.
pub(super) async fn control_plane(
    listener: TcpListener,
    gateway_url: String,
    state_dir: &Path,
    store: &Store,
    settings: &PartSettings,
    which: &Which,
    tasks: &Tasks,
) -> Result<ControlPlane> {
    let registry = store.registry.clone();
    let engine = Engine::connect(which, state_dir, store, settings.share_code).await?;
    let holder = davit_controller::acting::holder(state_dir)
        .map_err(|e| Failure::while_doing(state_dir.display(), e))?;
    let mut world_settings = WorldSettings::for_host(state_dir.to_owned(), holder.id, settings.build.clone());
    engine.bound(&mut world_settings);
    if let Some(memory_mb) = settings.memory_mb {
        world_settings.bounds.memory_mb = memory_mb;
        world_settings.pool.memory_mb = memory_mb / 3;
    }
    world_settings.invocation_days = settings.invocation_days;
    world_settings.message_days = settings.message_days;
    world_settings.audit_days = NonZeroU32::new(settings.audit_days);
    world_settings.fire_days = settings.fire_days;
    if let Some(base) = settings.pool_base {
        world_settings.pool.base = base;
    }
    let world = World::new(
        registry.clone(),
        store.changes.clone(),
        store.key.clone(),
        engine.backend(),
        world_settings,
    );
    let loops = spawn_loops(world, tasks);
    let stop_api = CancellationToken::new();
    let mut api_settings = ApiSettings::new(gateway_url);
    api_settings.outbound = settings.outbound.clone();
    if let Ok(least_interval) = TimeDelta::from_std(settings.least_interval) {
        api_settings.schedules = davit_cron::Limits { least_interval };
    }
    let state =
        ApiState::new(registry, store.changes.clone(), store.key.clone(), api_settings, stop_api.clone());
    let limits = Limits { max_connections: 1_024, drain: Duration::from_secs(10), ..Limits::default() };
    let api = tokio::spawn(listener::serve(listener, management_router(state), limits, stop_api.clone()));
    Ok(ControlPlane { engine, loops, api, stop_api, _holder: holder })
}

impl ControlPlane {
    /// Adds what the admin listener shows of it.
    pub(super) fn show(&self, admin: Admin) -> Admin {
        let status = self.loops.status.clone();
        let spares = self.loops.spares();
        admin
            .status("reconcile", move || serde_json::to_value(&*status.borrow()).unwrap_or_default())
            .status("build", move || serde_json::json!({ "spares": spares() }))
    }

    /// No new requests to the API; those under way end.
    pub(super) async fn close(&mut self) {
        self.stop_api.cancel();
        let _ = (&mut self.api).await;
    }

    /// Waits until the loops have removed every container that nobody wants any more.
    pub(super) async fn until_empty(&mut self) {
        self.loops.close_spares();
        let _ = self.loops.status.wait_for(|status| status.containers == 0).await;
    }

    /// Removes whatever is left in the engine.
    pub(super) async fn uninstall(&self) {
        if let Err(error) = self.engine.uninstall().await {
            tracing::warn!(%error, "the container engine still holds something of this davit; the next start removes it");
        }
    }
}

/// Binds a gateway.
pub(super) async fn data_plane(
    listen: SocketAddr,
    public_url: Option<String>,
    peers: Option<PeersPort>,
    state: &State,
    store: &Store,
    settings: &PartSettings,
) -> Result<Gateway> {
    let mut config = GatewayConfig::new(listen, state.dir());
    config.tls = settings.tls.clone();
    if config.tls.is_some() {
        config.public_url = format!("https://{listen}");
    }
    config.threads = settings.gateway_threads.unwrap_or(config.threads);
    config.outbound = settings.outbound.clone();
    config.http.write_timeout = settings.write_timeout;
    config.share_code = settings.share_code;
    config.peers = peers;
    if let Some(url) = public_url {
        config.public_url = url;
    }
    let deps =
        Deps { registry: store.registry.clone(), changes: store.changes.clone(), key: store.key.clone() };
    Gateway::bind(config, deps).await.map_err(|e| Failure::Failed(e.to_string()))
}

/// Adds what the admin listener shows of a gateway.
pub(super) fn show_gateway(admin: Admin, gateway: davit_gateway::Admin) -> Admin {
    let metrics = gateway.clone();
    admin
        .metrics(move || metrics.metrics())
        .status("gateway", move || serde_json::to_value(gateway.status()).unwrap_or_default())
}

/// Stops the background tasks and names those that do not.
pub(super) async fn stop_tasks(drain: &mut Drain, tasks: &Tasks) {
    let limit = drain.left().min(Duration::from_secs(10));
    if let Some(Err(stuck)) = drain.step("background tasks", tasks.stop(limit)).await {
        tracing::warn!(?stuck, "tasks did not end");
    }
}
