//! How often an address may be called.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Requests in one period, and at once.
const REQUESTS: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// Length of a period in seconds.
const PER_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

/// Whose calls are counted together.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitBy {
    /// Those from one address; of IPv6, from one network of 64 bits, which is what one customer gets.
    #[default]
    Client,
    /// Those with one token of davit; callers without one are counted by their address.
    Token,
    /// Everybody's.
    All,
}

/// A limit on calls: so many in a period on average, and so many at once.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Calls in each period: 1 to 1000000.
    #[schemars(range(min = 1, max = 1000000))]
    pub requests: u32,
    /// Length of the period in seconds: 1 to 86400. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 86400))]
    pub per_seconds: u32,
    /// Calls that may come at once after a pause: 1 to 1000000. Default: `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub burst: Option<u32>,
    /// Whose calls are counted together: `client` (one address; the default), `token` (one token of davit) or `all`.
    #[serde(default)]
    pub by: RateLimitBy,
}

fn one() -> u32 {
    1
}

impl RateLimit {
    /// Calls that may come at once after a pause.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.requests)
    }

    /// The time in which one more call becomes possible.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.per_seconds.into()) / self.requests.max(1)
    }

    /// The field that is wrong, and what about it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, value, range) in [
            ("requests", self.requests, REQUESTS),
            ("per_seconds", self.per_seconds, PER_SECONDS),
            ("burst", self.burst(), REQUESTS),
        ] {
            if !range.contains(&value) {
                return Err((field, format!("must be {} to {}, not {value}", range.start(), range.end())));
            }
        }
        Ok(())
    }
}
