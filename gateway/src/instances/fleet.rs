//! The instances of one version on this gateway, and the line of calls that wait for them.
//!
//! One short lock holds members, free slots and the line together, so a slot that becomes free and a call that
//! arrives can never miss each other. No await happens under it, and nothing is sent or dropped under it that
//! could take it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use davit_api::{ApiError, ColdPhases, ErrorCode, InstanceId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::admit;
use crate::instances::Instance;
use crate::instances::shared::Shared;
use crate::instances::slot::Slot;
use crate::invoke::CallError;
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
}

#[derive(Default)]
pub(super) struct State {
    pub(super) members: Vec<Member>,
    pub(super) line: VecDeque<Waiter>,
    /// Starts under way: waiting in the pool's queue, or loading.
    pub(super) starting: usize,
    pub(super) breaker: admit::Breaker,
    /// The version is no longer live: what is idle goes at once.
    pub(super) retired: bool,
    next_waiter: u64,
}

/// One instance with its use.
pub(super) struct Member {
    pub(super) instance: Arc<Instance>,
    pub(super) in_use: usize,
    pub(super) frozen: bool,
    pub(super) idle_since: Instant,
    /// A look at whether it may be frozen is already due.
    pub(super) watched: bool,
}

pub(super) struct Waiter {
    number: u64,
    send: oneshot::Sender<Result<Slot, CallError>>,
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
    pub(super) fn new(version: Arc<LiveVersion>, shared: Arc<Shared>) -> Arc<Self> {
        let usage = shared.recorder.usage(version.function_id);
        Arc::new(Self { version, shared, state: Mutex::default(), slack: Notify::new(), usage })
    }

    fn concurrency(&self) -> usize {
        self.version.spec.concurrency as usize
    }

    /// A slot in an instance, by `deadline`.
    pub async fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Slot, CallError> {
        let (number, receive) = {
            let mut state = self.state.lock();
            if state.line.is_empty()
                && let Some(grant) = state.free_slot(self.concurrency())
            {
                drop(state);
                return Ok(self.slot(grant));
            }
            if let Some(broken) = state.breaker.refuses(Instant::now()).filter(|_| state.members.is_empty()) {
                return Err(broken);
            }
            if state.line.len() >= admit::line_bound(&self.version.spec, self.shared.limits.waiting) {
                return Err(CallError::refused(admit::line_full(&self.version)));
            }
            let (send, receive) = oneshot::channel();
            state.next_waiter += 1;
            let number = state.next_waiter;
            state.line.push_back(Waiter { number, send });
            self.start_what_is_needed(&mut state);
            (number, receive)
        };
        let mut place = Place { fleet: self, number, receive };
        match tokio::time::timeout_at(deadline.into(), &mut place.receive).await {
            Ok(Ok(granted)) => granted,
            Ok(Err(_)) => {
                Err(CallError::refused(ApiError::new(ErrorCode::Unavailable, "the gateway is shutting down")))
            }
            Err(_) => Err(CallError::refused(admit::no_capacity(&self.version))),
        }
    }

    /// Starts as many instances as the line can use and the version's maximum allows.
    pub(super) fn start_what_is_needed(self: &Arc<Self>, state: &mut State) {
        let most = self.version.spec.max_instances as usize;
        while state.starting * self.concurrency() < state.line.len()
            && state.members.len() + state.starting < most
        {
            state.starting += 1;
            tokio::spawn(crate::instances::start::run(self.clone()));
        }
    }

    fn slot(self: &Arc<Self>, grant: Grant) -> Slot {
        Slot::new(self.clone(), grant.instance, grant.thaw, grant.cold)
    }

    /// A call ended. `spoiled`: the instance cannot be trusted with another one.
    pub(super) fn release(self: &Arc<Self>, instance: &Arc<Instance>, spoiled: bool) {
        let spoiled = spoiled || instance.link.is_closed();
        let mut gone = None;
        let mut watch = false;
        let grants = {
            let mut state = self.state.lock();
            let Some(at) = state.members.iter().position(|m| m.instance.id == instance.id) else { return };
            let member = &mut state.members[at];
            member.in_use = member.in_use.saturating_sub(1);
            if spoiled || (state.retired && state.members[at].in_use == 0 && state.line.is_empty()) {
                gone = Some(state.members.swap_remove(at));
            }
            let grants = self.hand_out(&mut state);
            if let Some(member) = state.members.iter_mut().find(|m| m.instance.id == instance.id)
                && member.in_use == 0
            {
                member.idle_since = Instant::now();
                watch = !std::mem::replace(&mut member.watched, true);
            }
            self.start_what_is_needed(&mut state);
            grants
        };
        self.deliver(grants);
        if watch {
            self.shared.watch_idle(self, instance.id);
        }
        if let Some(member) = gone {
            self.shared.released(
                &member.instance,
                if spoiled { "its last call did not end cleanly" } else { "superseded" },
            );
        }
    }

