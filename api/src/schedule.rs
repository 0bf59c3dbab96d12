//! Schedules and their fires.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{FunctionName, InvocationId, NamespaceName, ScheduleId, ScheduleName};

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

impl ScheduleSpec {
    /// The event of an instant: the schedule's own payload when it has one, else one in the shape that
    /// EventBridge rules send. For instants by the clock and for "run now".
    pub fn event(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        schedule: &ScheduleName,
        at: DateTime<Utc>,
    ) -> Vec<u8> {
        if let Some(payload) = &self.payload {
            return payload.to_string().into_bytes();
        }
        let event = json!({
            "version": "0",
            "id": uuid::Uuid::new_v4(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": namespace,
            "time": at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "region": "local",
            "resources": [format!("arn:davit:events:local:{namespace}:rule/{function}/{schedule}")],
            "detail": {},
        });
        event.to_string().into_bytes()
    }
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

crate::text::words! {
    /// What became of one instant.
    pub enum FireOutcome = "an outcome of an instant" {
        /// An invocation was accepted for it.
        Fired = "fired",
        /// It was recorded as missed by the schedule's policy.
        Missed = "missed",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_payload_replaces_the_scheduled_event() {
        let mut spec: ScheduleSpec = serde_json::from_str(r#"{"cron": "* * * * *"}"#).unwrap();
        let at = "2030-05-06T07:08:09.123Z".parse().unwrap();
        let event = |spec: &ScheduleSpec| -> serde_json::Value {
            let (namespace, function, schedule) =
                ("shop".parse().unwrap(), "report".parse().unwrap(), "nightly".parse().unwrap());
            serde_json::from_slice(&spec.event(&namespace, &function, &schedule, at)).unwrap()
        };
        let made = event(&spec);
        assert_eq!(made["detail-type"], "Scheduled Event");
        assert_eq!(made["time"], "2030-05-06T07:08:09Z");
        assert_eq!(made["resources"][0], "arn:davit:events:local:shop:rule/report/nightly");
        assert_ne!(made["id"], event(&spec)["id"]);
        spec.payload = Some(json!({"mine": [1]}));
        assert_eq!(event(&spec), json!({"mine": [1]}));
    }
}
