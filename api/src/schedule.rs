//! Schedules and their fires.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::template::{self, Filling};
use crate::{
    ApiError, FunctionName, InvocationId, InvocationState, RetryPolicy, ScheduleId, ScheduleName, limits,
};

/// What happens to instants that passed while nobody could ring.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MissedPolicy {
    /// The latest one runs, late; earlier ones are recorded as missed.
    #[default]
    RunOnce,
    /// All of them are recorded as missed.
    Skip,
    /// The latest `missed_limit` of them run, late and in order; earlier ones are recorded as missed.
    RunAll,
}

/// What happens at an instant while the invocation of the one before has not ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// Both run.
    #[default]
    Allow,
    /// The new one is recorded as skipped.
    Skip,
    /// The new one waits its turn: one runs after the other.
    Queue,
    /// The earlier one is cancelled.
    Replace,
}

/// When a function is called by the clock: exactly one of `cron`, `every` and `at`, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Five cron fields (minute, hour, day of month, month, day of week), or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A steady interval in whole minutes, such as `15m`, `6h` or `1d`; counted from `start`, or from when the
    /// schedule was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// One moment: `2026-12-24T18:00` by the time zone's clock, or with an offset from UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// IANA time zone whose clock is read, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub timezone: String,
    /// No instant before this moment; written like `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// No instant after this moment; written like `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Width of the window over which instants are spread, such as `30s` or `5m`; at most a day. Each instant rings at
    /// a moment in the window after it that is always the same for this schedule and instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// The event; without it the function gets a scheduled event in AWS EventBridge's shape. `{{due_at}}`,
    /// `{{fired_at}}`, `{{schedule}}`, `{{function}}` and `{{namespace}}` in its texts are filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<serde_json::Value>,
    /// What happens to instants missed during downtime.
    #[serde(default)]
    pub missed: MissedPolicy,
    /// With `run_all`: how many of them run, 1 to 100; 10 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_limit: Option<u32>,
    /// What happens while the invocation of the instant before has not ended.
    #[serde(default, skip_serializing_if = "is_allow")]
    pub overlap: OverlapPolicy,
    /// How often its invocations are tried and for how long; without it, as the function's version says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Whether it rings at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// Left out, so that schedules from before there was a choice stay as they are.
fn is_allow(overlap: &OverlapPolicy) -> bool {
    *overlap == OverlapPolicy::Allow
}
fn utc() -> String {
    "UTC".into()
}
fn yes() -> bool {
    true
}

impl Default for ScheduleSpec {
    /// No timing, which is refused, and all else as it is when nobody says anything.
    fn default() -> Self {
        Self {
            cron: None,
            every: None,
            at: None,
            timezone: utc(),
            start: None,
            end: None,
            jitter: None,
            payload: None,
            missed: MissedPolicy::default(),
            missed_limit: None,
            overlap: OverlapPolicy::default(),
            retry: None,
            enabled: true,
        }
    }
}

/// Fields that say when a schedule comes due. While none of them changes, its next instant stands.
pub const TIMING_FIELDS: [&str; 7] = ["cron", "every", "at", "timezone", "start", "end", "jitter"];

impl ScheduleSpec {
    /// A schedule of a cron line, as it is when nothing else is said.
    pub fn of_cron(line: impl Into<String>) -> Self {
        Self { cron: Some(line.into()), ..Self::default() }
    }

    /// How many missed instants run.
    pub fn missed_limit(&self) -> usize {
        self.missed_limit.unwrap_or(10).min(limits::MISSED_RUNS) as usize
    }

