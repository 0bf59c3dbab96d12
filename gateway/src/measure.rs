//! What is counted of the two versions of a canary: the corridor adds to atomics, the recorder's loop takes the sums. Of
//! all other versions one flag is read and nothing is counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use davit_api::{CanaryId, ErrorCode, ErrorSource, VersionId, latency};
use davit_registry::{CanaryCounts, CanaryDelta};
use parking_lot::Mutex;

/// A canary and its step.
type Step = (CanaryId, u32);

/// One version's counters.
#[derive(Debug, Default)]
pub struct Measure {
    watched: AtomicBool,
    counters: OnceLock<Box<Counters>>,
}

#[derive(Debug)]
struct Counters {
    calls: AtomicU64,
    errors: AtomicU64,
    platform_errors: AtomicU64,
    latency: [AtomicU64; latency::BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            calls: AtomicU64::default(),
            errors: AtomicU64::default(),
            platform_errors: AtomicU64::default(),
            latency: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

impl Measure {
    fn counters(&self) -> Option<&Counters> {
        self.watched.load(Ordering::Relaxed).then(|| &**self.counters.get_or_init(Box::default))
    }

    /// A call ended, after so many milliseconds in an instance if it got that far.
    pub fn note(&self, failed: Option<ErrorCode>, run_ms: Option<f64>) {
        let Some(counters) = self.counters() else { return };
        match failed.map(ErrorCode::source) {
            // No place to run, or an instance that was lost: that says nothing about the version's code.
            Some(ErrorSource::Platform | ErrorSource::Client) => {
                counters.platform_errors.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(ErrorSource::Function) => drop(counters.errors.fetch_add(1, Ordering::Relaxed)),
            None => {}
        }
        counters.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(ms) = run_ms {
            counters.latency[latency::bucket(ms)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A call that is or will be noted as ended well was answered with a status from 500 on.
    pub fn fault(&self) {
        if let Some(counters) = self.counters() {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted since the last time.
    fn take(&self) -> CanaryCounts {
        let Some(counters) = self.counters.get() else { return CanaryCounts::default() };
        let take = |number: &AtomicU64| number.swap(0, Ordering::Relaxed);
        CanaryCounts {
            calls: take(&counters.calls),
            errors: take(&counters.errors),
            platform_errors: take(&counters.platform_errors),
            latency: counters.latency.iter().map(take).collect(),
        }
    }
}

/// The counters of all versions that are called; cheap to clone.
#[derive(Clone, Default)]
pub struct Measures(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    versions: HashMap<VersionId, Arc<Measure>>,
    watched: HashMap<VersionId, Step>,
    /// Counted in steps that have ended since.
    ended: Vec<CanaryDelta>,
}

impl Measures {
    /// The counters of a version; a fleet keeps them as long as it lives.
    pub fn of(&self, version: VersionId) -> Arc<Measure> {
        let mut all = self.0.lock();
        let watched = all.watched.contains_key(&version);
        let measure = all.versions.entry(version).or_default();
        measure.watched.store(watched, Ordering::Relaxed);
        measure.clone()
    }

    /// [`Measure::fault`] of a version.
    pub fn fault(&self, version: VersionId) {
        let measure = self.0.lock().versions.get(&version).cloned();
        if let Some(measure) = measure {
            measure.fault();
        }
    }

    /// Says which versions are to be counted, and for which step. What was counted so far belongs to the step before.
    pub fn watch(&self, wanted: HashMap<VersionId, Step>) {
        let mut all = self.0.lock();
        if all.watched == wanted {
            return;
        }
        let All { versions, watched, ended } = &mut *all;
        for (version, measure) in versions.iter() {
            let (before, now) = (watched.get(version), wanted.get(version));
            if before == now {
                continue;
            }
            if let Some(&(canary, step)) = before {
                ended.extend(delta(*version, canary, step, measure.take()));
            }
            measure.watched.store(now.is_some(), Ordering::Relaxed);
        }
        *watched = wanted;
    }

    /// What was counted since the last time; forgets counters that nobody uses any more.
    pub fn take(&self) -> Vec<CanaryDelta> {
        let mut all = self.0.lock();
        let All { versions, watched, ended } = &mut *all;
        let mut deltas = std::mem::take(ended);
        for (version, &(canary, step)) in watched.iter() {
            if let Some(measure) = versions.get(version) {
                deltas.extend(delta(*version, canary, step, measure.take()));
            }
        }
        versions.retain(|version, measure| watched.contains_key(version) || Arc::strong_count(measure) > 1);
        deltas
    }
}

fn delta(version: VersionId, canary: CanaryId, step: u32, counts: CanaryCounts) -> Option<CanaryDelta> {
    let some = counts.calls + counts.errors + counts.platform_errors > 0;
    some.then_some(CanaryDelta { canary, step, version, counts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_canary_is_about_is_counted_and_each_step_for_itself() {
        let measures = Measures::default();
        let (one, two, canary) = (VersionId::new(), VersionId::new(), CanaryId::new());
        let (old, new) = (measures.of(one), measures.of(two));
        new.note(None, Some(1.0));
        assert!(measures.take().is_empty(), "before the canary began");
        let watch = |step| measures.watch(HashMap::from([(one, (canary, step)), (two, (canary, step))]));
        watch(0);
        new.note(Some(ErrorCode::FunctionError), Some(10.0));
        new.note(Some(ErrorCode::NoCapacity), None);
        new.note(None, Some(10.0));
        measures.fault(two);
        watch(1);
        new.note(None, Some(20.0));
        old.note(Some(ErrorCode::TooManyRequests), None);
        let mut taken = measures.take();
        taken.sort_by_key(|d| (d.step, d.version));
        let seen: Vec<_> = taken
            .iter()
            .map(|d| (d.step, d.version, d.counts.calls, d.counts.errors, d.counts.platform_errors))
            .collect();
        assert_eq!(seen, [(0, two, 2, 2, 1), (1, one, 0, 0, 1), (1, two, 1, 0, 0)]);
        assert_eq!(taken[0].counts.latency[latency::bucket(10.0)], 2);
        measures.watch(HashMap::new());
        new.note(None, None);
        assert!(measures.take().is_empty());
        drop((old, new));
        measures.take();
        assert!(measures.0.lock().versions.is_empty());
    }
}
