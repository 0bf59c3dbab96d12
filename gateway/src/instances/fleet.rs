//! The instances of one version on this gateway, and the line of calls that wait for them.
//!
//! One short lock holds members, free slots and the line together, so a slot that becomes free and a call that
//! arrives can never miss each other. No await happens under it, and nothing is sent or dropped under it that
//! could take it again.

use std::sync::Arc;
use std::time::Instant;

use davit_api::{ApiError, ErrorCode, InstanceId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::admit;
use crate::instances::shared::Shared;
use crate::instances::slot::Slot;
use crate::instances::start::{Reason, Started};
use crate::instances::state::{Grant, Learnt, State, Waiter};
use crate::instances::{Instance, leave};
use crate::invoke::CallError;
use crate::measure::Measure;
use crate::usage::Usage;
use crate::version::LiveVersion;

/// One version's instances.
pub struct Fleet {
    /// The version they serve.
    pub version: Arc<LiveVersion>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State>,
    /// Rings when calls leave the line, so that starts which nobody needs any more end.
    pub(super) slack: Notify,
    /// Where the function's calls are counted.
    pub usage: Arc<Usage>,
    /// Where the version's calls are counted while a canary is about it.
    pub measure: Arc<Measure>,
}

/// Numbers of one fleet, for the status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Instances that work.
    pub active: usize,
    /// Instances that are stopped until the next call.
    pub frozen: usize,
    /// Starts under way.
    pub starting: usize,
    /// Calls that wait.
    pub waiting: usize,
    /// Calls in instances now.
    pub in_use: usize,
}

impl Fleet {
    /// Nothing yet; `learnt` is what an earlier fleet of the function knew.
    pub(super) fn new(version: Arc<LiveVersion>, shared: Arc<Shared>, learnt: Learnt) -> Arc<Self> {
        let usage = shared.recorder.usage(version.function_id);
        let measure = shared.recorder.measure(version.version_id);
        let (state, slack) = (Mutex::new(State::new(learnt, shared.peers.bounds(&version))), Notify::new());
        Arc::new(Self { version, shared, state, slack, usage, measure })
    }

    pub(super) fn concurrency(&self) -> usize {
        self.version.spec.concurrency as usize
    }

    /// A slot in an instance, for a call that has to be done by `deadline`.
    pub async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Slot, CallError> {
        self.slot_by(admit::latest(Instant::now(), deadline, self.version.spec.timeout())).await
    }

    /// A slot in an instance, at `latest`.
    pub(super) async fn slot_by(self: &Arc<Self>, latest: Instant) -> Result<Slot, CallError> {
        let (number, receive) = {
            let now = Instant::now();
            let mut state = self.state.lock();
            if state.line.is_empty()
                && let Some(grant) = state.free_slot(self.concurrency(), now)
            {
                self.look(&mut state, now);
                drop(state);
                return Ok(self.slot(grant));
            }
            if let Some(broken) = state.breaker.refuses(now).filter(|_| state.members.is_empty()) {
                return Err(broken);
            }
            if state.line.len() >= admit::line_bound(&self.version.spec, self.shared.limits.waiting) {
                return Err(CallError::refused(admit::line_full(&self.version)));
            }
            let (send, receive) = oneshot::channel();
            let number = state.line_up(send);
            state.returning = None;
            self.look(&mut state, now);
            (number, receive)
        };
        let mut place = Place { fleet: self, number, receive };
        match tokio::time::timeout_at(latest.into(), &mut place.receive).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) => {
                Err(CallError::refused(ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down")))
            }
            Err(_) => {
                let obstacle = self.shared.obstacles.lock().get(&*self.version.pool_key).cloned();
                Err(CallError::refused(admit::no_capacity(&self.version, obstacle.as_deref())))
            }
        }
    }

    fn slot(self: &Arc<Self>, grant: Grant) -> Slot {
        Slot::new(self.clone(), grant)
    }

    /// A call ended. `spoiled`: the instance cannot be trusted with another one. `granted`: when the call got its
    /// slot, if it made use of it.
    pub(super) fn release(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        spoiled: bool,
        granted: Option<Instant>,
    ) {
        let now = Instant::now();
        let spoiled = spoiled || instance.link.is_closed();
        let mut gone = None;
        let mut watch = false;
        let unwanted;
        let grants = {
            let mut state = self.state.lock();
            let Some(at) = state.position(instance.id) else { return };
            state.give_back(at);
            if let Some(granted) = granted {
                state.learnt.pilot.served(now.saturating_duration_since(granted));
            }
            let surplus = state.staying() > state.bounds.most;
            unwanted = surplus || (state.retired && state.line.is_empty());
            let member = &state.members[at];
            if spoiled || (member.is_idle() && (member.leaving || unwanted)) {
                gone = Some(state.take_out(at));
            }
            let grants = self.hand_out(&mut state, now);
            if let Some(member) = state.members.iter_mut().find(|m| m.instance.id == instance.id)
                && member.in_use == 0
            {
                (member.idle_since, member.judge_at) = (now, now);
                member.used_at = self.shared.eviction.now();
                watch = !std::mem::replace(&mut member.watched, true);
            }
            self.look(&mut state, now);
            grants
        };
        self.deliver(grants);
        if watch {
            self.shared.watch_idle(self, instance.id);
        }
        if let Some(member) = gone {
            let reason = match (spoiled, unwanted) {
                (true, _) => "its last call did not end cleanly",
                (false, true) => "no longer wanted",
                (false, false) => leave::REASON,
            };
            self.shared.released(&member.instance, reason);
        }
    }

