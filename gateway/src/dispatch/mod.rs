//! The durable queue's worker: slot → claim → invoke → settle.
//!
//! A job is claimed only when there is a slot to run it in. What becomes of it is decided by `classify.rs` and
//! recorded with the receipt of the claim, so a gateway that comes back late changes nothing.

pub mod classify;
mod job;
#[cfg(test)]
pub(crate) mod stories;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_api::{ApiError, ErrorCode, GatewayId, InvocationId, limits};
use davit_registry::{Changes, NewInvocation, Registry, Topic};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::invoke::{Call, Corridor, Outcome, Target};
use crate::routes::Routes;

/// Jobs at a time in one gateway. Each holds at most 1 MiB of payload and one waiting place of its function.
pub const SLOTS: usize = 128;
/// Jobs in one claim, so that several gateways share a burst.
const CLAIM: usize = 32;
/// Without any hint the queue is looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Between two renewals of the jobs' leases of 30 seconds.
const BEAT: Duration = Duration::from_secs(8);
/// How long a client waits for its job to be accepted.
const ACCEPT: Duration = Duration::from_secs(5);

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
    /// Who carries jobs out.
    pub carrier: Arc<dyn Carrier>,
    /// Wakes the dispatcher of this process, without a way through the database.
    pub wake: Arc<Notify>,
}

/// Jobs that this gateway runs now, each with the attempt it has the lease for.
type Held = Arc<Mutex<HashMap<InvocationId, u32>>>;

/// Accepts an invocation. When this returns an id, it will not be lost. After an error it was almost always not
/// accepted; should the commit have succeeded and only its answer be lost, a second try runs it twice.
pub async fn enqueue(
    registry: &Registry,
    wake: &Notify,
    new: NewInvocation,
) -> Result<InvocationId, ApiError> {
    if new.payload.len() > limits::ASYNC_PAYLOAD_BYTES {
        let text =
            format!("the event of an asynchronous call is at most {} bytes", limits::ASYNC_PAYLOAD_BYTES);
        return Err(ApiError::new(ErrorCode::TooLarge, text));
    }
    let accepted = tokio::time::timeout(ACCEPT, registry.enqueue(new)).await;
    let late = || ApiError::new(ErrorCode::Unavailable, "the registry does not answer in time");
    let id = accepted.map_err(|_| late())?.map_err(|error| {
        tracing::debug!(%error, "not accepted");
        error.into_api()
    })?;
    wake.notify_one();
    Ok(id)
}

/// Runs jobs until `stop`; returns when those under way have ended, or at once when the caller drops it, which
/// leaves them to their leases.
pub async fn run(dispatch: Dispatch, changes: Changes, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(SLOTS));
    let held = Held::default();
    let jobs = TaskTracker::new();
    let beating =
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(beat(dispatch.clone(), held.clone())));
    let mut queue = changes.subscribe(Topic::Queue);
    loop {
        // Registered before looking, so that a hint which comes while we look is not lost.
        let woken = dispatch.wake.notified();
        queue.borrow_and_update();
        let Some(permit) = free_slot(&slots, &stop).await else { break };
        drop(permit);
        let asked = slots.available_permits().min(CLAIM);
        if take(&dispatch, &slots, &held, &jobs, asked).await < asked {
            tokio::select! {
                () = woken => {}
                _ = queue.changed() => {}
                () = tokio::time::sleep(TICK) => {}
                () = stop.cancelled() => break,
            }
        }
    }
    jobs.close();
    jobs.wait().await;
    drop(beating);
}

async fn free_slot<'s>(
    slots: &'s Semaphore,
    stop: &CancellationToken,
) -> Option<tokio::sync::SemaphorePermit<'s>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        permit = slots.acquire() => permit.ok(),
    }
}

/// Claims up to `asked` jobs and starts them; answers how many there were.
async fn take(
    dispatch: &Dispatch,
    slots: &Arc<Semaphore>,
    held: &Held,
    jobs: &TaskTracker,
    asked: usize,
) -> usize {
    // Before the first snapshot every function would look like one that does not exist.
    if dispatch.routes.load().versions().next().is_none() {
        return 0;
    }
    let claimed = dispatch.registry.claim(dispatch.gateway, u32::try_from(asked).unwrap_or(1)).await;
    let claimed = claimed.unwrap_or_else(|error| {
        tracing::debug!(%error, "no jobs claimed");
        Vec::new()
    });
    let count = claimed.len();
    for claim in claimed {
        // There is one: only this loop takes slots. Should that change, the job waits for one under its lease.
        let slots = slots.clone();
        held.lock().insert(claim.id, claim.attempt);
        let (dispatch, held) = (dispatch.clone(), held.clone());
        let slot = slots.try_acquire_owned().ok();
        jobs.spawn(async move {
            let _slot = slot;
            let _held = Holding { held, id: claim.id };
            job::run(&dispatch, claim).await;
        });
    }
    count
}

/// Keeps a job in the list of those whose leases are renewed.
struct Holding {
    held: Held,
    id: InvocationId,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.lock().remove(&self.id);
    }
}

/// Renews the leases of the jobs that run.
async fn beat(dispatch: Dispatch, held: Held) {
    loop {
        tokio::time::sleep(BEAT).await;
        let jobs: Vec<_> = held.lock().iter().map(|(id, attempt)| (*id, *attempt)).collect();
        match dispatch.registry.heartbeat_jobs(dispatch.gateway, &jobs).await {
            // Those that are not renewed were taken over or ended just now; their settlement will tell.
            Ok(renewed) => tracing::trace!(held = jobs.len(), renewed = renewed.len(), "leases renewed"),
            Err(error) => tracing::warn!(%error, "leases of jobs not renewed"),
        }
    }
}
