//! The durable queue's worker: slot → claim → carry out → settle.
//!
//! A job is claimed only when there is a slot to run it in. What becomes of it is decided by `classify.rs` and
//! recorded with the receipt of the claim, so a gateway that comes back late changes nothing.

mod accept;
pub mod classify;
mod held;
mod job;
mod room;
mod settle;
#[cfg(test)]
pub(crate) mod stories;

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{GatewayId, limits};
use davit_registry::{Changes, ClaimFrom, JOB_LEASE, Registry, Topic};
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::invoke::{Call, Corridor, Outcome, Target};
use crate::metrics::Metrics;
use crate::outbound::Sender;
use crate::routes::{Pins, Routes};

pub use accept::Acceptor;
pub(crate) use job::Failed;

use held::Held;
use room::Room;
use settle::Settler;

/// Jobs at a time in one gateway. Each holds at most 1 MiB of payload and one waiting place of its function.
pub const SLOTS: usize = 128;
/// Jobs beside those that have run for longer than a call may that somebody waits for. They have left their slots to others, or a
/// few functions that work for hours would hold up everybody's queue. Each holds a place in an instance, so memory bounds them, too.
pub const LONG: usize = 512;
/// Jobs in one claim, so that several gateways share a burst.
const CLAIM: usize = 32;
/// When more is due than there are slots, a claim waits until so many are free, because one claim for many jobs costs
/// as much as for one …
const WORTH: usize = 16;
/// … but not longer than this, for the others may run for an hour.
const WORTH_WAITING: Duration = Duration::from_millis(5);
/// Without any hint the queue is looked at this often, and lapsed leases, too.
const TICK: Duration = Duration::from_secs(1);

/// Carries out one call: the corridor, or a stand-in for it in tests.
pub trait Carrier: Send + Sync + 'static {
    /// Carries it out.
    fn carry(&self, target: Target, call: Call) -> BoxFuture<'_, Outcome>;
}

impl Carrier for Corridor {
    fn carry(&self, target: Target, call: Call) -> BoxFuture<'_, Outcome> {
        Box::pin(self.invoke(target, call))
    }
}

/// What the dispatcher works with.
#[derive(Clone)]
pub struct Dispatch {
    /// Where jobs come from.
    pub registry: Registry,
    /// Whose jobs they are.
    pub gateway: GatewayId,
    /// Who answers for a function.
    pub routes: Routes,
    /// Versions that are asked for by number.
    pub pins: Pins,
    /// Who carries calls out.
    pub carrier: Arc<dyn Carrier>,
    /// Who sends to addresses outside.
    pub sender: Sender,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Wakes the dispatcher of this process, without a way through the database.
    pub wake: Arc<Notify>,
    /// Ends jobs under way without a word about them; who takes the gateway's lease puts them back.
    pub cut: CancellationToken,
    /// How long what is held.
    pub terms: Terms,
}

/// How long jobs hold what they hold. Only tests have others than the default.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A job's lease.
    pub lease: Duration,
    /// Between two renewals of leases: three may be lost.
    pub beat: Duration,
    /// After so long a job leaves its slot to others.
    pub slot: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        let slot = Duration::from_secs((*limits::TIMEOUT_SECONDS.end()).into());
        Self { lease: JOB_LEASE, beat: Duration::from_secs(8), slot }
    }
}

