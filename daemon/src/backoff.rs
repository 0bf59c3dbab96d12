//! Delays between attempts: doubling, capped, and with jitter, so that many processes which lost the same
//! database do not come back at the same instant.

use std::time::Duration;

/// An endless iterator of delays.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    step: u32,
}

impl Backoff {
    /// Delays that start at `base` and never pass `max`.
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, step: 0 }
    }

    /// Starts again from `base`, after a success.
    pub fn reset(&mut self) {
        self.step = 0;
    }

    /// The next delay: between half and all of the doubled base.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.base.saturating_mul(1 << self.step.min(20)).min(self.max);
        self.step = self.step.saturating_add(1);
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Sleeps for the next delay.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

impl Iterator for Backoff {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(self.next_delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_within_bounds_for_ever() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for (n, delay) in backoff.by_ref().take(200).enumerate() {
            assert!(delay <= Duration::from_secs(5), "{n}: {delay:?}");
            assert!(delay >= Duration::from_millis(50), "{n}: {delay:?}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
