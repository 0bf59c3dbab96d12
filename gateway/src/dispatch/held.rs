//! The jobs that this gateway runs now: their leases are renewed, and wishes to end them find them here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_api::{GatewayId, InvocationId};
use davit_registry::{Changes, Registry, Topic};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Between two renewals of the jobs' leases of 30 seconds.
const BEAT: Duration = Duration::from_secs(8);

/// All of them; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Held {
    jobs: Arc<Mutex<HashMap<InvocationId, Holding>>>,
}

struct Holding {
    attempt: u32,
    cancel: CancellationToken,
}

/// One of them, until it is dropped.
pub(super) struct Hold {
    held: Held,
    id: InvocationId,
    /// Ends when somebody wishes the job to end.
    pub(super) cancel: CancellationToken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.jobs.lock().remove(&self.id);
    }
}

impl Held {
    /// Adds a job.
    pub(super) fn hold(&self, id: InvocationId, attempt: u32) -> Hold {
        let cancel = CancellationToken::new();
        self.jobs.lock().insert(id, Holding { attempt, cancel: cancel.clone() });
        Hold { held: self.clone(), id, cancel }
    }

    /// Looks after them, for ever.
    pub(super) async fn look_after(self, registry: Registry, gateway: GatewayId, changes: Changes) {
        let mut wishes = changes.subscribe(Topic::Cancels);
        loop {
            let beat = tokio::time::sleep(BEAT);
            tokio::pin!(beat);
            loop {
                tokio::select! {
                    () = &mut beat => break,
                    _ = wishes.changed() => self.cancel(&registry, gateway).await,
                }
            }
            self.renew(&registry, gateway).await;
            // A wish whose notification was lost is found here.
            self.cancel(&registry, gateway).await;
        }
    }

    async fn renew(&self, registry: &Registry, gateway: GatewayId) {
        let jobs: Vec<_> = self.jobs.lock().iter().map(|(id, job)| (*id, job.attempt)).collect();
        match registry.heartbeat_jobs(gateway, &jobs).await {
            // Those that are not renewed were taken over or ended just now; their settlement will tell.
            Ok(renewed) => tracing::trace!(held = jobs.len(), renewed = renewed.len(), "leases renewed"),
            Err(error) => tracing::warn!(%error, "leases of jobs not renewed"),
        }
    }

    async fn cancel(&self, registry: &Registry, gateway: GatewayId) {
        if self.jobs.lock().is_empty() {
            return;
        }
        match registry.jobs_to_cancel(gateway).await {
            Ok(ids) => {
                let jobs = self.jobs.lock();
                ids.iter().filter_map(|id| jobs.get(id)).for_each(|job| job.cancel.cancel());
            }
            Err(error) => tracing::debug!(%error, "wishes to cancel were not read"),
        }
    }
}
