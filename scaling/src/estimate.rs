//! A running estimate of how long calls take. The fleet notes every call that ends; `scale_out` asks.

use std::time::Duration;

/// Weight of a new value in the mean, and in the deviation: those of TCP's round-trip estimate (RFC 6298, 2.3),
/// which has the same task: follow a drifting time from a few samples, at constant cost.
const MEAN_WEIGHT: f64 = 1.0 / 8.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;

/// Mean and mean deviation of a time, weighted towards the latest values. Two numbers of state.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    mean: f64,
    deviation: f64,
    seen: bool,
}

impl Estimate {
    /// Takes a value in.
    pub fn note(&mut self, value: Duration) {
        let value = value.as_secs_f64();
        if !self.seen {
            *self = Self { mean: value, deviation: value / 2.0, seen: true };
            return;
        }
        self.deviation += DEVIATION_WEIGHT * ((value - self.mean).abs() - self.deviation);
        self.mean += MEAN_WEIGHT * (value - self.mean);
    }

    /// The mean; `None` before the first value.
    pub fn mean(&self) -> Option<Duration> {
        self.seen.then(|| Duration::from_secs_f64(self.mean.max(0.0)))
    }

    /// Mean and one mean deviation: what a caller should be prepared for.
    pub fn upper(&self) -> Option<Duration> {
        self.seen.then(|| Duration::from_secs_f64((self.mean + self.deviation).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_follows_a_change_within_a_few_dozen_calls() {
        let mut time = Estimate::default();
        assert_eq!(time.mean(), None);
        (0..50).for_each(|_| time.note(Duration::from_millis(10)));
        (0..50).for_each(|_| time.note(Duration::from_millis(100)));
        let mean = time.mean().unwrap().as_millis();
        assert!((95..=100).contains(&mean), "{mean}");
    }

    proptest! {
        #[test]
        fn it_stays_within_what_it_saw(values in prop::collection::vec(0u64..1_000_000, 1..50)) {
            let mut time = Estimate::default();
            values.iter().for_each(|v| time.note(Duration::from_micros(*v)));
            let (low, high) = (values.iter().min().unwrap(), values.iter().max().unwrap());
            let mean = time.mean().unwrap().as_secs_f64() * 1e6;
            prop_assert!(mean >= *low as f64 - 1.0 && mean <= *high as f64 + 1.0);
            prop_assert!(time.upper() >= time.mean());
        }
    }
}
