//! The only crate with SQL: everything that davit remembers, in Postgres, with its rules as constraints.
//!
//! A [`Registry`] is a cheap clone around a connection pool; each file below holds one table's queries, named
//! by intent. Every transaction runs in a task of its own (`Registry::transact`): a caller that hangs up
//! can neither leave a connection inside a transaction nor stop half-way through one. Times of leases are the
//! database's (`clock_timestamp()`), and are compared in SQL, never here.

mod aliases;
mod artifacts;
mod audit;
mod builds;
mod canaries;
mod changes;
mod days;
mod demand;
pub mod embedded;
mod environment;
mod error;
mod fires;
mod functions;
mod gateways;
mod instances;
mod lease;
mod logs;
mod namespaces;
mod obstacles;
mod poke;
mod projects;
mod queue;
mod retention;
mod routing;
mod rows;
mod runtimes;
mod schedules;
mod secrets;
mod sources;
#[cfg(feature = "testing")]
pub mod testing;
mod tokens;
mod topics;
mod usage;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use davit_api::InstallationId;
use futures_util::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

pub use artifacts::{ArtifactReader, ContentStore, GcReport};
pub use audit::{Act, Audited};
pub use builds::BuildJob;
pub use canaries::{CanaryCounts, CanaryDelta, RunningCanary};
pub use changes::{Changes, Topic};
pub use days::Retention;
pub use demand::DemandRow;
pub use environment::Environment;
pub use error::RegistryError;
pub use fires::{Due, Fire, Passed, Rung};
pub use functions::FunctionFilter;
pub use gateways::{GatewayPeer, GatewayRow, GatewayWord, LEASE as GATEWAY_LEASE};
pub use instances::{InstanceRow, InstanceUpdate, Ready, Wish};
pub use lease::Fence;
pub use logs::{LogFilter, LogRow};
pub use queue::{
    ClaimFrom, ClaimedTarget, InvocationFilter, JOB_LEASE, Job, JobTarget, NewInvocation, Settled,
    Settlement, Start,
};
pub use retention::DEFAULT_KEEP;
pub use routing::{
    AsRead, Keep, RoutedAlias, RoutedFunction, RoutingChanges, RoutingNews, RoutingPosition, RoutingSnapshot,
    TokenHash,
};
pub use schedules::{ScheduleRow, SchedulesDue};
pub use secrets::{MasterKey, SecretRow};
pub use sources::{Holding, SourceBatch, SourceRow};
pub use tokens::{FoundToken, hash_token};
pub use topics::NewMessage;
pub use usage::UsageDelta;

/// The result of everything here.
pub type Result<T, E = RegistryError> = std::result::Result<T, E>;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct ConnectSettings {
    /// `postgres://…`; a `host` parameter that is a path means a Unix socket.
    pub url: String,
    /// Connections of the pool.
    pub max_connections: u32,
    /// How long a caller waits for a free one before it gets `unavailable`.
    pub acquire_timeout: Duration,
}

impl ConnectSettings {
    /// Ten connections, and two seconds of patience: long enough for a hiccup, short enough for a request.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), max_connections: 10, acquire_timeout: Duration::from_secs(2) }
    }
}

/// The registry. Clones share one pool.
#[derive(Clone)]
pub struct Registry {
    pool: PgPool,
    poker: Arc<poke::Poker>,
    /// Where new content of artifacts goes; none: Postgres.
    store: Option<ContentStore>,
}

impl Registry {
    /// Connects; fails when Postgres does not answer.
    pub async fn connect(settings: &ConnectSettings) -> Result<Self> {
        let options: PgConnectOptions = settings
            .url
            .parse::<PgConnectOptions>()
            .map_err(RegistryError::from)?
            .application_name("davit")
            // A second fence behind `transact`: whatever forgets a transaction loses it.
            .options([
                ("idle_in_transaction_session_timeout", "30s"),
                ("lock_timeout", "10s"),
                ("statement_timeout", "60s"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(settings.acquire_timeout)
            .max_lifetime(Duration::from_secs(30 * 60))
            .connect_with(options)
            .await?;
        let poker = Arc::new(poke::Poker::start(pool.clone()));
        Ok(Self { pool, poker, store: None })
    }

    /// The same registry, with the content of artifacts in an object store.
    pub fn with_content_in(self, store: ContentStore) -> Self {
        Self { store: Some(store), ..self }
    }

    /// Brings the schema up to date. Several processes may do so at once: one works, the others wait.
    pub async fn migrate(&self) -> Result<()> {
        let pool = self.pool.clone();
        let work = async move {
            let mut migrations = sqlx::migrate::Migrator {
                migrations: MIGRATIONS.migrations.clone(),
                ..sqlx::migrate::Migrator::DEFAULT
            };
            // An older binary that restarts beside a newer one must still start.
            migrations.set_ignore_missing(true);
            migrations.run(&pool).await.map_err(RegistryError::from)
        };
        joined(tokio::spawn(work).await)
    }

    /// The id of this installation, made with the schema.
    pub async fn installation(&self) -> Result<InstallationId> {
        Ok(InstallationId(sqlx::query_scalar("select id from installation").fetch_one(&self.pool).await?))
    }

    /// Whether Postgres answers.
    pub async fn ping(&self) -> Result<()> {
        sqlx::query("select 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection; later calls answer `unavailable`.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Tells every listener that something about a topic changed. Never waits: a task folds many calls into
    /// few notifications, because a `notify` inside each transaction would serialise commits.
    pub fn poke(&self, topic: Topic) {
        self.poker.poke(topic);
    }

    /// Runs `work` in a transaction, in a task that outlives the caller.
    async fn transact<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let pool = self.pool.clone();
        joined(
            tokio::spawn(async move {
                let mut tx = pool.begin().await?;
                let value = work(&mut tx).await?;
                tx.commit().await?;
                Ok(value)
            })
            .await,
        )
    }
}

fn joined<T>(outcome: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| {
        Err(RegistryError::Unavailable(format!("the transaction's task ended: {error}")))
    })
}
