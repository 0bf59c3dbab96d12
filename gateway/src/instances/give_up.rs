//! Giving up memory: when a call somewhere waits for a start that finds no room, the idle instances that are worth
//! least go, in Greedy-Dual order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use davit_api::InstanceId;
use davit_scaling::keep_alive::{Candidate, GreedyDual, Worth};
use parking_lot::Mutex;

use crate::instances::{Fleet, Instances};

/// The order in which idle instances go. Its time is read at the end of every call, so it is not behind the lock.
#[derive(Default)]
pub(super) struct Eviction {
    order: Mutex<GreedyDual>,
    clock: AtomicU64,
}

impl Eviction {
    /// The order's time.
    pub(super) fn now(&self) -> f64 {
        f64::from_bits(self.clock.load(Ordering::Relaxed))
    }

    fn choose(&self, candidates: &[Candidate], need_mb: u64) -> Vec<usize> {
        let mut order = self.order.lock();
        let chosen = order.evict(candidates, need_mb);
        self.clock.store(order.clock().to_bits(), Ordering::Relaxed);
        chosen
    }
}

impl Instances {
    /// Lets idle instances go until so many MiB are free; nothing when all of them together would not do. Answers
    /// how much that was: an instance that got a call in this moment stays.
    pub fn give_up(&self, need_mb: u64) -> u64 {
        let fleets: Vec<Arc<Fleet>> = self.fleets.read().values().cloned().collect();
        let mut idle = Vec::new();
        for fleet in fleets {
            idle.extend(fleet.could_go().into_iter().map(|(id, candidate)| (fleet.clone(), id, candidate)));
        }
        let candidates: Vec<Candidate> = idle.iter().map(|(_, _, candidate)| *candidate).collect();
        let chosen = self.shared.eviction.choose(&candidates, need_mb);
        let freed = chosen.into_iter().filter(|at| idle[*at].0.let_go(idle[*at].1));
        freed.map(|at| u64::from(candidates[at].memory_mb)).sum()
    }
}

impl Fleet {
    /// Its idle instances, but for as many as it must keep, with their places in the order.
    fn could_go(&self) -> Vec<(InstanceId, Candidate)> {
        let spec = &self.version.spec;
        let state = self.state.lock();
        let worth = Worth {
            calls: state.learnt.pilot.calls(),
            cold: state.learnt.usual(),
            memory_mb: spec.memory_mb,
        };
        let mut idle: Vec<_> = state.members.iter().filter(|m| m.is_idle()).collect();
        // Those that would get a call first are those that are kept.
        idle.sort_by_key(|m| m.place());
        let spare = state.members.len().saturating_sub(state.bounds.least);
        let place = |used_at| Candidate { priority: worth.priority(used_at), memory_mb: spec.memory_mb };
        idle.into_iter().take(spare).map(|m| (m.instance.id, place(m.used_at))).collect()
    }

    /// Lets an instance go, unless it has a call.
    fn let_go(&self, id: InstanceId) -> bool {
        let gone = {
            let mut state = self.state.lock();
            let at = state.position(id).filter(|at| state.members[*at].is_idle());
            at.map(|at| state.take_out(at))
        };
        let went = gone.is_some();
        if let Some(member) = gone {
            self.shared.metrics.given_up.add(1);
            self.shared.released(&member.instance, "a waiting call needed its memory");
        }
        went
    }
}
