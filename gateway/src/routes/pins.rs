//! Versions that calls ask for by number although no alias leads to them.
//!
//! The snapshot has what aliases lead to. A call that names another version is the exception: the registry is asked for it
//! once, and it is held for as long as it is asked for, within bounds. Only callers with a token come this far.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{ApiError, ErrorCode, FunctionId};
use davit_registry::{Keep as _, MasterKey, Registry};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::routes::{Keeper, Routes, Table};
use crate::version::LiveVersion;

/// Versions that are held. Of more, the one that was not asked for for longest goes.
const MOST: usize = 256;
/// How long one is held after it was last asked for.
const IDLE: Duration = Duration::from_secs(600);
/// Versions that are looked up at a time; each takes a connection to the registry.
const AT_ONCE: usize = 4;
/// How long a call waits for the registry.
const PATIENCE: Duration = Duration::from_secs(5);

/// The versions; cheap to clone.
#[derive(Clone)]
pub struct Pins(Arc<Inner>);

struct Inner {
    routes: Routes,
    registry: Registry,
    key: Arc<MasterKey>,
    held: Mutex<HashMap<(FunctionId, u32), Pin>>,
    looking: Semaphore,
}

struct Pin {
    version: Arc<LiveVersion>,
    used: Instant,
}

impl Pins {
    /// None yet.
    pub fn new(routes: Routes, registry: Registry, key: Arc<MasterKey>) -> Self {
        let (held, looking) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Self(Arc::new(Inner { routes, registry, key, held, looking }))
    }

    /// The ready version of that number of the function whose live version this is.
    pub async fn find(&self, live: &Arc<LiveVersion>, number: u32) -> Result<Arc<LiveVersion>, ApiError> {
        if let Some(known) = self.known(live, number) {
            return Ok(known);
        }
        // A task of its own: who hangs up must not leave a lookup half-way.
        let (inner, live) = (self.0.clone(), live.clone());
        let looking = tokio::spawn(async move { look(&inner, &live, number).await });
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                Err(ApiError::new(ErrorCode::Unavailable, "the registry does not answer in time"))
            }
        }
    }

    fn known(&self, live: &Arc<LiveVersion>, number: u32) -> Option<Arc<LiveVersion>> {
        if live.number == number {
            return Some(live.clone());
        }
        let table = self.0.routes.load();
        let others = table.aliases(live.function_id).map(|aliases| aliases.others()).unwrap_or_default();
        if let Some(known) = others.iter().find(|version| version.number == number) {
            return Some(known.clone());
        }
        self.0.touch(live.function_id, number)
    }

    /// Forgets what nobody asks for any more, what belongs to functions that are gone, and what has secrets if
    /// `changed`: they may be others now. Answers whether anything went.
    pub(super) fn review(&self, table: &Table, changed: bool) -> bool {
        let mut held = self.0.held.lock();
        let before = held.len();
        held.retain(|(function, _), pin| {
            pin.used.elapsed() < IDLE
                && !(changed && pin.version.has_secrets)
                && table.function_by_id(*function).is_some()
        });
        held.len() < before
    }

    /// Those that are held.
    pub(super) fn held(&self) -> Vec<Arc<LiveVersion>> {
        self.0.held.lock().values().map(|pin| pin.version.clone()).collect()
    }
}

impl Inner {
    fn touch(&self, function: FunctionId, number: u32) -> Option<Arc<LiveVersion>> {
        let mut held = self.held.lock();
        let pin = held.get_mut(&(function, number))?;
        pin.used = Instant::now();
        Some(pin.version.clone())
    }
}

async fn look(inner: &Inner, live: &LiveVersion, number: u32) -> Result<Arc<LiveVersion>, ApiError> {
    let _turn = inner.looking.acquire().await;
    // Whoever was before may have brought it.
    if let Some(known) = inner.touch(live.function_id, number) {
        return Ok(known);
    }
    let found =
        inner.registry.routed_version(&inner.key, live.function_id, number).await.map_err(|error| {
            tracing::warn!(%error, "a version cannot be looked up");
            error.into_api()
        })?;
    let found = found.ok_or_else(|| missing(live, number))?;
    let version = Keeper::new(inner.routes.current(), Default::default()).keep(found);
    let mut held = inner.held.lock();
    if held.len() >= MOST
        && let Some(oldest) = held.iter().min_by_key(|(_, pin)| pin.used).map(|(key, _)| *key)
    {
        held.remove(&oldest);
    }
    held.insert((live.function_id, number), Pin { version: version.clone(), used: Instant::now() });
    Ok(version)
}

fn missing(live: &LiveVersion, number: u32) -> ApiError {
    let text = format!("{}/{} has no ready version {number}", live.namespace, live.function);
    ApiError::new(ErrorCode::NotFound, text)
}
