//! Flags that stand for a schedule's settings: for `add` they make one, for `update` they say what changes.

use clap::{Args, ValueEnum};
use davit_api::{MissedPolicy, OverlapPolicy, PreviewRequest, RetryPolicy, ScheduleSpec};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};

/// When it comes due: a cron line, `--every` or `--at`.
#[derive(Args, Clone, Default)]
pub(super) struct TimingArgs {
    /// Five cron fields: minute, hour, day of month, month, day of week
    pub(super) cron: Option<String>,
    /// A steady interval in whole minutes instead, such as 15m, 6h or 1d
    #[arg(long, value_name = "LENGTH", conflicts_with = "cron")]
    every: Option<String>,
    /// One moment instead, such as 2026-12-24T18:00, by the time zone's clock or with an offset
    #[arg(long, value_name = "MOMENT", conflicts_with_all = ["cron", "every"])]
    at: Option<String>,
    /// Time zone whose clock is read [default: UTC]
    #[arg(long, value_name = "ZONE")]
    pub(super) timezone: Option<String>,
    /// No instant before this moment
    #[arg(long, value_name = "MOMENT")]
    start: Option<String>,
    /// No instant after this moment
    #[arg(long, value_name = "MOMENT")]
    end: Option<String>,
    /// Spread instants over a window of this width, such as 5m
    #[arg(long, value_name = "LENGTH")]
    jitter: Option<String>,
}

impl TimingArgs {
    pub(super) fn request(&self, count: u32) -> PreviewRequest {
        let TimingArgs { cron, every, at, timezone, start, end, jitter } = self.clone();
        PreviewRequest { cron, every, at, timezone, start, end, jitter, count: Some(count) }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Missed {
    /// The latest runs late
    RunOnce,
    /// None runs
    Skip,
    /// The latest of them run late, up to --missed-limit
    RunAll,
}

#[derive(Clone, Copy, ValueEnum)]
enum Overlap {
    /// Both run
    Allow,
    /// The new one is skipped
    Skip,
    /// One runs after the other
    Queue,
    /// The earlier one is cancelled
    Replace,
}

/// Everything else that a schedule has.
#[derive(Args, Clone, Default)]
pub(super) struct OtherArgs {
    /// The event as JSON; {{due_at}} and others are filled in [default: a scheduled event as AWS EventBridge sends it]
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// What happens to instants missed during downtime [default: run-once]
    #[arg(long, value_enum, value_name = "POLICY")]
    missed: Option<Missed>,
    /// How many missed instants run with --missed run-all [default: 10]
    #[arg(long, value_name = "N")]
    missed_limit: Option<u32>,
    /// The same as --missed skip
    #[arg(long, conflicts_with = "missed", hide = true)]
    skip_missed: bool,
    /// What happens while the call of the instant before still runs [default: allow]
    #[arg(long, value_enum, value_name = "POLICY")]
    overlap: Option<Overlap>,
    /// Attempts of each call, the first included [default: the function's retry policy]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// Seconds before the second attempt; doubles with each
    #[arg(long, value_name = "SECONDS")]
    base_delay_seconds: Option<u32>,
    /// Longest delay between attempts
    #[arg(long, value_name = "SECONDS")]
    max_delay_seconds: Option<u32>,
    /// No attempt starts later than this after the call was accepted
    #[arg(long, value_name = "SECONDS")]
    max_age_seconds: Option<u32>,
}

impl OtherArgs {
    /// A retry policy, when a flag names a part of one; the rest is as before, or the default.
    fn retry(&self, before: Option<RetryPolicy>) -> Option<RetryPolicy> {
        let given =
            [self.max_attempts, self.base_delay_seconds, self.max_delay_seconds, self.max_age_seconds];
        let base = before.unwrap_or_default();
        given.iter().any(Option::is_some).then(|| RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(base.max_attempts),
            base_delay_seconds: self.base_delay_seconds.unwrap_or(base.base_delay_seconds),
            max_delay_seconds: self.max_delay_seconds.unwrap_or(base.max_delay_seconds),
            max_age_seconds: self.max_age_seconds.unwrap_or(base.max_age_seconds),
        })
    }
}

/// The fields that the flags name. `before` are the settings that are changed, if any.
pub(super) fn named(
    timing: &TimingArgs,
    other: &OtherArgs,
    before: Option<&ScheduleSpec>,
) -> Result<Map<String, Value>> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    let text = |value: &Option<String>| value.clone().map(Value::from);
    put("cron", text(&timing.cron));
    put("every", text(&timing.every));
    put("at", text(&timing.at));
    put("timezone", text(&timing.timezone));
    put("start", text(&timing.start));
    put("end", text(&timing.end));
    put("jitter", text(&timing.jitter));
    let payload = other.payload.as_ref().map(|text| serde_json::from_str(text)).transpose();
    put("payload", payload.map_err(|e| Failure::Usage(format!("the payload is not JSON: {e}")))?);
    let missed = match other.missed {
        Some(Missed::RunOnce) => Some(MissedPolicy::RunOnce),
        Some(Missed::RunAll) => Some(MissedPolicy::RunAll),
        Some(Missed::Skip) => Some(MissedPolicy::Skip),
        None => other.skip_missed.then_some(MissedPolicy::Skip),
    };
    put("missed", missed.map(|missed| json!(missed)));
    put("missed_limit", other.missed_limit.map(Value::from));
    let overlap = other.overlap.map(|overlap| match overlap {
        Overlap::Allow => OverlapPolicy::Allow,
        Overlap::Skip => OverlapPolicy::Skip,
        Overlap::Queue => OverlapPolicy::Queue,
        Overlap::Replace => OverlapPolicy::Replace,
    });
    put("overlap", overlap.map(|overlap| json!(overlap)));
    put("retry", other.retry(before.and_then(|spec| spec.retry)).map(|retry| json!(retry)));
    Ok(fields)
}