/// Runs jobs until `stop`; returns when those under way have ended, or were cut.
pub async fn run(dispatch: Dispatch, changes: Changes, stop: CancellationToken) {
    let held = Held::default();
    let terms = dispatch.terms;
    let care = held.clone().look_after(dispatch.registry.clone(), dispatch.gateway, changes.clone(), terms);
    let care = AbortOnDropHandle::new(tokio::spawn(care));
    let room = Room::default();
    let calling = room.clone().look_after(dispatch.registry.clone(), dispatch.wake.clone());
    let _calling = AbortOnDropHandle::new(tokio::spawn(calling));
    let mut worker = Worker {
        settler: Settler::spawn(dispatch.registry.clone(), SLOTS + LONG),
        slots: Arc::new(Semaphore::new(SLOTS)),
        long: Arc::new(Semaphore::new(LONG)),
        jobs: TaskTracker::new(),
        from: ClaimFrom::under(terms.lease),
        reclaimed: None,
        dispatch,
        held,
        room,
    };
    let wake = worker.dispatch.wake.clone();
    let mut queue = changes.subscribe(Topic::Queue);
    let mut more = false;
    loop {
        // Registered before looking, so that a hint which comes while we look is not lost.
        let woken = wake.notified();
        queue.borrow_and_update();
        let free = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            free = worker.room(more) => free,
        };
        let asked = free.min(CLAIM);
        more = worker.take(asked).await == asked;
        if !more {
            tokio::select! {
                () = woken => {}
                _ = queue.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => break,
            }
        }
    }
    worker.jobs.close();
    worker.jobs.wait().await;
    drop(care);
}

struct Worker {
    dispatch: Dispatch,
    settler: Settler,
    slots: Arc<Semaphore>,
    long: Arc<Semaphore>,
    held: Held,
    room: Room,
    jobs: TaskTracker,
    from: ClaimFrom,
    /// When lapsed leases were last looked for.
    reclaimed: Option<Instant>,
}

impl Worker {
    /// Waits for free slots; answers how many there are. `many`: enough is due for all of them.
    async fn room(&self, many: bool) -> usize {
        if many {
            let enough = self.slots.acquire_many(WORTH as u32);
            let _ = tokio::time::timeout(WORTH_WAITING, enough).await;
        }
        drop(self.slots.acquire().await);
        self.slots.available_permits()
    }

    /// Claims up to `asked` jobs and starts them; answers how many there were.
    async fn take(&mut self, asked: usize) -> usize {
        // Before the first snapshot every function would look like one that does not exist.
        if self.dispatch.routes.load().versions().next().is_none() {
            return 0;
        }
        self.reclaim().await;
        let asked = u32::try_from(asked).unwrap_or(1);
        let claimed = self.dispatch.registry.claim(self.dispatch.gateway, asked, &mut self.from).await;
        let claimed = claimed.unwrap_or_else(|error| {
            tracing::debug!(%error, "no jobs claimed");
            Vec::new()
        });
        let count = claimed.len();
        for claim in claimed {
            // There is one: only this loop takes slots. Should that change, the job waits for one under its lease.
            let slot = self.slots.clone().try_acquire_owned().ok();
            let hold = self.held.hold(claim.id, claim.attempt);
            let (dispatch, settler, room) = (self.dispatch.clone(), self.settler.clone(), self.room.clone());
            let long = self.long.clone();
            self.jobs.spawn(async move {
                let job = job::run(&dispatch, &settler, &room, claim, &hold.ends);
                tokio::pin!(job);
                if tokio::time::timeout(dispatch.terms.slot, &mut job).await.is_ok() {
                    return;
                }
                // Where there is no place among the long ones it keeps its slot: then there is much too much of them.
                let _place = match long.try_acquire_owned() {
                    Ok(place) => {
                        drop(slot);
                        (Some(place), None)
                    }
                    Err(_) => (None, slot),
                };
                job.await;
            });
        }
        count
    }

    /// Puts back what is under lapsed leases, any gateway's.
    async fn reclaim(&mut self) {
        if self.held.is_behind() || self.reclaimed.is_some_and(|last| last.elapsed() < TICK) {
            return;
        }
        self.reclaimed = Some(Instant::now());
        match self.dispatch.registry.reclaim_lapsed().await {
            Ok(0) => {}
            Ok(jobs) => tracing::warn!(jobs, "leases had lapsed; their jobs were put back or have ended"),
            Err(error) => tracing::debug!(%error, "lapsed leases were not looked at"),
        }
    }
}