    /// Checks everything but the timing, which takes knowledge of calendars; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Some(limit) = self.missed_limit {
            if self.missed != MissedPolicy::RunAll {
                return Err(ApiError::field("missed_limit", "is for missed = run_all"));
            }
            if !(1..=limits::MISSED_RUNS).contains(&limit) {
                return Err(ApiError::field(
                    "missed_limit",
                    format!("must be 1 to {}, not {limit}", limits::MISSED_RUNS),
                ));
            }
        }
        if let Some(retry) = &self.retry {
            retry.check().map_err(|e| ApiError::field("retry", e))?;
        }
        match &self.payload {
            Some(payload) => template::check(payload),
            None => Ok(()),
        }
    }

    /// The event of an instant: the schedule's own payload, filled in, when it has one, else one in the shape that
    /// EventBridge rules send. For instants by the clock and for "run now".
    pub fn event(&self, filling: Filling<'_>) -> Vec<u8> {
        if let Some(payload) = &self.payload {
            return template::fill(payload, filling).to_string().into_bytes();
        }
        let Filling { namespace, function, schedule, due_at, .. } = filling;
        let event = json!({
            "version": "0",
            "id": uuid::Uuid::new_v4(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": namespace,
            "time": due_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "region": "local",
            "resources": [format!("arn:davit:events:local:{namespace}:rule/{function}/{schedule}")],
            "detail": {},
        });
        event.to_string().into_bytes()
    }

    /// The spec with the fields that a patch names: each takes the place of the old one, null removes it. Naming one
    /// of `cron`, `every` and `at` removes the other two.
    pub fn patched(&self, patch: &serde_json::Map<String, serde_json::Value>) -> Result<Self, ApiError> {
        let broken = |e: serde_json::Error| ApiError::new(crate::ErrorCode::InvalidRequest, e.to_string());
        let mut fields = match serde_json::to_value(self).map_err(broken)? {
            serde_json::Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        let timings = ["cron", "every", "at"];
        let set = |name: &&&str| patch.get(**name).is_some_and(|value| !value.is_null());
        if timings.iter().any(|name| set(&name)) {
            timings.iter().for_each(|name| drop(fields.remove(*name)));
        }
        for (name, value) in patch {
            match value {
                serde_json::Value::Null => drop(fields.remove(name)),
                value => drop(fields.insert(name.clone(), value.clone())),
            }
        }
        serde_json::from_value(serde_json::Value::Object(fields)).map_err(broken)
    }
}

/// A schedule as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScheduleView {
    /// Its id.
    pub id: ScheduleId,
    /// The function that it calls.
    pub function: FunctionName,
    /// Its name, unique within the function.
    pub name: ScheduleName,
    /// Its settings.
    pub spec: ScheduleSpec,
    /// Whether it came from the version's `davit.toml` (and moves with it) or was added by hand.
    pub from_manifest: bool,
    /// When it was made: an interval without a start is counted from then.
    pub created_at: DateTime<Utc>,
    /// The next instant, unless it is paused or has none.
    pub next_due_at: Option<DateTime<Utc>>,
    /// The last recorded instant.
    pub last_due_at: Option<DateTime<Utc>>,
}

crate::text::words! {
    /// What became of one instant.
    pub enum FireOutcome = "an outcome of an instant" {
        /// An invocation was accepted for it.
        Fired = "fired",
        /// It was recorded as missed by the schedule's policy.
        Missed = "missed",
        /// It came, and no invocation was accepted for a reason that stands beside it.
        Skipped = "skipped",
    }
}

crate::text::words! {
    /// Why an instant was skipped.
    pub enum SkipReason = "a reason to skip an instant" {
        /// The invocation of the instant before had not ended.
        Overlap = "overlap",
        /// A later one that came due at the same look took its place.
        Replaced = "replaced",
        /// The schedule's timing was changed after it came due and before a gateway saw to it.
        Edited = "edited",
        /// The schedule was paused after it came due and before a gateway saw to it.
        Paused = "paused",
        /// Its event was larger than an asynchronous call may carry.
        TooLarge = "too_large",
    }
}

