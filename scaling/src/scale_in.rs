//! How many instances the load of the last minute wants: a floor under what [`crate::keep_alive`] may let go,
//! so that a pause of a second in a busy hour costs nobody an instance.

use std::time::{Duration, Instant};

/// Buckets of one second.
const BUCKETS: usize = 60;
/// The long look back: what is normal now. And the short one: what has just begun. Those of Knative's
/// autoscaler (`stable-window`, and its panic window of a tenth).
const LONG: usize = 60;
const SHORT: usize = 6;
/// Slots of an instance that the floor counts on. All of them: what a burst needs beyond the average is kept by
/// its own history, level by level, and a margin here would be held even where it is never of use (in the
/// simulation, a target of 70 % rounded up cost 7 % more cold starts at equal memory).
const TARGET: f64 = 1.0;

/// Calls that ran at a time, second by second, for a minute. Constant size.
#[derive(Debug, Clone)]
pub struct Load {
    /// Slot-seconds used in each second.
    used: [f32; BUCKETS],
    /// The second (since `start`) that the newest bucket stands for.
    second: u64,
    start: Instant,
    running: usize,
    since: Instant,
}

impl Load {
    /// No load yet.
    pub fn new(now: Instant) -> Self {
        Self { used: [0.0; BUCKETS], second: 0, start: now, running: 0, since: now }
    }

    /// From now on this many calls run.
    pub fn running(&mut self, running: usize, now: Instant) {
        self.account(now);
        self.running = running;
    }

    /// Books the time since the last change.
    fn account(&mut self, now: Instant) {
        let mut at = self.since.saturating_duration_since(self.start).as_secs_f64();
        let end = now.saturating_duration_since(self.start).as_secs_f64();
        // What lies further back than the window is of no interest.
        at = at.max(end - BUCKETS as f64);
        while self.second < end as u64 && self.second + (BUCKETS as u64) < end as u64 {
            self.second = end as u64 - BUCKETS as u64;
            self.used = [0.0; BUCKETS];
        }
        loop {
            let second = at as u64;
            while self.second < second {
                self.second += 1;
                self.used[(self.second as usize) % BUCKETS] = 0.0;
            }
            let stop = end.min((second + 1) as f64);
            if stop <= at {
                break;
            }
            self.used[(second as usize) % BUCKETS] += ((stop - at) * self.running as f64) as f32;
            at = stop;
        }
        self.since = self.since.max(now);
    }

    /// Calls at a time, on average over the last `seconds` (up to 60; the second that runs is part of it).
    pub fn average(&mut self, seconds: usize, now: Instant) -> f64 {
        self.account(now);
        let seconds = seconds.clamp(1, BUCKETS);
        let second = now.saturating_duration_since(self.start).as_secs() as usize;
        let known = seconds.min(second + 1);
        let sum: f64 = (0..known).map(|back| f64::from(self.used[(second - back) % BUCKETS])).sum();
        sum / seconds as f64
    }
}

/// What bounds the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls at a time in one instance.
    pub concurrency: usize,
    /// Instances that work now.
    pub busy: usize,
    /// Instances that are kept even when nobody calls.
    pub provisioned: usize,
    /// Most instances of the version.
    pub most: usize,
}

/// Instances that the recent load wants. Never less than work now, never less than are provisioned.
pub fn desired(load: &mut Load, limits: Limits, now: Instant) -> usize {
    let slots = limits.concurrency.max(1) as f64;
    let wanted = [LONG, SHORT].map(|seconds| load.average(seconds, now) / (slots * TARGET));
    let wanted = wanted.into_iter().fold(0.0, f64::max);
    // Rounded to the nearest: one short call a minute wants nothing, it is keep-alive's business.
    let wanted = wanted.round() as usize;
    wanted.min(limits.most).max(limits.provisioned).max(limits.busy)
}

/// The longest that [`desired`] remembers.
pub const MEMORY: Duration = Duration::from_secs(BUCKETS as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: Limits = Limits { concurrency: 1, busy: 0, provisioned: 0, most: 100 };

    #[test]
    fn a_steady_load_wants_its_instances() {
        let start = Instant::now();
        let mut load = Load::new(start);
        load.running(7, start);
        let now = start + Duration::from_secs(90);
        assert_eq!(load.average(60, now).round() as usize, 7);
        assert_eq!(desired(&mut load, ONE, now), 7);
    }

    #[test]
    fn a_pause_of_a_second_changes_nothing_and_silence_leads_to_zero() {
        let start = Instant::now();
        let mut load = Load::new(start);
        load.running(7, start);
        let end = start + Duration::from_secs(90);
        load.running(0, end);
        assert_eq!(desired(&mut load, ONE, end + Duration::from_secs(1)), 7);
        assert_eq!(desired(&mut load, ONE, end + MEMORY + Duration::from_secs(1)), 0);
        assert_eq!(desired(&mut load, ONE, end + 100 * MEMORY), 0);
    }

    #[test]
    fn a_rare_short_call_wants_nothing() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let at = start + Duration::from_secs(100);
        load.running(1, at);
        load.running(0, at + Duration::from_millis(200));
        assert_eq!(desired(&mut load, ONE, at + Duration::from_secs(1)), 0);
    }

    proptest! {
        #[test]
        fn never_below_use_or_provision(
            steps in prop::collection::vec((0usize..50, 0u64..200_000), 0..60), provisioned in 0usize..5,
        ) {
            let start = Instant::now();
            let (mut load, mut now, mut high) = (Load::new(start), start, 0);
            for (running, wait) in steps {
                now += Duration::from_millis(wait);
                load.running(running, now);
                high = high.max(running);
                let limits = Limits { busy: running, provisioned, ..ONE };
                let wanted = desired(&mut load, limits, now);
                prop_assert!(wanted >= running && wanted >= provisioned);
                prop_assert!(load.average(60, now) <= high as f64 + 0.01);
            }
        }
    }
}
