//! The event of a schedule's instant, in the shape that EventBridge rules send.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use davit_api::{FunctionName, NamespaceName, ScheduleName, ScheduleSpec};
use serde_json::json;
use uuid::Uuid;

/// The event: the schedule's own payload when it has one, which then replaces everything.
pub fn scheduled(
    namespace: &NamespaceName,
    function: &FunctionName,
    schedule: &ScheduleName,
    spec: &ScheduleSpec,
    due_at: DateTime<Utc>,
) -> Bytes {
    if let Some(payload) = &spec.payload {
        return Bytes::from(payload.to_string());
    }
    let event = json!({
        "version": "0",
        "id": Uuid::new_v4(),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": namespace.as_str(),
        "time": due_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        "region": "local",
        "resources": [format!("arn:davit:events:local:{namespace}:rule/{function}/{schedule}")],
        "detail": {},
    });
    Bytes::from(event.to_string())
}