    /// Matches free slots with the line. The grants must be delivered after the lock is gone.
    fn hand_out(&self, state: &mut State) -> Vec<(Waiter, Grant)> {
        let mut grants = Vec::new();
        while !state.line.is_empty() {
            let Some(grant) = state.free_slot(self.concurrency()) else { break };
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
            let _ = waiter.send.send(Ok(self.slot(grant)));
        }
    }

    /// A started instance joins; the line gets its slots.
    pub(super) fn join(self: &Arc<Self>, instance: Arc<Instance>, start: ColdPhases) {
        let id = instance.id;
        let mut watch = false;
        if instance.link.is_closed() {
            // It ended between its last word and now; whoever follows its link found no member to take out.
            {
                let mut state = self.state.lock();
                state.starting -= 1;
                self.start_what_is_needed(&mut state);
            }
            return self.shared.released(&instance, "ended right after its start");
        }
        let grants = {
            let mut state = self.state.lock();
            state.starting -= 1;
            state.breaker.worked();
            let now = Instant::now();
            state.members.push(Member {
                instance,
                in_use: 0,
                frozen: false,
                idle_since: now,
                watched: false,
            });
            let mut grants = self.hand_out(&mut state);
            // These calls waited for this very start.
            grants.iter_mut().filter(|(_, g)| g.instance.id == id).for_each(|(_, g)| g.cold = Some(start));
            if let Some(member) = state.members.iter_mut().find(|m| m.instance.id == id && m.in_use == 0) {
                watch = !std::mem::replace(&mut member.watched, true);
            }
            grants
        };
        self.deliver(grants);
        if watch {
            self.shared.watch_idle(self, id);
        }
    }

    /// A start failed. The calls it was for get `error`; when starts keep failing, so does the whole line.
    pub(super) fn start_failed(self: &Arc<Self>, error: &CallError) {
        let told: Vec<Waiter> = {
            let mut state = self.state.lock();
            state.starting -= 1;
            let open = state.breaker.failed(error, Instant::now());
            let n = if open && state.members.is_empty() {
                state.line.len()
            } else {
                self.concurrency().min(state.line.len())
            };
            let told = state.line.drain(..n).collect();
            self.start_what_is_needed(&mut state);
            told
        };
        for waiter in told {
            let _ = waiter.send.send(Err(error.clone()));
        }
    }

    /// Whether a start that still waits for a pool instance is superfluous; if so it has been counted off.
    pub(super) fn start_not_needed(&self) -> bool {
        let mut state = self.state.lock();
        let superfluous = (state.starting - 1) * self.concurrency() >= state.line.len();
        if superfluous {
            state.starting -= 1;
        }
        superfluous
    }

    /// The link of a member closed by itself.
    pub(super) fn lost(self: &Arc<Self>, id: InstanceId, reason: &str) {
        let gone = {
            let mut state = self.state.lock();
            let at = state.members.iter().position(|m| m.instance.id == id);
            let gone = at.map(|at| state.members.swap_remove(at));
            self.start_what_is_needed(&mut state);
            gone
        };
        if let Some(member) = gone {
            self.shared.metrics.instances_lost.add(1);
            self.shared.released(&member.instance, reason);
        }
    }
}

/// A slot on its way to a call.
struct Grant {
    instance: Arc<Instance>,
    thaw: bool,
    cold: Option<ColdPhases>,
}

impl State {
    /// Takes a slot: of a running instance before a frozen one, and of the fullest among these, so that load
    /// gathers on few instances and the others can go.
    fn free_slot(&mut self, concurrency: usize) -> Option<Grant> {
        let member = self
            .members
            .iter_mut()
            .filter(|m| m.in_use < concurrency && !m.instance.link.is_closed())
            .max_by_key(|m| (!m.frozen, m.in_use, m.idle_since))?;
        member.in_use += 1;
        member.instance.count_call();
        // The flag stays until somebody has really sent the thaw: each call until then does it first.
        Some(Grant { instance: member.instance.clone(), thaw: member.frozen, cold: None })
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
            before != state.line.len()
        };
        if left {
            self.fleet.slack.notify_waiters();
        }
        // A slot that was granted in this moment drops with the receiver, outside the lock, and goes to the next.
    }
}
