//! Destinations: the outcome of an invocation becomes an invocation of its own, in the transaction that records it.
//!
//! The record has the shape that AWS Lambda sends to destinations (developer guide, "Retaining records of
//! asynchronous invocations"), so handlers written for it read ours.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, Utc};
use davit_api::{
    CloudEvent, Destination, Destinations, EventData, FunctionId, InvocationId, InvocationSource,
    InvocationState, Lineage, NamespaceName, RetryPolicy, SentOn, limits, next_hop,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::end::Ending;
use super::{JobTarget, NewInvocation, accept_one};
use crate::rows::{count32, json, json_opt, parsed, to_json};
use crate::topics::{NewMessage, publish_within};
use crate::{RegistryError, Result};

/// Levels of an event or result in a record; what reads JSON here takes 128 in all.
const DEPTH: usize = 100;
/// Room for the attributes of an event around a record.
const ATTRIBUTES_BYTES: usize = 2_048;

/// Sends on what has a destination; answers a note for each ending, in order.
pub(super) async fn send_all(conn: &mut PgConnection, endings: &[Ending]) -> Result<Vec<Option<Value>>> {
    let rows = sqlx::query(
        "select i.id, i.attempt, i.state, i.payload, i.destinations, i.hops, n.name as namespace, f.name as function
         from invocations i join namespaces n on n.id = i.namespace_id left join functions f on f.id = i.function_id
         where i.id = any($1) and i.destinations is not null for update of i",
    )
    .bind(endings.iter().map(|e| e.id.0).collect::<Vec<_>>())
    .fetch_all(&mut *conn)
    .await?;
    let mut notes = vec![None; endings.len()];
    for row in &rows {
        let id: Uuid = row.try_get("id")?;
        let Some(place) = endings.iter().position(|e| e.id.0 == id) else { continue };
        let ending = &endings[place];
        let attempt = count32(row, "attempt")?;
        // A receipt that is no longer good: nothing ends, so nothing is sent.
        let running = row.try_get::<&str, _>("state")? == "running";
        if ending.attempt.map_or(running, |of| !running || of != attempt) {
            continue;
        }
        let destinations: Destinations = json(row, "destinations")?;
        let wanted = match ending.state {
            InvocationState::Succeeded => destinations.on_success,
            InvocationState::Dead => destinations.on_failure,
            _ => None,
        };
        if let Some(destination) = wanted {
            notes[place] = Some(to_json(&send(conn, row, ending, attempt, &destination).await?)?);
        }
    }
    Ok(notes)
}

async fn send(
    conn: &mut PgConnection,
    row: &PgRow,
    ending: &Ending,
    attempt: u32,
    destination: &Destination,
) -> Result<SentOn> {
    let mut note = SentOn {
        destination: destination.to_string(),
        invocations: Vec::new(),
        messages: Vec::new(),
        error: None,
    };
    let hops = match next_hop(crate::rows::hops(row)?) {
        Ok(hops) => hops,
        Err(error) => {
            note.error = Some(format!("not sent: {}", error.message));
            return Ok(note);
        }
    };
    let lineage = Lineage { hops, caller: None };
    let namespace: NamespaceName = parsed(row, "namespace")?;
    let (target, policy, destinations) = match destination {
        Destination::Function(name) => {
            let Some(found) = live(conn, &namespace, name.as_str()).await? else {
                note.error = Some("not sent: there is no such function with a live version".into());
                return Ok(note);
            };
            (JobTarget::Function(found.0), found.1, found.2)
        }
        Destination::Webhook(hook) => {
            (JobTarget::Webhook(hook.clone()), RetryPolicy::default(), Destinations::default())
        }
        // Deliveries in an order take their keys' locks here, with rows locked already: should that ever make a ring, the
        // database breaks it, and whoever settles tries again.
        Destination::Topic(topic) => {
            let event = event(row, ending, attempt, &namespace)?;
            let message = NewMessage { event, fresh: true };
            match publish_within(conn, &namespace, topic, &[message], &lineage).await? {
                Some(published) => note.messages.extend(published.iter().map(|one| one.message_id)),
                None => note.error = Some("not sent: there is no such topic".into()),
            }
            return Ok(note);
        }
    };
    let record = record(row, ending, attempt, &namespace, limits::ASYNC_PAYLOAD_BYTES)?;
    let new = NewInvocation {
        target,
        destinations,
        lineage,
        ..NewInvocation::new(namespace, FunctionId::default(), InvocationSource::Destination, record, policy)
    };
    note.invocations.push(accept_one(conn, &new).await?);
    Ok(note)
}

/// A function by its name: its id, and what its live version promises.
async fn live(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    name: &str,
) -> Result<Option<(FunctionId, RetryPolicy, Destinations)>> {
    let row = sqlx::query(
        "select f.id, coalesce(v.spec->'retry', '{}') as policy, v.spec->'destinations' as destinations
         from functions f join namespaces n on n.id = f.namespace_id
         join aliases a on a.function_id = f.id and a.name = 'live' join versions v on v.id = a.version_id
         where n.name = $1 and f.name = $2 and f.deleted_at is null",
    )
    .bind(namespace.as_str())
    .bind(name)
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let destinations = json_opt(&row, "destinations")?.unwrap_or_default();
    Ok(Some((FunctionId(row.try_get("id")?), json(&row, "policy")?, destinations)))
}

/// The record as an event of a topic.
fn event(row: &PgRow, ending: &Ending, attempt: u32, namespace: &NamespaceName) -> Result<CloudEvent> {
    let function: Option<&str> = row.try_get("function")?;
    let kind = if ending.state == InvocationState::Dead { "failed" } else { "succeeded" };
    let source = match function {
        Some(function) => format!("/namespaces/{namespace}/functions/{function}"),
        None => format!("/namespaces/{namespace}"),
    };
    let mut attributes: BTreeMap<String, Value> = BTreeMap::from([
        ("specversion".into(), CloudEvent::VERSION.into()),
        // An invocation ends once.
        ("id".into(), InvocationId(row.try_get("id")?).to_string().into()),
        ("source".into(), source.into()),
        ("type".into(), format!("davit.invocation.{kind}").into()),
        ("time".into(), Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into()),
        ("datacontenttype".into(), "application/json".into()),
    ]);
    if let Some(function) = function {
        attributes.insert("subject".into(), function.into());
    }
    let damaged = |e: String| RegistryError::damaged("record", e);
    let record = record(row, ending, attempt, namespace, limits::EVENT_BYTES - ATTRIBUTES_BYTES)?;
    let record = String::from_utf8(record).map_err(|e| damaged(e.to_string()))?;
    let data = RawValue::from_string(record).map_err(|e| damaged(e.to_string()))?;
    CloudEvent::new(attributes, EventData::Json(data)).map_err(damaged)
}

/// The record. What does not fit into `most` bytes is left out, the answer first, and the record says so.
fn record(
    row: &PgRow,
    ending: &Ending,
    attempt: u32,
    namespace: &NamespaceName,
    most: usize,
) -> Result<Vec<u8>> {
    let function: Option<&str> = row.try_get("function")?;
    let failed = ending.state == InvocationState::Dead;
    let mut record = json!({
        "version": "1.0",
        "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        "requestContext": {
            "requestId": InvocationId(row.try_get("id")?),
            "functionArn": format!("arn:davit:functions:local:{namespace}:function:{}", function.unwrap_or_default()),
            "condition": if failed { "RetriesExhausted" } else { "Success" },
            "approximateInvokeCount": attempt,
        },
        "requestPayload": as_json(row.try_get("payload")?),
        "responseContext": { "statusCode": 200 },
        "responsePayload": match &ending.error {
            Some(error) => error.get("function_error").filter(|e| !e.is_null()).unwrap_or(error).clone(),
            None => as_json(ending.result.as_deref().unwrap_or_default()),
        },
    });
    if failed {
        record["responseContext"]["functionError"] = "Unhandled".into();
        record["davitError"] = ending.error.clone().unwrap_or_default();
    }
    for part in ["responsePayload", "requestPayload", "davitError"] {
        let bytes = record.to_string().into_bytes();
        if bytes.len() <= most {
            return Ok(bytes);
        }
        record[part] = Value::Null;
        record["truncated"] = true.into();
    }
    Ok(record.to_string().into_bytes())
}

/// An event or result as part of a JSON document: as it is, or as a string when it is no JSON, or is so deep that the
/// document around it could not be read any more.
fn as_json(bytes: &[u8]) -> Value {
    let read: Option<Value> = serde_json::from_slice(bytes).ok();
    read.filter(|value| depth(value) <= DEPTH).unwrap_or_else(|| String::from_utf8_lossy(bytes).into())
}

/// Levels of lists and objects in each other; parsing has bounded them.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
