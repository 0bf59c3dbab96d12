//! Schedules: when functions are called by the clock. The next instant is computed by the gateway's cron and
//! kept here, so that a restart neither forgets nor repeats one.

mod edit;

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::{
    FunctionId, FunctionName, NamespaceName, ScheduleId, ScheduleName, ScheduleSpec, ScheduleView,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::namespaces::function_of;
use crate::rows::{count32, json, parsed};
use crate::{Registry, RegistryError, Result};

pub(crate) use edit::put;

/// Schedules that one read answers; what is left is read when these have moved on.
const MOST_READ: i64 = 10_000;
/// What a schedule looks like from outside.
const VIEW: &str = "s.*, f.name as function,
    (select max(due_at) from fires where schedule_id = s.id) as last_due_at";

/// A schedule as the alarm needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// Its id.
    pub id: ScheduleId,
    /// Its function.
    pub function_id: FunctionId,
    /// Its function's namespace.
    pub namespace: NamespaceName,
    /// Its function's name.
    pub function: FunctionName,
    /// Its name.
    pub name: ScheduleName,
    /// Its settings, of which `enabled` is the one in force, without the payload: see [`Registry::schedule_payloads`].
    pub spec: ScheduleSpec,
    /// Size of the payload in bytes; 0 without one.
    pub payload_bytes: u32,
    /// Counts its edits.
    pub revision: i64,
    /// The next instant; none when it is not computed yet.
    pub next_due_at: Option<DateTime<Utc>>,
    /// From when on instants are due, while none is computed.
    pub due_from: Option<DateTime<Utc>>,
    /// When the schedule was made: instants before it were never due.
    pub created_at: DateTime<Utc>,
}

/// What there is to see to, and when that was, by the one clock that all gateways share.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulesDue {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// Schedules, by their next instant.
    pub rows: Vec<ScheduleRow>,
    /// Whether there are more of them than one read answers.
    pub more: bool,
}

fn spec(row: &PgRow) -> Result<ScheduleSpec> {
    let mut spec: ScheduleSpec = json(row, "spec")?;
    spec.enabled = row.try_get("enabled")?;
    Ok(spec)
}

fn view(row: &PgRow) -> Result<ScheduleView> {
    let spec = spec(row)?;
    let next: Option<DateTime<Utc>> = row.try_get("next_due_at")?;
    Ok(ScheduleView {
        id: ScheduleId(row.try_get("id")?),
        function: parsed(row, "function")?,
        name: parsed(row, "name")?,
        from_manifest: row.try_get("from_manifest")?,
        created_at: row.try_get("created_at")?,
        next_due_at: next.filter(|_| spec.enabled),
        last_due_at: row.try_get("last_due_at")?,
        spec,
    })
}

fn due_row(row: &PgRow) -> Result<ScheduleRow> {
    Ok(ScheduleRow {
        id: ScheduleId(row.try_get("id")?),
        function_id: FunctionId(row.try_get("function_id")?),
        namespace: parsed(row, "namespace")?,
        function: parsed(row, "function")?,
        name: parsed(row, "name")?,
        spec: spec(row)?,
        payload_bytes: count32(row, "payload_bytes")?,
        revision: row.try_get("revision")?,
        next_due_at: row.try_get("next_due_at")?,
        due_from: row.try_get("due_from")?,
        created_at: row.try_get("created_at")?,
    })
}

impl Registry {
    /// Schedules whose next instant is less than `within` away or is not computed yet, of functions that have a live
    /// version. The others need nothing until then.
    pub async fn schedules_due(&self, within: TimeDelta) -> Result<SchedulesDue> {
        let rows = sqlx::query(
            "select s.id, s.function_id, s.name, s.spec - 'payload' as spec, s.enabled, s.revision, s.next_due_at,
                s.due_from, s.created_at, coalesce(octet_length((s.spec->'payload')::text), 0) as payload_bytes,
                n.name as namespace, f.name as function, clock_timestamp() as now
             from schedules s join functions f on f.id = s.function_id join namespaces n on n.id = f.namespace_id
             where s.enabled and not s.ended and f.deleted_at is null
                and (s.next_due_at is null or s.next_due_at < clock_timestamp() + make_interval(secs => $1))
                and exists (select from aliases a where a.function_id = f.id and a.name = 'live')
             order by s.next_due_at nulls first, s.id limit $2",
        )
        .bind(within.as_seconds_f64())
        .bind(MOST_READ)
        .fetch_all(&self.pool)
        .await?;
        // Taken before the rows are looked at, so that a moment that passes meanwhile makes nothing early.
        let now = match rows.first() {
            Some(row) => row.try_get("now")?,
            None => self.now().await?,
        };
        let read = |row: &PgRow| match due_row(row) {
            Ok(row) => Some(row),
            Err(error) => {
                // A newer davit may have written it. It must not keep the others from ringing.
                tracing::warn!(%error, "a schedule cannot be read");
                None
            }
        };
        let more = rows.len() as i64 >= MOST_READ;
        Ok(SchedulesDue { now, rows: rows.iter().filter_map(read).collect(), more })
    }

    /// The database's time: the one clock that all gateways share.
    pub async fn now(&self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await?)
    }

    /// The payloads of schedules that have one.
    pub async fn schedule_payloads(
        &self,
        schedules: &[ScheduleId],
    ) -> Result<HashMap<ScheduleId, serde_json::Value>> {
        if schedules.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = sqlx::query(
            "select id, spec->'payload' as payload from schedules where id = any($1) and spec ? 'payload'",
        )
        .bind(schedules.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((ScheduleId(row.try_get("id")?), row.try_get("payload")?))).collect()
    }

    /// One schedule.
    pub async fn schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
    ) -> Result<ScheduleView> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {VIEW} from schedules s join functions f on f.id = s.function_id
             join namespaces n on n.id = f.namespace_id
             where n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null"
        )))
        .bind(namespace.as_str())
        .bind(function.as_str())
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?;
        view(&row.ok_or_else(|| RegistryError::not_found("schedule", name))?)
    }

    /// A namespace's schedules after one of them, by function and name.
    pub async fn list_schedules_of_namespace(
        &self,
        namespace: &NamespaceName,
        after: Option<(&FunctionName, &ScheduleName)>,
        limit: u32,
    ) -> Result<Vec<ScheduleView>> {
        let id = self.namespace_id(namespace).await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {VIEW} from schedules s join functions f on f.id = s.function_id
             where f.namespace_id = $1 and f.deleted_at is null and (f.name, s.name) > ($2, $3)
             order by f.name, s.name limit $4"
        )))
        .bind(id.0)
        .bind(after.map_or("", |(function, _)| function.as_str()))
        .bind(after.map_or("", |(_, schedule)| schedule.as_str()))
        .bind(i64::from(limit.min(1001)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }

    /// A function's schedules, by name.
    pub async fn list_schedules(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
    ) -> Result<Vec<ScheduleView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, id) = function_of(&mut conn, namespace, function).await?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {VIEW} from schedules s join functions f on f.id = s.function_id
             where s.function_id = $1 order by s.name"
        )))
        .bind(id.0)
        .fetch_all(&mut *conn)
        .await?;
        rows.iter().map(view).collect()
    }
}
