//! The jobs that this gateway runs now: their leases are renewed for as long as they run, which may be hours, and wishes to end
//! them find them here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use davit_api::{GatewayId, InvocationId};
use davit_registry::{Changes, Registry, Topic};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::Terms;

/// An attempt: what a receipt says.
type Attempt = (InvocationId, u32);

/// All of them; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Held {
    /// By attempt: one that was lost may still be ending here while the next one runs here already.
    jobs: Arc<Mutex<HashMap<Attempt, Ends>>>,
    /// The last renewal did not come through.
    behind: Arc<AtomicBool>,
}

/// Why a job may have to end before its attempt does.
#[derive(Clone, Default)]
pub(super) struct Ends {
    /// Somebody wishes it to end.
    pub(super) cancel: CancellationToken,
    /// It is not this gateway's any more: its lease lapsed, and whatever it comes to is worth nothing.
    pub(super) lost: CancellationToken,
}

/// One of them, until it is dropped.
pub(super) struct Hold {
    held: Held,
    attempt: Attempt,
    pub(super) ends: Ends,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.jobs.lock().remove(&self.attempt);
    }
}

impl Held {
    /// Adds a job.
    pub(super) fn hold(&self, id: InvocationId, attempt: u32) -> Hold {
        let ends = Ends::default();
        self.jobs.lock().insert((id, attempt), ends.clone());
        Hold { held: self.clone(), attempt: (id, attempt), ends }
    }

    /// Whether leases of its own may have lapsed because the registry was away. Before they are renewed, nobody's should be judged:
    /// this gateway would put its own running jobs back.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    /// Looks after them, for ever.
    pub(super) async fn look_after(
        self,
        registry: Registry,
        gateway: GatewayId,
        changes: Changes,
        terms: Terms,
    ) {
        let mut wishes = changes.subscribe(Topic::Cancels);
        loop {
            let beat = tokio::time::sleep(terms.beat);
            tokio::pin!(beat);
            loop {
                tokio::select! {
                    () = &mut beat => break,
                    _ = wishes.changed() => self.cancel(&registry, gateway).await,
                }
            }
            self.renew(&registry, gateway, terms).await;
            // A wish whose notification was lost is found here.
            self.cancel(&registry, gateway).await;
        }
    }

    async fn renew(&self, registry: &Registry, gateway: GatewayId, terms: Terms) {
        let jobs: Vec<Attempt> = self.jobs.lock().keys().copied().collect();
        match registry.heartbeat_jobs(gateway, &jobs, terms.lease).await {
            Ok(still) => {
                self.behind.store(false, Ordering::Relaxed);
                tracing::trace!(held = jobs.len(), still = still.len(), "leases renewed");
                self.lose(&jobs, &still);
            }
            Err(error) => {
                self.behind.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "leases of jobs not renewed");
            }
        }
    }

    /// Ends those that were asked about and are not this gateway's any more. One that was settled in the meantime does not mind.
    fn lose(&self, asked: &[Attempt], still: &[Attempt]) {
        let still: HashSet<&Attempt> = still.iter().collect();
        let jobs = self.jobs.lock();
        asked
            .iter()
            .filter(|job| !still.contains(job))
            .filter_map(|job| jobs.get(job))
            .for_each(|job| job.lost.cancel());
    }

    async fn cancel(&self, registry: &Registry, gateway: GatewayId) {
        if self.jobs.lock().is_empty() {
            return;
        }
        match registry.jobs_to_cancel(gateway).await {
            Ok(ids) => {
                let jobs = self.jobs.lock();
                jobs.iter().filter(|((id, _), _)| ids.contains(id)).for_each(|(_, job)| job.cancel.cancel());
            }
            Err(error) => tracing::debug!(%error, "wishes to cancel were not read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_attempt_that_ends_late_does_not_take_the_next_one_with_it() {
        let (held, id) = (Held::default(), InvocationId::new());
        let (first, second) = (held.hold(id, 1), held.hold(id, 2));
        held.lose(&[(id, 1), (id, 2)], &[(id, 2)]);
        assert_eq!((first.ends.lost.is_cancelled(), second.ends.lost.is_cancelled()), (true, false));
        drop(first);
        assert_eq!(
            held.jobs.lock().keys().copied().collect::<Vec<_>>(),
            [(id, 2)],
            "its lease is still renewed"
        );
    }

    proptest! {
        /// Against a registry in simulated time: leases last a number of beats, the registry is away at times, and another gateway
        /// takes over what has lapsed. Whoever still holds the lease runs on, and whoever lost it stops at the first beat that tells.
        #[test]
        fn a_job_runs_on_exactly_as_long_as_it_is_ours(
            away in proptest::collection::vec(any::<bool>(), 1..120), lasts in 1_usize..6, takes_over in any::<bool>(),
        ) {
            let (held, id) = (Held::default(), InvocationId::new());
            let hold = held.hold(id, 1);
            let (mut until, mut ours) = (lasts, true);
            for (beat, away) in away.into_iter().enumerate() {
                if away {
                    // The registry is away from this gateway alone.
                    if takes_over && beat > until {
                        ours = false;
                    }
                    continue;
                }
                if ours {
                    until = beat + lasts;
                }
                let still: Vec<_> = ours.then_some((id, 1)).into_iter().collect();
                held.lose(&[(id, 1)], &still);
                prop_assert_eq!(hold.ends.lost.is_cancelled(), !ours);
            }
            prop_assert!(!hold.ends.cancel.is_cancelled());
        }
    }
}
