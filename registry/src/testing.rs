//! For tests: one private Postgres a test process, a fresh database a test.
//!
//! The server starts with the first [`TestDatabase`], is shared by all that live at the same time, and stops
//! with the last. Its migrated template is copied for each test, which takes some tens of milliseconds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::{fs, io};

use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::sync::Mutex;

use crate::embedded::Postgres;
use crate::{ConnectSettings, Registry};

// Tests of one process have nobody above them who could own the server.
static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicU64 = AtomicU64::new(0);

struct Server {
    // Dropped first: the server stops before its directory goes.
    postgres: Option<Postgres>,
    dir: PathBuf,
    // Copying a template wants nobody else connected to it.
    copying: Mutex<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.postgres.take());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A fresh, migrated database. Keep it for as long as the test runs.
pub struct TestDatabase {
    registry: Registry,
    url: String,
    _server: Arc<Server>,
}

impl TestDatabase {
    /// Makes one; panics with the reason when it cannot, as a test would.
    pub async fn new() -> Self {
        Self::make().await.unwrap_or_else(|error| panic!("no test database: {error}"))
    }

    async fn make() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let server = server().await?;
        let postgres = server.postgres.as_ref().ok_or("stopped")?;
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        {
            let _turn = server.copying.lock().await;
            let mut admin = PgConnection::connect(&postgres.url_of("postgres")).await?;
            admin.execute(AssertSqlSafe(format!("create database {name} template davit"))).await?;
            admin.close().await?;
        }
        let url = postgres.url_of(&name);
        let registry =
            Registry::connect(&ConnectSettings { max_connections: 6, ..ConnectSettings::new(&url) }).await?;
        Ok(Self { registry, url, _server: server })
    }

    /// The registry on it.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many transactions recorded the fires that there are.
    pub async fn fire_transactions(&self) -> i64 {
        let count = sqlx::query_scalar("select count(distinct xmin::text) from fires");
        count.fetch_one(&self.registry.pool).await.unwrap_or_else(|error| panic!("cannot count: {error}"))
    }

    /// Events of what was accepted and has not ended, in the order of acceptance.
    pub async fn payloads(&self) -> Vec<String> {
        let texts = "select convert_from(payload, 'UTF8') from invocations order by position";
        let texts = sqlx::query_scalar(texts).fetch_all(&self.registry.pool).await;
        texts.unwrap_or_else(|error| panic!("cannot read: {error}"))
    }

    /// Until when the running attempt of the only invocation is held, by which number, and what time it is.
    pub async fn held_until(&self) -> (DateTime<Utc>, i32, DateTime<Utc>) {
        let held = "select lease_until, attempt, clock_timestamp() from invocations where state = 'running'";
        let held = sqlx::query_as(held).fetch_one(&self.registry.pool).await;
        held.unwrap_or_else(|error| panic!("cannot read: {error}"))
    }

    /// Lets the leases of first attempts lapse, as they do when nobody could renew them.
    pub async fn lapse_first_attempts(&self) {
        let lapse =
            "update invocations set lease_until = '2020-01-01' where state = 'running' and attempt = 1";
        let done = sqlx::query(lapse).execute(&self.registry.pool).await;
        done.unwrap_or_else(|error| panic!("cannot write: {error}"));
    }

    /// Its address, for what connects by itself.
    pub fn url(&self) -> &str {
        &self.url
    }
}

async fn server() -> Result<Arc<Server>, Box<dyn std::error::Error + Send + Sync>> {
    let mut slot = SERVER.lock().await;
    if let Some(server) = slot.upgrade() {
        return Ok(server);
    }
    sweep();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("davit-test-pg-{}-{number}", std::process::id()));
    let postgres = Postgres::start_careless(&dir).await?;
    let template = Registry::connect(&ConnectSettings::new(postgres.url())).await?;
    template.migrate().await?;
    template.close().await;
    let server = Arc::new(Server { postgres: Some(postgres), dir, copying: Mutex::new(()) });
    *slot = Arc::downgrade(&server);
    Ok(server)
}

/// Removes what test processes left that were killed: their servers, then their directories.
fn sweep() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("davit-test-pg-").and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !PathBuf::from(format!("/proc/{pid}")).exists() {
            let left: io::Result<()> = crate::embedded::stop_orphan(&entry.path().join("pg"));
            if left.is_ok() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}
