//! What a fleet's lock holds: members, line, starts, and what the fleet has learnt. Only `fleet.rs`, `scale.rs`
//! and `upkeep.rs` see it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{ColdPhases, InstanceId};
use davit_scaling::estimate::Estimate;
use davit_scaling::fleet::Pilot;
use davit_scaling::keep_alive::Return;
use tokio::sync::oneshot;

use crate::admit;
use crate::instances::{Instance, Slot};
use crate::invoke::CallError;
use crate::peers::Bounds;

/// What a start is taken to last before one was seen: out of a pool, a mount and an import.
const POOLED: Duration = Duration::from_millis(50);
/// And one that the controller has to start a container for.
const CONTAINER: Duration = Duration::from_millis(500);
/// A start that took longer waited for room, or for an image; the next one need not.
const LONGEST_START: Duration = Duration::from_secs(10);

pub(super) struct State {
    pub(super) members: Vec<Member>,
    pub(super) line: VecDeque<Waiter>,
    /// Starts under way: waiting in the pool's queue, or loading.
    pub(super) starting: usize,
    pub(super) breaker: admit::Breaker,
    /// The version is no longer live: what is idle goes at once.
    pub(super) retired: bool,
    /// What decides how many there are.
    pub(super) learnt: Learnt,
    /// How many there may and must be here.
    pub(super) bounds: Bounds,
    /// A look at a line that has not emptied is due.
    pub(super) looking: bool,
    /// When an emptied fleet has an instance again, unless a call comes before.
    pub(super) returning: Option<Return>,
    /// Members with calls. Counted, not summed up, since every call asks.
    busy: usize,
    /// Calls in members.
    in_use: usize,
    /// Members that get no more calls.
    leaving: usize,
    next_waiter: u64,
}

/// What a fleet knows of its function; outlives it, in bounds ([`super::remember`]).
#[derive(Debug, Clone)]
pub(super) struct Learnt {
    pub(super) pilot: Pilot,
    pooled: Estimate,
    container: Estimate,
    /// Of all starts, however they came about.
    usual: Estimate,
}

/// One instance with its use.
pub(super) struct Member {
    pub(super) instance: Arc<Instance>,
    pub(super) in_use: usize,
    /// Connections to its debugger.
    pub(super) debuggers: usize,
    pub(super) frozen: bool,
    /// Its machine wants it gone: it gets no more calls.
    pub(super) leaving: bool,
    pub(super) idle_since: Instant,
    /// A look at whether it may be frozen is already due.
    pub(super) watched: bool,
    /// Not judged before, should it be idle.
    pub(super) judge_at: Instant,
    /// When it was last used, by the clock of the order in which idle instances are given up.
    pub(super) used_at: f64,
}

pub(super) struct Waiter {
    pub(super) number: u64,
    pub(super) send: oneshot::Sender<Result<Slot, CallError>>,
}

/// A slot on its way to a call.
pub(super) struct Grant {
    pub(super) instance: Arc<Instance>,
    pub(super) thaw: bool,
    /// How its instance started, when the call waited for that.
    pub(super) cold: Option<ColdPhases>,
    pub(super) at: Instant,
}

impl Learnt {
    pub(super) fn new(now: Instant) -> Self {
        let [pooled, container, usual] = [Estimate::default(); 3];
        Self { pilot: Pilot::new(now), pooled, container, usual }
    }

    /// A start took so long, from the decision to the instance's being there.
    pub(super) fn started(&mut self, took: Duration, pooled: bool) {
        let estimate = if pooled { &mut self.pooled } else { &mut self.container };
        estimate.note(took.min(LONGEST_START));
        self.usual.note(took.min(LONGEST_START));
    }

    /// What a start some time from now can be expected to take: an empty pool will have been filled by then, as
    /// often as it was before. No less than [`POOLED`], however short the call's wait was: the pool needs another
    /// container in its place, and one that went a second after each call would cost more than it held.
    pub(super) fn usual(&self) -> Duration {
        self.usual.mean().unwrap_or(POOLED).max(POOLED)
    }

