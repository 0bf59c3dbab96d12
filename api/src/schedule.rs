//! Schedules and their fires.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{InvocationId, ScheduleId, ScheduleName};

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
}

/// When a function is called by the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Five cron fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// IANA time zone in which the fields are read, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub timezone: String,
    /// The event; without it the function gets a scheduled event in AWS EventBridge's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<serde_json::Value>,
    /// What happens to instants missed during downtime.
    #[serde(default)]
    pub missed: MissedPolicy,
    /// Whether it rings at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn utc() -> String {
    "UTC".into()
}
fn yes() -> bool {
    true
}

/// A schedule as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScheduleView {
    /// Its id.
    pub id: ScheduleId,
    /// Its name, unique within the function.
    pub name: ScheduleName,
    /// Its settings.
    pub spec: ScheduleSpec,
    /// Whether it came from the version's `davit.toml` (and moves with it) or was added by hand.
    pub from_manifest: bool,
    /// The next instant, unless it is paused or has none.
    pub next_due_at: Option<DateTime<Utc>>,
    /// The last recorded instant.
    pub last_due_at: Option<DateTime<Utc>>,
}

/// What became of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FireOutcome {
    /// An invocation was accepted for it.
    Fired,
    /// It was recorded as missed by the schedule's policy.
    Missed,
}

/// One recorded instant of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FireView {
    /// The instant by the schedule.
    pub due_at: DateTime<Utc>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// What became of it.
    pub outcome: FireOutcome,
    /// The invocation that carries it.
    pub invocation_id: Option<InvocationId>,
}
