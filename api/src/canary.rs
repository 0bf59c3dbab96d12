//! Canaries: `live` goes over to another version in steps, and back at once when that version does worse than allowed.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiError, CanaryId, limits};

/// How a canary goes on, and what ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanarySpec {
    /// Calls of a hundred that the new version gets in each step, rising, 1 to 99. After the last it gets all.
    pub steps: Vec<u32>,
    /// How long each step lasts at least, in seconds.
    #[serde(default = "interval")]
    pub interval_seconds: u32,
    /// Most calls of a hundred that may fail through the function's own fault.
    #[serde(default = "errors")]
    pub max_error_percent: f64,
    /// The longest that calls may run, such as `p95:1.2x` (1.2 times the old version's 95th percentile in the same step)
    /// or `p95:250ms`. Waiting for an instance and its cold start are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "p95:1.2x")]
    pub max_latency: Option<LatencyLimit>,
    /// Calls of the new version in a step before it is judged, and without which no step ends.
    #[serde(default = "min_calls")]
    pub min_calls: u32,
}

fn interval() -> u32 {
    120
}
fn errors() -> f64 {
    5.0
}
fn min_calls() -> u32 {
    50
}

impl CanarySpec {
    /// These steps, and for the rest the defaults.
    pub fn new(steps: Vec<u32>) -> Self {
        Self {
            steps,
            interval_seconds: interval(),
            max_error_percent: errors(),
            max_latency: None,
            min_calls: min_calls(),
        }
    }

    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.steps.is_empty() || self.steps.len() > limits::CANARY_STEPS {
            return Err(ApiError::field("steps", format!("1 to {} of them", limits::CANARY_STEPS)));
        }
        if let Some(bad) = self.steps.iter().find(|s| !(1..=99).contains(*s)) {
            return Err(ApiError::field("steps", format!("1 to 99 per cent each, not {bad}")));
        }
        if let Some(pair) = self.steps.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(ApiError::field("steps", format!("they rise: {} comes before {}", pair[0], pair[1])));
        }
        if !limits::CANARY_SECONDS.contains(&self.interval_seconds) {
            let (least, most) = (limits::CANARY_SECONDS.start(), limits::CANARY_SECONDS.end());
            let text = format!("{least} to {most}, not {}", self.interval_seconds);
            return Err(ApiError::field("interval_seconds", text));
        }
        if !(0.0..=100.0).contains(&self.max_error_percent) {
            let text = format!("0 to 100, not {}", self.max_error_percent);
            return Err(ApiError::field("max_error_percent", text));
        }
        if !(1..=1_000_000).contains(&self.min_calls) {
            return Err(ApiError::field("min_calls", format!("1 to 1000000, not {}", self.min_calls)));
        }
        Ok(())
    }
}

/// A bound on a quantile of how long calls run.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct LatencyLimit {
    /// Per cent of the calls, above 0 and below 100.
    pub percentile: f64,
    /// What they must not exceed.
    pub bound: LatencyBound,
}

/// What a quantile is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LatencyBound {
    /// So many times the old version's quantile.
    Times(f64),
    /// So many milliseconds.
    Ms(f64),
}

impl FromStr for LatencyLimit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let rule = "write a percentile and a bound, such as p95:1.2x, p99:250ms or p50:2s";
        let (percentile, bound) = text.strip_prefix('p').and_then(|t| t.split_once(':')).ok_or(rule)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let percentile = number(percentile).filter(|p| *p < 100.0).ok_or(rule)?;
        let bound = if let Some(times) = bound.strip_suffix('x') {
            number(times).filter(|t| *t >= 1.0 && *t <= 1_000.0).map(LatencyBound::Times)
        } else if let Some(ms) = bound.strip_suffix("ms") {
            number(ms).map(LatencyBound::Ms)
        } else {
            bound.strip_suffix('s').and_then(number).map(|s| LatencyBound::Ms(s * 1_000.0))
        };
        Ok(Self { percentile, bound: bound.ok_or(rule)? })
    }
}

impl TryFrom<String> for LatencyLimit {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LatencyLimit> for String {
    fn from(limit: LatencyLimit) -> String {
        limit.to_string()
    }
}

impl fmt::Display for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            LatencyBound::Times(times) => write!(f, "p{}:{times}x", self.percentile),
            LatencyBound::Ms(ms) => write!(f, "p{}:{ms}ms", self.percentile),
        }
    }
}

impl fmt::Debug for LatencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

crate::text::words! {
    /// How far a canary has come.
    pub enum CanaryState = "a canary's state" {
        /// Steps are still to come.
        Running = "running",
        /// The new version got everything.
        Promoted = "promoted",
        /// The new version did worse than allowed; the old one has everything again.
        RolledBack = "rolled_back",
        /// Somebody ended it, or something else went live.
        Aborted = "aborted",
    }
}

/// What was counted of one version in one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CanaryFigures {
    /// Calls that ended and say something about the version: all but those that davit itself failed.
    pub calls: u64,
    /// Those that failed through the function's fault, or were answered with a status from 500 on.
    pub errors: u64,
    /// Calls that davit itself failed. They are not judged.
    pub platform_errors: u64,
    /// The quantile that is bounded, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// A canary as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CanaryView {
    /// Its id.
    pub id: CanaryId,
    /// The version that is tried.
    pub version: u32,
    /// The version that was live before.
    pub base: u32,
    /// How it goes on.
    pub spec: CanarySpec,
    /// Which step is or was the last in force, from 1.
    pub step: u32,
    /// How far it has come.
    pub state: CanaryState,
    /// Why it ended, with figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was counted of the new version in that step.
    pub new: CanaryFigures,
    /// What was counted of the old one in that step.
    pub old: CanaryFigures,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When the step began.
    pub step_at: DateTime<Utc>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_like_speech() {
        let parse = |text: &str| text.parse::<LatencyLimit>().map(|l| l.to_string());
        assert_eq!(parse("p95:1.2x"), Ok("p95:1.2x".into()));
        assert_eq!(parse("p99.9:2s"), Ok("p99.9:2000ms".into()));
        for bad in
            ["", "95:1.2x", "p95", "p95:", "p0:2x", "p100:2x", "p95:0.5x", "p95:-1ms", "p95:NaNx", "p95:3"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_rise_and_every_bound_is_named() {
        let spec = |steps: &[u32]| CanarySpec::new(steps.to_vec());
        assert_eq!(spec(&[5, 25, 50]).check(), Ok(()));
        let fields = [
            (spec(&[]), "steps:"),
            (spec(&[5, 5]), "steps:"),
            (spec(&[50, 5]), "steps:"),
            (spec(&[0]), "steps:"),
            (spec(&[100]), "steps:"),
            (CanarySpec { interval_seconds: 0, ..spec(&[5]) }, "interval_seconds:"),
            (CanarySpec { max_error_percent: f64::NAN, ..spec(&[5]) }, "max_error_percent:"),
            (CanarySpec { min_calls: 0, ..spec(&[5]) }, "min_calls:"),
        ];
        for (bad, field) in fields {
            assert!(bad.check().unwrap_err().message.starts_with(field), "{bad:?}");
        }
    }
}