    /// What a start takes now.
    pub(super) fn cold(&self, pooled: bool) -> Duration {
        match pooled {
            true => self.pooled.mean().unwrap_or(POOLED),
            false => self.container.mean().unwrap_or(CONTAINER),
        }
    }
}

impl Member {
    /// Nobody needs it as it is now: no call, no debugger.
    pub(super) fn is_idle(&self) -> bool {
        self.in_use == 0 && self.debuggers == 0
    }

    /// Whether it could take one more call.
    pub(super) fn has_room(&self, concurrency: usize) -> bool {
        self.in_use < concurrency && !self.leaving && !self.instance.link.is_closed()
    }

    /// Its place among those that could take a call; the greatest gets it. A running instance goes before a
    /// frozen one, and the fullest among these, so that load gathers on few instances and the others can go.
    pub(super) fn place(&self) -> (bool, usize, Instant) {
        (!self.frozen, self.in_use, self.idle_since)
    }
}

impl State {
    pub(super) fn new(learnt: Learnt, bounds: Bounds) -> Self {
        Self {
            members: Vec::new(),
            line: VecDeque::new(),
            starting: 0,
            breaker: admit::Breaker::default(),
            retired: false,
            learnt,
            bounds,
            looking: false,
            returning: None,
            busy: 0,
            in_use: 0,
            leaving: 0,
            next_waiter: 0,
        }
    }

    /// Members with calls.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Calls in members.
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Members that may get calls.
    pub(super) fn staying(&self) -> usize {
        self.members.len() - self.leaving
    }

    /// A member gets no more calls.
    pub(super) fn set_leaving(&mut self, at: usize) {
        self.leaving += usize::from(!std::mem::replace(&mut self.members[at].leaving, true));
    }

    /// Instances that are there and stay, or are on their way.
    pub(super) fn held(&self) -> usize {
        self.staying() + self.starting
    }

    /// Nothing is there or on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.line.is_empty() && self.starting == 0
    }

    /// A call joins the line.
    pub(super) fn line_up(&mut self, send: oneshot::Sender<Result<Slot, CallError>>) -> u64 {
        self.next_waiter += 1;
        self.line.push_back(Waiter { number: self.next_waiter, send });
        self.next_waiter
    }

    pub(super) fn position(&self, id: InstanceId) -> Option<usize> {
        self.members.iter().position(|m| m.instance.id == id)
    }

    /// A member without calls joins.
    pub(super) fn add(&mut self, instance: Arc<Instance>, judge_at: Instant, used_at: f64, now: Instant) {
        let idle_since = now;
        let (in_use, debuggers, frozen, leaving, watched) = (0, 0, false, false, false);
        self.members.push(Member {
            instance,
            in_use,
            debuggers,
            frozen,
            leaving,
            idle_since,
            watched,
            judge_at,
            used_at,
        });
    }

    /// Takes a member out, with its calls if it has any.
    pub(super) fn take_out(&mut self, at: usize) -> Member {
        let member = self.members.swap_remove(at);
        self.busy -= usize::from(member.in_use > 0);
        self.in_use -= member.in_use;
        self.leaving -= usize::from(member.leaving);
        member
    }

    /// Takes a slot of the member whose turn it is.
    pub(super) fn free_slot(&mut self, concurrency: usize, now: Instant) -> Option<Grant> {
        let member = self.members.iter_mut().filter(|m| m.has_room(concurrency)).max_by_key(|m| m.place())?;
        self.busy += usize::from(member.in_use == 0);
        self.in_use += 1;
        member.in_use += 1;
        member.instance.count_call();
        // The flag stays until somebody has really sent the thaw: each call until then does it first.
        Some(Grant { instance: member.instance.clone(), thaw: member.frozen, cold: None, at: now })
    }

    /// A member's call ended.
    pub(super) fn give_back(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.in_use > 0 {
            member.in_use -= 1;
            self.in_use -= 1;
            self.busy -= usize::from(member.in_use == 0);
        }
    }
}