    /// Matches free slots with the line. The grants must be delivered after the lock is gone.
    fn hand_out(&self, state: &mut State, now: Instant) -> Vec<(Waiter, Grant)> {
        let mut grants = Vec::new();
        while !state.line.is_empty() {
            let Some(grant) = state.free_slot(self.concurrency(), now) else { break };
            let Some(waiter) = state.line.pop_front() else { break };
            grants.push((waiter, grant));
        }
        grants
    }

    fn deliver(self: &Arc<Self>, grants: Vec<(Waiter, Grant)>) {
        if !grants.is_empty() {
            // The line got shorter: a start that still waits for the pool may be superfluous now.
            self.slack.notify_waiters();
        }
        for (waiter, grant) in grants {
            // A waiter that left in this moment drops the slot, which releases it to the next.
            if let Err(Ok(mut slot)) = waiter.send.send(Ok(self.slot(grant))) {
                slot.set_unused();
            }
        }
    }

    /// A started instance joins; the line gets its slots.
    pub(super) fn join(self: &Arc<Self>, instance: Arc<Instance>, started: Started) {
        let id = instance.id;
        let now = Instant::now();
        let mut watch = false;
        let joining = instance.clone();
        if instance.link.is_closed() {
            // It ended between its last word and now; whoever follows its link found no member to take out.
            {
                let mut state = self.state.lock();
                state.starting -= 1;
                self.look(&mut state, now);
            }
            return self.shared.released(&instance, "ended right after its start");
        }
        let grants = {
            let mut state = self.state.lock();
            state.starting -= 1;
            state.breaker.worked();
            state.learnt.started(now.saturating_duration_since(started.decided), started.pooled);
            state.add(instance, started.reason.until().unwrap_or(now), self.shared.eviction.now(), now);
            let mut grants = self.hand_out(&mut state, now);
            // These calls waited for this very start.
            grants
                .iter_mut()
                .filter(|(_, g)| g.instance.id == id)
                .for_each(|(_, g)| g.cold = Some(started.phases));
            if let Some(member) = state.members.iter_mut().find(|m| m.instance.id == id && m.in_use == 0) {
                watch = !std::mem::replace(&mut member.watched, true);
            }
            self.look(&mut state, now);
            grants
        };
        self.deliver(grants);
        if watch {
            self.shared.watch_idle(self, id);
        }
        if joining.link.is_leaving() {
            // Its machine said so while it started, when there was no member to take calls from.
            self.leave(id);
        }
    }

    /// A start failed. The calls it was for get `error`; when starts keep failing, so does the whole line.
    pub(super) fn start_failed(self: &Arc<Self>, error: &CallError) {
        let now = Instant::now();
        let told: Vec<Waiter> = {
            let mut state = self.state.lock();
            state.starting -= 1;
            let open = state.breaker.failed(error, now);
            let n = if open && state.members.is_empty() {
                state.line.len()
            } else {
                self.concurrency().min(state.line.len())
            };
            let told = state.line.drain(..n).collect();
            self.look(&mut state, now);
            told
        };
        for waiter in told {
            let _ = waiter.send.send(Err(error.clone()));
        }
    }

    /// Whether a start that still waits for a pool instance is superfluous; if so it has been counted off.
    pub(super) fn start_not_needed(&self, reason: Reason) -> bool {
        let mut state = self.state.lock();
        let superfluous = match reason {
            _ if state.held() > state.bounds.most => true,
            Reason::Line => (state.starting - 1) * self.concurrency() >= state.line.len(),
            // Nobody waits for it, so an empty line says nothing. Should somebody by now, it serves as well.
            Reason::Ahead { until } => state.retired || until <= Instant::now(),
            Reason::Minimum => state.retired,
        };
        if superfluous {
            state.starting -= 1;
        }
        superfluous
    }

    /// The link of a member closed by itself.
    pub(super) fn lost(self: &Arc<Self>, id: InstanceId, reason: &str) {
        let gone = {
            let mut state = self.state.lock();
            let gone = state.position(id).map(|at| state.take_out(at));
            self.look(&mut state, Instant::now());
            gone
        };
        if let Some(member) = gone {
            self.shared.metrics.instances_lost.add(1);
            self.shared.released(&member.instance, reason);
        }
    }
}

/// A place in the line; leaving it is dropping it.
struct Place<'a> {
    fleet: &'a Arc<Fleet>,
    number: u64,
    receive: oneshot::Receiver<Result<Slot, CallError>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.fleet.state.lock();
            let before = state.line.len();
            state.line.retain(|w| w.number != self.number);
            let left = before != state.line.len();
            if left {
                self.fleet.look(&mut state, Instant::now());
            }
            left
        };
        if left {
            self.fleet.slack.notify_waiters();
        }
        // A slot that was granted in this moment drops with the receiver, outside the lock, and goes to the next.
    }
}
