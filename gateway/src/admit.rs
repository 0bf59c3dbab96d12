//! Who may wait, how many, and what those are told who may not. Pure decisions; `instances/fleet.rs` carries
//! them out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use davit_api::{ApiError, ErrorCode, VersionSpec};

use crate::invoke::CallError;
use crate::version::LiveVersion;

/// Longest line of a version: enough to keep all its instances busy a few times over, never more than `most`.
pub fn line_bound(spec: &VersionSpec, most: usize) -> usize {
    let slots = spec.concurrency as usize * spec.max_instances as usize;
    slots.saturating_mul(4).clamp(64.min(most), most)
}

/// This part of its time budget a call must have left when it gets a slot that it waited for.
const LEFT_TO_RUN: u32 = 20;

/// Until when a call that has to be done by `deadline` waits for a slot. One that came later would leave the function
/// too little of its time, and the function would be blamed for it. Nobody waits longer than `timeout`, which is what a call has
/// that somebody waits for: an asynchronous one that may run for hours is put back into the queue instead.
pub fn latest(now: Instant, deadline: Instant, timeout: Duration) -> Instant {
    let left = deadline.saturating_duration_since(now).min(timeout);
    now + (left - left / LEFT_TO_RUN)
}

/// What a call is told that finds the line full.
pub fn line_full(version: &LiveVersion) -> ApiError {
    ApiError::new(
        ErrorCode::TooManyRequests,
        format!(
            "{}/{}: all {} instances are busy and the waiting line is full",
            version.namespace, version.function, version.spec.max_instances
        ),
    )
}

/// What a call is told whose budget ended in the line; `obstacle`: why no instance came, where that is known.
pub fn no_capacity(version: &LiveVersion, obstacle: Option<&str>) -> ApiError {
    let why = obstacle.map(|why| format!(": {why}")).unwrap_or_default();
    ApiError::new(
        ErrorCode::NoCapacity,
        format!(
            "{}/{}: no instance became free or ready within {} s{why}",
            version.namespace, version.function, version.spec.timeout_seconds
        ),
    )
}

/// Stops starting a version that fails at its start, for a while that doubles.
#[derive(Default)]
pub struct Breaker {
    failures: u32,
    until: Option<(Instant, CallError)>,
}

/// Failures in a row that are taken for bad luck.
const PATIENCE: u32 = 3;
/// First pause; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Breaker {
    /// A start failed; true when starting pauses now.
    pub fn failed(&mut self, error: &CallError, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures < PATIENCE {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - PATIENCE).min(16)).min(LONGEST_PAUSE);
        self.until = Some((now + pause, error.clone()));
        true
    }
    /// A start worked.
    pub fn worked(&mut self) {
        *self = Self::default();
    }
    /// The error that new calls get while starting pauses.
    pub fn refuses(&self, now: Instant) -> Option<CallError> {
        self.until.as_ref().filter(|(until, _)| now < *until).map(|(_, error)| error.clone())
    }
}

/// Bytes of event bodies that are held in memory, over all calls, with a bound.
pub struct Parked {
    used: AtomicUsize,
    most: usize,
}

/// Bytes counted in [`Parked`]; given back when dropped.
pub struct ParkedBytes<'a> {
    parked: &'a Parked,
    bytes: usize,
}

impl Parked {
    /// Room for this many bytes.
    pub fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }
    /// Takes room for a body, or says that there is none.
    pub fn take(&self, bytes: usize) -> Result<ParkedBytes<'_>, ApiError> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Counted before it is judged: whichever way this goes, dropping gives it back.
        let held = ParkedBytes { parked: self, bytes };
        if used > self.most {
            return Err(ApiError::new(
                ErrorCode::Unavailable,
                "too many request bodies are waiting; try again",
            ));
        }
        Ok(held)
    }
    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for ParkedBytes<'_> {
    fn drop(&mut self) {
        self.parked.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_api::{FunctionKind, RuntimeName};
    use proptest::prelude::*;

    fn error() -> CallError {
        CallError::refused(ApiError::new(ErrorCode::FunctionInitFailed, "no"))
    }

    #[test]
    fn starting_pauses_after_three_failures_and_one_success_forgives() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert!(!breaker.failed(&error(), now) && !breaker.failed(&error(), now));
        assert!(breaker.refuses(now).is_none());
        assert!(breaker.failed(&error(), now));
        assert!(breaker.refuses(now).is_some());
        assert!(breaker.refuses(now + FIRST_PAUSE).is_none(), "one more try after the pause");
        breaker.worked();
        assert!(!breaker.failed(&error(), now));
    }

    #[test]
    fn parked_bytes_come_back_even_when_refused() {
        let parked = Parked::new(10);
        let held = parked.take(8).unwrap();
        assert!(parked.take(3).is_err());
        assert_eq!(parked.used(), 8);
        drop(held);
        assert_eq!(parked.used(), 0);
    }

    proptest! {
        #[test]
        fn the_line_is_bounded_and_never_empty(concurrency in 1u32..1000, instances in 1u32..1000, most in 1usize..5000) {
            let mut spec = VersionSpec::new("provided".parse::<RuntimeName>().unwrap(), FunctionKind::Handler);
            (spec.concurrency, spec.max_instances) = (concurrency, instances);
            let bound = line_bound(&spec, most);
            prop_assert!(bound >= 1 && bound <= most);
        }

        #[test]
        fn waiting_leaves_time_to_run_and_never_takes_longer_than_a_call_that_is_waited_for(
            left in 0u64..43_200_000, timeout in 1u64..=900,
        ) {
            let (now, timeout) = (Instant::now(), Duration::from_secs(timeout));
            let deadline = now + Duration::from_millis(left);
            let latest = latest(now, deadline, timeout);
            prop_assert!(latest >= now && latest <= deadline && latest <= now + timeout);
            // Whoever has time left has time to wait, however long others of the function may take.
            prop_assert!(left == 0 || latest > now);
            prop_assert!(deadline - latest >= Duration::from_millis(left).min(timeout) / LEFT_TO_RUN);
        }

        #[test]
        fn pauses_are_bounded(n in 3u32..10_000) {
            let (mut breaker, now) = (Breaker { failures: n, until: None }, Instant::now());
            breaker.failed(&error(), now);
            prop_assert!(breaker.refuses(now + LONGEST_PAUSE).is_none());
        }
    }
}
