//! Knative's autoscaler as its documentation and `pkg/autoscaler/scaling/autoscaler.go` (Apache-2.0, read, not
//! copied) describe it, with the published defaults: the yardstick for steps in the load.

use std::time::{Duration, Instant};

/// Time between two decisions.
pub(crate) const TICK: Duration = Duration::from_secs(2);
/// `stable-window`.
pub(crate) const STABLE: Duration = Duration::from_secs(60);
/// `panic-window-percentage` 10 of it.
pub(crate) const PANIC: Duration = Duration::from_secs(6);
/// `panic-threshold-percentage` 200.
const PANIC_THRESHOLD: f64 = 2.0;
/// `container-concurrency-target-percentage` 70, for instances that take one call at a time.
const TARGET: f64 = 0.7;
/// `max-scale-up-rate` and `max-scale-down-rate`.
const MAX_UP: f64 = 1_000.0;
const MAX_DOWN: f64 = 2.0;

/// Its state between two decisions.
#[derive(Default)]
pub(crate) struct Autoscaler {
    panicking_since: Option<Instant>,
    most_in_panic: usize,
}

impl Autoscaler {
    /// The wanted number of instances, from the average concurrency of both windows.
    pub(crate) fn desired(&mut self, stable: f64, panic: f64, ready: usize, now: Instant) -> usize {
        let ready = ready.max(1) as f64;
        let (up, down) = ((MAX_UP * ready).ceil(), (ready / MAX_DOWN).floor());
        let bounded = |average: f64| (average / TARGET).ceil().max(down).min(up) as usize;
        let (for_stable, for_panic) = (bounded(stable), bounded(panic));
        if (panic / TARGET).ceil() / ready >= PANIC_THRESHOLD {
            self.panicking_since = Some(now);
        } else if self.panicking_since.is_some_and(|since| now - since > STABLE) {
            (self.panicking_since, self.most_in_panic) = (None, 0);
        }
        if self.panicking_since.is_none() {
            return for_stable;
        }
        // In panic nothing is taken back.
        self.most_in_panic = self.most_in_panic.max(for_stable).max(for_panic);
        self.most_in_panic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_panics_on_a_step_and_does_not_shrink_in_panic() {
        let (mut scaler, now) = (Autoscaler::default(), Instant::now());
        assert_eq!(scaler.desired(0.7, 0.7, 1, now), 1);
        assert_eq!(scaler.desired(1.6, 7.3, 1, now + TICK), 11);
        assert_eq!(scaler.desired(1.0, 1.0, 11, now + 2 * TICK), 11);
        assert_eq!(scaler.desired(1.0, 1.0, 11, now + STABLE + 4 * TICK), 5, "half of them at a time");
    }
}
