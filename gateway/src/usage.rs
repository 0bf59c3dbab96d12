//! Counters of each function since they were last reported: the corridor adds to atomics, and the recorder's loop
//! takes the sums. However many calls there are between two reports, they take no room and none is lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use davit_api::{ColdPhases, FunctionId};
use davit_registry::UsageDelta;
use parking_lot::{Mutex, RwLock};

/// One function's counters.
#[derive(Debug, Default)]
pub struct Usage {
    calls: AtomicU64,
    errors: AtomicU64,
    cold_starts: AtomicU64,
    /// Unix milliseconds of the last call's end; 0 when there was none.
    last_call: AtomicI64,
    /// The last cold start. Warm calls do not touch it.
    last_cold: Mutex<Option<ColdPhases>>,
}

impl Usage {
    /// A call ended. `cold`: where its time went, if an instance was started for it.
    pub fn note(&self, failed: bool, cold: Option<ColdPhases>, ended_at: DateTime<Utc>) {
        if failed {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if cold.is_some() {
            self.cold_starts.fetch_add(1, Ordering::Relaxed);
            *self.last_cold.lock() = cold;
        }
        self.last_call.store(ended_at.timestamp_millis(), Ordering::Relaxed);
        // Last, and seen last by `take`: what is counted has been described.
        self.calls.fetch_add(1, Ordering::Release);
    }

    /// What was counted since the last time; `None` when nothing was.
    fn take(&self, function_id: FunctionId) -> Option<UsageDelta> {
        let calls = self.calls.swap(0, Ordering::Acquire);
        if calls == 0 {
            return None;
        }
        let last_cold = self.last_cold.lock().take();
        Some(UsageDelta {
            function_id,
            calls,
            errors: self.errors.swap(0, Ordering::Relaxed),
            cold_starts: self.cold_starts.swap(0, Ordering::Relaxed),
            last_call_at: DateTime::from_timestamp_millis(self.last_call.load(Ordering::Relaxed)),
            last_cold_ms: last_cold.map(|cold| cold.start_ms()),
            last_cold,
        })
    }
}

/// The counters of all functions that are called; cheap to clone.
#[derive(Clone, Default)]
pub struct Usages(Arc<RwLock<HashMap<FunctionId, Arc<Usage>>>>);

impl Usages {
    /// The counters of a function; a fleet keeps them as long as it lives.
    pub fn of(&self, function_id: FunctionId) -> Arc<Usage> {
        if let Some(usage) = self.0.read().get(&function_id) {
            return usage.clone();
        }
        self.0.write().entry(function_id).or_default().clone()
    }

    /// Adds what was counted since the last time to `into`, and forgets counters that nobody uses any more.
    pub fn take(&self, into: &mut HashMap<FunctionId, UsageDelta>) {
        let mut unused = false;
        for (id, usage) in self.0.read().iter() {
            unused |= Arc::strong_count(usage) == 1;
            if let Some(delta) = usage.take(*id) {
                fold(into, delta);
            }
        }
        if unused {
            let mut all = self.0.write();
            all.retain(|id, usage| {
                if Arc::strong_count(usage) > 1 {
                    return true;
                }
                // A call may have ended since the look above.
                if let Some(delta) = usage.take(*id) {
                    fold(into, delta);
                }
                false
            });
        }
    }
}

fn fold(into: &mut HashMap<FunctionId, UsageDelta>, new: UsageDelta) {
    match into.get_mut(&new.function_id) {
        None => drop(into.insert(new.function_id, new)),
        Some(sum) => {
            sum.calls += new.calls;
            sum.errors += new.errors;
            sum.cold_starts += new.cold_starts;
            sum.last_call_at = sum.last_call_at.max(new.last_call_at);
            sum.last_cold_ms = new.last_cold_ms.or(sum.last_cold_ms);
            sum.last_cold = new.last_cold.or(sum.last_cold);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_once_and_added_up() {
        let usages = Usages::default();
        let id = FunctionId::new();
        let usage = usages.of(id);
        let mut sum = HashMap::new();
        let cold =
            ColdPhases { wait_ms: 7.0, claim_ms: 0.5, transfer_ms: 2.0, load_ms: 10.0, first_byte_ms: 1.0 };
        for n in 0..10 {
            usage.note(n % 2 == 0, (n == 0).then_some(cold), Utc::now());
            usages.take(&mut sum);
        }
        usages.take(&mut sum);
        let sum = &sum[&id];
        assert_eq!((sum.calls, sum.errors, sum.cold_starts, sum.last_cold_ms), (10, 5, 1, Some(12.5)));
        assert!(sum.last_call_at.is_some() && sum.last_cold == Some(cold));
    }

    #[test]
    fn counters_that_nobody_uses_are_forgotten_with_their_last_counts_taken() {
        let usages = Usages::default();
        let usage = usages.of(FunctionId::new());
        usage.note(false, None, Utc::now());
        drop(usage);
        let mut sum = HashMap::new();
        usages.take(&mut sum);
        assert_eq!((sum.len(), usages.0.read().len()), (1, 0));
    }

    #[test]
    fn nothing_is_lost_while_others_count() {
        let usages = Usages::default();
        let id = FunctionId::new();
        let mut sum = HashMap::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let usage = usages.of(id);
                scope.spawn(move || (0..10_000).for_each(|_| usage.note(false, None, Utc::now())));
            }
            for _ in 0..100 {
                usages.take(&mut sum);
            }
        });
        usages.take(&mut sum);
        assert_eq!(sum[&id].calls, 40_000);
    }
}
