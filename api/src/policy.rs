//! Retry policy as data that turns into delays.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often, and for how long, an asynchronous invocation is tried. Stamped on the invocation when it is
/// accepted, so a later change of the function does not change what was promised.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included; 1 to 100.
    pub max_attempts: u32,
    /// Delay before the second attempt, in seconds; each later one doubles. 0 to 3,600.
    pub base_delay_seconds: u32,
    /// Longest delay between two attempts, in seconds. 0 to 86,400.
    pub max_delay_seconds: u32,
    /// Age at which no further attempt starts, in seconds from acceptance; 1 to 604,800 (a week).
    pub max_age_seconds: u32,
}

impl Default for RetryPolicy {
    /// Three attempts, after one and two minutes, within six hours: what AWS Lambda promises for
    /// asynchronous invocations (developer guide, "Error handling for asynchronous invocation").
    fn default() -> Self {
        Self { max_attempts: 3, base_delay_seconds: 60, max_delay_seconds: 3_600, max_age_seconds: 21_600 }
    }
}

impl RetryPolicy {
    /// The delay after attempt `attempt` (1 is the first) failed, before any jitter.
    pub fn delay_after(&self, attempt: u32) -> Duration {
        let doubled =
            u64::from(self.base_delay_seconds).saturating_mul(1 << attempt.saturating_sub(1).min(32));
        Duration::from_secs(doubled.min(u64::from(self.max_delay_seconds)))
    }

    /// Checks the bounds; the error names the field.
    pub fn check(&self) -> Result<(), String> {
        let within = |field: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{field} must be {low} to {high}"))
            }
        };
        within("max_attempts", self.max_attempts, 1, 100)?;
        within("base_delay_seconds", self.base_delay_seconds, 0, 3_600)?;
        within("max_delay_seconds", self.max_delay_seconds, 0, 86_400)?;
        within("max_age_seconds", self.max_age_seconds, 1, 604_800)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_waits_one_then_two_minutes() {
        let policy = RetryPolicy::default();
        assert_eq!([1, 2].map(|n| policy.delay_after(n).as_secs()), [60, 120]);
    }

    proptest! {
        #[test]
        fn delays_never_shrink_and_never_pass_the_cap(base in 0u32..4000, cap in 0u32..90_000, n in 1u32..200) {
            let policy = RetryPolicy { base_delay_seconds: base, max_delay_seconds: cap, ..Default::default() };
            prop_assert!(policy.delay_after(n) <= policy.delay_after(n + 1));
            prop_assert!(policy.delay_after(n).as_secs() <= u64::from(cap));
        }
    }
}
