//! Schedules: when functions are called by the clock. The next instant is computed by the gateway's cron and
//! kept here, so that a restart neither forgets nor repeats one.

use chrono::{DateTime, Utc};
use davit_api::{
    FunctionId, FunctionName, InvocationId, NamespaceName, ScheduleId, ScheduleName, ScheduleSpec,
    ScheduleView,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::namespaces::function_of;
use crate::rows::{json, parsed, to_json};
use crate::{Audited, Registry, RegistryError, Result, Topic};

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
    /// Its settings, of which `enabled` is the one in force.
    pub spec: ScheduleSpec,
    /// Whether it rings: false while paused.
    pub enabled: bool,
    /// The next instant; none when it was never computed, or there is none.
    pub next_due_at: Option<DateTime<Utc>>,
    /// When the schedule was made: instants before it were never due.
    pub created_at: DateTime<Utc>,
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
        name: parsed(row, "name")?,
        from_manifest: row.try_get("from_manifest")?,
        next_due_at: next.filter(|_| spec.enabled),
        last_due_at: row.try_get("last_due_at")?,
        spec,
    })
}

impl Registry {
    /// Schedules that ring before `before` or whose next instant is not computed yet, of functions that have a live
    /// version. The others need nothing until then.
    pub async fn schedules_due(&self, before: DateTime<Utc>) -> Result<Vec<ScheduleRow>> {
        let rows = sqlx::query(
            "select s.*, n.name as namespace, f.name as function from schedules s
             join functions f on f.id = s.function_id join namespaces n on n.id = f.namespace_id
             where s.enabled and (s.next_due_at is null or s.next_due_at < $1) and f.deleted_at is null
                and exists (select from aliases a where a.function_id = f.id and a.name = 'live') order by s.id",
        )
        .bind(before)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ScheduleRow {
                    id: ScheduleId(row.try_get("id")?),
                    function_id: FunctionId(row.try_get("function_id")?),
                    namespace: parsed(row, "namespace")?,
                    function: parsed(row, "function")?,
                    name: parsed(row, "name")?,
                    spec: spec(row)?,
                    enabled: row.try_get("enabled")?,
                    next_due_at: row.try_get("next_due_at")?,
                    created_at: row.try_get("created_at")?,
                })
            })
            .collect()
    }

    /// Stores a computed next instant, unless the schedule has moved on since `seen` was read.
    pub async fn set_next_due(
        &self,
        schedule: ScheduleId,
        seen: Option<DateTime<Utc>>,
        next: Option<DateTime<Utc>>,
    ) -> Result<bool> {
        let done = sqlx::query(
            "update schedules set next_due_at = $3 where id = $1 and next_due_at is not distinct from $2
             and next_due_at is distinct from $3",
        )
        .bind(schedule.0)
        .bind(seen)
        .bind(next)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// A function's schedules, by name.
    pub async fn list_schedules(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
    ) -> Result<Vec<ScheduleView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, id) = function_of(&mut conn, namespace, function).await?;
        let rows = sqlx::query(
            "select s.*, (select max(due_at) from fires where schedule_id = s.id) as last_due_at
             from schedules s where s.function_id = $1 order by s.name",
        )
        .bind(id.0)
        .fetch_all(&mut *conn)
        .await?;
        rows.iter().map(view).collect()
    }
}

impl Audited {
    /// Adds a schedule by hand.
    pub async fn add_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
        spec: &ScheduleSpec,
    ) -> Result<ScheduleView> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        let (spec, enabled) = (to_json(spec)?, spec.enabled);
        self.change_named(move |conn| {
            Box::pin(async move {
                let (_, id) = function_of(conn, &namespace, &function).await?;
                let row = sqlx::query(
                    "insert into schedules (id, function_id, name, spec, enabled, from_manifest)
                     values ($1, $2, $3, $4, $5, false) returning *, null::timestamptz as last_due_at",
                )
                .bind(ScheduleId::new().0)
                .bind(id.0)
                .bind(name.as_str())
                .bind(spec)
                .bind(enabled)
                .fetch_one(conn)
                .await?;
                Ok((view(&row)?, format!("{function}/{name}")))
            })
        })
        .await
    }

    /// Stops a schedule from ringing. Instants that pass meanwhile are not missed: they were not due.
    pub async fn pause_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
    ) -> Result<ScheduleView> {
        self.switch_schedule(namespace, function, name, "update schedules s set enabled = false").await
    }

    /// Lets it ring again, from the next instant after now.
    pub async fn resume_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
    ) -> Result<ScheduleView> {
        let set = "update schedules s set enabled = true,
            next_due_at = case when s.enabled then s.next_due_at end";
        self.switch_schedule(namespace, function, name, set).await
    }

    async fn switch_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
        set: &'static str,
    ) -> Result<ScheduleView> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "{set} from functions f join namespaces n on n.id = f.namespace_id
                     where s.function_id = f.id and n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null
                     returning s.*, (select max(due_at) from fires where schedule_id = s.id) as last_due_at"
                )))
                .bind(namespace.as_str())
                .bind(function.as_str())
                .bind(name.as_str())
                .fetch_optional(conn)
                .await?;
                view(&row.ok_or_else(|| RegistryError::not_found("schedule", name))?)
            })
        })
        .await
    }

    /// Removes a schedule and its record of instants.
    pub async fn remove_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
    ) -> Result<()> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "delete from schedules s using functions f, namespaces n where s.function_id = f.id
                     and n.id = f.namespace_id and n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null",
                )
                .bind(namespace.as_str())
                .bind(function.as_str())
                .bind(name.as_str())
                .execute(conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("schedule", name));
                }
                Ok(())
            })
        })
        .await
    }

    /// Accepts an invocation as the schedule would, now and besides its instants.
    pub async fn run_schedule_now(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
        payload: Vec<u8>,
    ) -> Result<InvocationId> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        let id = self
            .change(move |conn| {
                Box::pin(async move {
                    let id = InvocationId::new();
                    let done = sqlx::query(
                        "insert into invocations (id, namespace_id, function_id, source, payload, policy, run_at)
                         select $1, f.namespace_id, f.id, 'schedule', $5, coalesce(v.spec->'retry', '{}'), clock_timestamp()
                         from schedules s join functions f on f.id = s.function_id join namespaces n on n.id = f.namespace_id
                         join aliases a on a.function_id = f.id and a.name = 'live' join versions v on v.id = a.version_id
                         where n.name = $2 and f.name = $3 and s.name = $4 and f.deleted_at is null",
                    )
                    .bind(id.0)
                    .bind(namespace.as_str())
                    .bind(function.as_str())
                    .bind(name.as_str())
                    .bind(payload)
                    .execute(conn)
                    .await?;
                    if done.rows_affected() == 0 {
                        return Err(RegistryError::not_found("schedule of a live function named", name));
                    }
                    Ok(id)
                })
            })
            .await?;
        self.registry.poke(Topic::Queue);
        Ok(id)
    }
}
