//! Outcome × attempt × policy × age → done, once more after a delay, or dead. Pure; `mod.rs` carries it out.

use std::time::Duration;

use davit_api::{ErrorCode, RetryPolicy};

/// Longest delay before a call that found no place is tried again. Whatever was in its way may be mended by then, and
/// nobody tells it; looking once a minute costs little.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A function that the routes do not know may be one that they do not know *yet*: this often it is looked for.
const LOOKS: u32 = 6;
/// Longest time that another side can ask for: a mistake there must not become a loss here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
/// How much of a delay is left to chance, so that jobs that failed together do not come back together.
const JITTER: f64 = 0.2;

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It succeeded.
    Done,
    /// Once more.
    Retry {
        /// So much later.
        delay: Duration,
        /// Whether this attempt was one of those that were promised.
        counts: bool,
    },
    /// It failed and is not tried again.
    Dead,
}

/// An attempt that ended.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Which one of those that count; 1 is the first.
    pub number: u32,
    /// Attempts before it that found no place to run.
    pub excused: u32,
    /// Time since the invocation was accepted.
    pub age: Duration,
    /// Why it failed; none if it did not.
    pub error: Option<ErrorCode>,
    /// How long the other side asked to be left alone (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// A number from 0 to 1, drawn by chance.
    pub chance: f64,
}

/// Whether an attempt may start at all at this age.
pub fn too_old(policy: &RetryPolicy, age: Duration) -> bool {
    age >= Duration::from_secs(policy.max_age_seconds.into())
}

/// Decides.
pub fn classify(attempt: Attempt, policy: &RetryPolicy) -> Verdict {
    let Some(code) = attempt.error else { return Verdict::Done };
    let (delay, counts) = match blame(code) {
        Blame::Work if attempt.number < policy.max_attempts => (policy.delay_after(attempt.number), true),
        Blame::Place => (waiting(attempt.excused + 1), false),
        Blame::Unknown if attempt.excused + 1 < LOOKS => (waiting(attempt.excused + 1), false),
        Blame::Work | Blame::Unknown | Blame::Request => return Verdict::Dead,
    };
    let delay = delay.mul_f64(1.0 - JITTER * attempt.chance.clamp(0.0, 1.0));
    // Only ever later than by the policy: nobody can be made to hurry.
    let delay = delay.max(attempt.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER));
    if too_old(policy, attempt.age.saturating_add(delay)) {
        Verdict::Dead
    } else {
        Verdict::Retry { delay, counts }
    }
}

/// One second, doubling.
fn waiting(times: u32) -> Duration {
    Duration::from_secs(1 << times.saturating_sub(1).min(16)).min(LONGEST_WAIT)
}

enum Blame {
    /// The function ran, or may have: the promised number of attempts counts.
    Work,
    /// There was no place to run it: only its age counts.
    Place,
    /// The function is not known here.
    Unknown,
    /// It can never succeed.
    Request,
}

fn blame(code: ErrorCode) -> Blame {
    use ErrorCode::*;
    match code {
        FunctionError
        | FunctionExited
        | FunctionOutOfMemory
        | FunctionInitFailed
        | FunctionBadResponse
        | FunctionResponseTooLarge
        | FunctionTimeout
        | InstanceLost
        | DeliveryFailed
        | Internal => Blame::Work,
        TooManyRequests | RateLimited | NoCapacity | Unavailable => Blame::Place,
        NotFound | Conflict => Blame::Unknown,
        InvalidRequest | Unauthenticated | Forbidden | MethodNotAllowed | TooLarge | UnsupportedMediaType
        | Unprocessable | LoopDetected | HeadersTooLarge | DeliveryRefused => Blame::Request,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(code: ErrorCode, number: u32, excused: u32, age: u64) -> Verdict {
        let age = Duration::from_secs(age);
        let attempt = Attempt { number, excused, age, error: Some(code), retry_after: None, chance: 0.0 };
        classify(attempt, &RetryPolicy::default())
    }
    fn retry(seconds: u64, counts: bool) -> Verdict {
        Verdict::Retry { delay: Duration::from_secs(seconds), counts }
    }

    #[test]
    fn a_failing_function_gets_the_promised_attempts() {
        assert_eq!(verdict(ErrorCode::FunctionError, 1, 0, 0), retry(60, true));
        assert_eq!(verdict(ErrorCode::FunctionTimeout, 2, 0, 70), retry(120, true));
        assert_eq!(verdict(ErrorCode::FunctionError, 3, 0, 200), Verdict::Dead);
        assert_eq!(verdict(ErrorCode::FunctionError, 1, 9, 200), retry(60, true), "the others did not run");
    }

    #[test]
    fn having_no_place_costs_time_but_no_attempts() {
        assert_eq!(verdict(ErrorCode::NoCapacity, 3, 0, 0), retry(1, false));
        assert_eq!(verdict(ErrorCode::NoCapacity, 1, 50, 4_000), retry(LONGEST_WAIT.as_secs(), false));
        assert_eq!(verdict(ErrorCode::NoCapacity, 1, 50, 21_550), Verdict::Dead);
    }

    #[test]
    fn what_can_never_succeed_is_not_tried_again() {
        assert_eq!(verdict(ErrorCode::TooLarge, 1, 0, 0), Verdict::Dead);
        assert_eq!(verdict(ErrorCode::NotFound, 1, LOOKS, 40), Verdict::Dead);
    }

    proptest! {
        #[test]
        fn every_outcome_ends_within_the_age_and_never_waits_too_long(
            code in prop::sample::select(ErrorCode::ALL), number in 1u32..10_000, excused in 0u32..10_000, age in 0u64..1_000_000, chance in -1.0f64..2.0,
            max_attempts in 1u32..=100, base_delay_seconds in 0u32..=3_600, max_delay_seconds in 0u32..=86_400,
            max_age_seconds in 1u32..=604_800, retry_after in prop::option::of(0u64..10_000),
        ) {
            let policy = RetryPolicy { max_attempts, base_delay_seconds, max_delay_seconds, max_age_seconds };
            let age = Duration::from_secs(age);
            let retry_after = retry_after.map(Duration::from_secs);
            match classify(Attempt { number, excused, age, error: Some(code), retry_after, chance }, &policy) {
                Verdict::Done => prop_assert!(false, "a failure is no success"),
                Verdict::Retry { delay, .. } => {
                    prop_assert!(!too_old(&policy, age + delay));
                    prop_assert!(delay >= retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER));
                    prop_assert!(delay <= policy.delay_after(number).max(LONGEST_WAIT).max(retry_after.unwrap_or_default()));
                }
                Verdict::Dead => {}
            }
        }

        #[test]
        fn success_is_done_whatever_else(number in 1u32..10_000, age in 0u64..1_000_000) {
            let attempt = Attempt { number, excused: 0, age: Duration::from_secs(age), error: None, retry_after: None, chance: 0.5 };
            prop_assert_eq!(classify(attempt, &RetryPolicy::default()), Verdict::Done);
        }
    }
}
