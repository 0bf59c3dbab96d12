//! What handlers work with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::TokenId;
use davit_daemon::Allowed;
use davit_registry::{Changes, MasterKey, Registry};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::unfinished::Unfinished;
use crate::source::ArchiveLimits;

/// Uploads at a time: each may unpack a quarter of a gigabyte through the checks.
const UPLOADS: usize = 4;
/// Long polls at a time; more are answered at once with what there is.
const POLLS: usize = 512;
/// How old a token's `last used` may be.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// Settings of the management API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Where functions are called; clients are told.
    pub gateway_url: String,
    /// Version of this davit.
    pub version: String,
    /// Bounds of an uploaded archive.
    pub archive: ArchiveLimits,
    /// Bounds of schedules.
    pub schedules: davit_cron::Limits,
    /// Which databases of users may be connected to besides those on the public internet.
    pub outbound: Allowed,
}

impl ApiSettings {
    /// Settings with the usual bounds.
    pub fn new(gateway_url: impl Into<String>) -> Self {
        Self {
            gateway_url: gateway_url.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            archive: ArchiveLimits::default(),
            schedules: davit_cron::Limits::default(),
            outbound: Allowed::default(),
        }
    }
}

/// What handlers work with; a cheap clone.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) registry: Registry,
    /// Wakes long polls.
    pub(super) changes: Changes,
    pub(super) master_key: Arc<MasterKey>,
    pub(super) settings: Arc<ApiSettings>,
    pub(super) uploads: Arc<Semaphore>,
    pub(super) unfinished: Arc<Unfinished>,
    pub(super) polls: Arc<Semaphore>,
    /// Long polls end when this is cancelled, so that a drain need not wait for them.
    pub(super) stopping: CancellationToken,
    seen: Arc<Mutex<HashMap<TokenId, Instant>>>,
}

impl ApiState {
    /// Puts the parts together.
    pub fn new(
        registry: Registry,
        changes: Changes,
        master_key: Arc<MasterKey>,
        settings: ApiSettings,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            registry,
            changes,
            master_key,
            settings: Arc::new(settings),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            unfinished: Arc::default(),
            polls: Arc::new(Semaphore::new(POLLS)),
            stopping,
            seen: Arc::default(),
        }
    }

    /// Notes that a token was used: at most one write a minute and token, and nobody waits for it.
    pub(super) fn seen(&self, token: TokenId) {
        {
            let mut seen = self.seen.lock();
            let now = Instant::now();
            if seen.get(&token).is_some_and(|last| now - *last < SEEN_EVERY) {
                return;
            }
            seen.retain(|_, last| now - *last < SEEN_EVERY);
            seen.insert(token, now);
        }
        let registry = self.registry.clone();
        tokio::spawn(async move {
            if let Err(error) = registry.token_seen(&[(token, chrono::Utc::now())]).await {
                tracing::debug!(%error, "could not note that a token was used");
            }
        });
    }
}