/// One recorded instant of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FireView {
    /// The instant by the schedule.
    pub due_at: DateTime<Utc>,
    /// When it was to ring: the instant and its jitter. Absent without jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_at: Option<DateTime<Utc>>,
    /// When it was recorded, which is when it fired if it did.
    pub recorded_at: DateTime<Utc>,
    /// Milliseconds between when it was to ring and when it was recorded.
    #[serde(default)]
    pub late_ms: i64,
    /// What became of it.
    pub outcome: FireOutcome,
    /// Why it was skipped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SkipReason>,
    /// The invocation that carries it.
    pub invocation_id: Option<InvocationId>,
    /// Where that invocation is; absent when it ended long ago and was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_state: Option<InvocationState>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NamespaceName;

    fn event(spec: &ScheduleSpec) -> serde_json::Value {
        let (namespace, function, schedule): (NamespaceName, FunctionName, ScheduleName) =
            ("shop".parse().unwrap(), "report".parse().unwrap(), "nightly".parse().unwrap());
        let filling = Filling {
            namespace: &namespace,
            function: &function,
            schedule: &schedule,
            due_at: "2030-05-06T07:08:09.123Z".parse().unwrap(),
            fired_at: "2030-05-06T07:08:10.456Z".parse().unwrap(),
        };
        serde_json::from_slice(&spec.event(filling)).unwrap()
    }

    #[test]
    fn an_own_payload_replaces_the_scheduled_event() {
        let mut spec: ScheduleSpec = serde_json::from_str(r#"{"cron": "* * * * *"}"#).unwrap();
        let made = event(&spec);
        assert_eq!(made["detail-type"], "Scheduled Event");
        assert_eq!(made["time"], "2030-05-06T07:08:09Z");
        assert_eq!(made["resources"][0], "arn:davit:events:local:shop:rule/report/nightly");
        assert_ne!(made["id"], event(&spec)["id"]);
        spec.payload = Some(json!({"mine": [1]}));
        assert_eq!(event(&spec), json!({"mine": [1]}));
        spec.payload = Some(json!({"day": "{{due_at}}", "who": ["{{namespace}}/{{function}}/{{schedule}}"]}));
        let filled = json!({"day": "2030-05-06T07:08:09Z", "who": ["shop/report/nightly"]});
        assert_eq!(event(&spec), filled);
    }

    #[test]
    fn rows_from_before_there_were_more_settings_read_and_write_the_same() {
        let old = json!({"cron": "0 3 * * *", "timezone": "UTC", "missed": "run_once", "enabled": true, "payload": {"a": 1}});
        let spec: ScheduleSpec = serde_json::from_value(old.clone()).unwrap();
        assert_eq!((spec.overlap, spec.missed_limit()), (OverlapPolicy::Allow, 10));
        assert_eq!(serde_json::to_value(spec).unwrap(), old);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_one_timing_takes_the_place_of_another() {
        let spec = ScheduleSpec { payload: Some(json!({"a": 1})), ..ScheduleSpec::of_cron("0 3 * * *") };
        let patched = |patch: serde_json::Value| spec.patched(patch.as_object().unwrap());
        let every = patched(json!({"every": "15m", "payload": {"b": 2}})).unwrap();
        assert_eq!((every.cron, every.every.as_deref()), (None, Some("15m")));
        assert_eq!(every.payload, Some(json!({"b": 2})), "a payload is replaced, not mixed");
        assert_eq!(patched(json!({"payload": null})).unwrap(), ScheduleSpec::of_cron("0 3 * * *"));
        assert_eq!(patched(json!({})).unwrap(), spec);
        assert!(patched(json!({"corn": "x"})).unwrap_err().message.contains("corn"));
        assert_eq!(
            patched(json!({"cron": null})).unwrap().cron,
            None,
            "what is left is refused by its timing"
        );
    }

    #[test]
    fn settings_out_of_bounds_name_their_field() {
        let line = ScheduleSpec::of_cron("* * * * *");
        let retry = RetryPolicy { max_attempts: 0, ..RetryPolicy::default() };
        for (spec, field) in [
            (ScheduleSpec { missed_limit: Some(3), ..line.clone() }, "missed_limit: "),
            (
                ScheduleSpec { missed: MissedPolicy::RunAll, missed_limit: Some(101), ..line.clone() },
                "missed_limit: ",
            ),
            (ScheduleSpec { retry: Some(retry), ..line.clone() }, "retry: max_attempts"),
            (ScheduleSpec { payload: Some(json!({"a": ["{{nope}}"]})), ..line.clone() }, "payload: "),
        ] {
            let error = spec.check().unwrap_err();
            assert!(error.message.starts_with(field), "{error}");
        }
        assert!(line.check().is_ok());
    }
}
