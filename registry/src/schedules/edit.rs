//! Changes of schedules: by hand here, and by a deployment in `aliases.rs`, which puts settings by the same rule.

use chrono::{DateTime, Utc};
use davit_api::{
    ApiError, FunctionId, FunctionName, InvocationId, InvocationSource, NamespaceName, OverlapPolicy,
    ScheduleId, ScheduleName, ScheduleSpec, ScheduleView, SkipReason, TIMING_FIELDS, VersionSpec, limits,
};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{VIEW, spec, view};
use crate::fires::ordering_key;
use crate::namespaces::function_of;
use crate::rows::{json, to_json};
use crate::{Audited, NewInvocation, RegistryError, Result, Topic, queue};

/// Records an instant that has come, when nobody will see to it any more.
async fn give_up(conn: &mut PgConnection, schedule: ScheduleId, reason: SkipReason) -> Result<()> {
    sqlx::query(
        "insert into fires (schedule_id, due_at, outcome, reason) select id, next_due_at, 'skipped', $2 from schedules
         where id = $1 and enabled and next_due_at <= clock_timestamp() on conflict do nothing",
    )
    .bind(schedule.0)
    .bind(reason.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives a schedule other settings. Its next instant stands while it rings and no timing field changes.
pub(crate) async fn put(conn: &mut PgConnection, schedule: ScheduleId, spec: &ScheduleSpec) -> Result<()> {
    let stands: bool = sqlx::query_scalar(
        "select enabled and $2 and not exists (select from unnest($4::text[]) as field
            where spec->field is distinct from $3::jsonb->field) from schedules where id = $1 for update",
    )
    .bind(schedule.0)
    .bind(spec.enabled)
    .bind(to_json(spec)?)
    .bind(TIMING_FIELDS.map(str::to_owned).to_vec())
    .fetch_one(&mut *conn)
    .await?;
    if !stands {
        let reason = if spec.enabled { SkipReason::Edited } else { SkipReason::Paused };
        give_up(conn, schedule, reason).await?;
    }
    sqlx::query(
        "update schedules set spec = $2, enabled = $3, revision = revision + 1,
            next_due_at = case when $4 then next_due_at end, ended = ended and $4,
            due_from = case when $4 then due_from else clock_timestamp() end where id = $1",
    )
    .bind(schedule.0)
    .bind(to_json(spec)?)
    .bind(spec.enabled)
    .bind(stands)
    .execute(conn)
    .await?;
    Ok(())
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
                let there: i64 = sqlx::query_scalar("select count(*) from schedules where function_id = $1")
                    .bind(id.0)
                    .fetch_one(&mut *conn)
                    .await?;
                if there >= i64::from(limits::SCHEDULES) {
                    let most = limits::SCHEDULES;
                    return Err(RegistryError::conflict(format!("a function has at most {most} schedules")));
                }
                let row = sqlx::query(
                    "insert into schedules (id, function_id, name, spec, enabled, from_manifest, due_from)
                     values ($1, $2, $3, $4, $5, false, clock_timestamp())
                     returning *, $6::text as function, null::timestamptz as last_due_at",
                )
                .bind(ScheduleId::new().0)
                .bind(id.0)
                .bind(name.as_str())
                .bind(spec)
                .bind(enabled)
                .bind(function.as_str())
                .fetch_one(conn)
                .await?;
                Ok((view(&row)?, format!("{function}/{name}")))
            })
        })
        .await
    }

    /// Changes a schedule's settings in place. `edit` gets the settings as they are stored, with `enabled` as it is in
    /// force, and the database's time; it runs while nobody else can change the schedule. While no timing field changes
    /// and the schedule goes on ringing, its next instant stands. Otherwise it is computed anew from now on, and an
    /// instant that had come and that no gateway had seen to is recorded as skipped.
    pub async fn edit_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
        edit: impl FnOnce(&ScheduleView, DateTime<Utc>) -> std::result::Result<ScheduleSpec, ApiError>
        + Send
        + 'static,
    ) -> Result<ScheduleView> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "select {VIEW}, clock_timestamp() as now from schedules s join functions f on f.id = s.function_id
                     join namespaces n on n.id = f.namespace_id
                     where n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null for update of s"
                )))
                .bind(namespace.as_str())
                .bind(function.as_str())
                .bind(name.as_str())
                .fetch_optional(&mut *conn)
                .await?;
                let row = row.ok_or_else(|| RegistryError::not_found("schedule", &name))?;
                let (before, now) = (view(&row)?, row.try_get("now")?);
                let spec = edit(&before, now)?;
                put(conn, before.id, &spec).await?;
                let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "select {VIEW} from schedules s join functions f on f.id = s.function_id where s.id = $1"
                )))
                .bind(before.id.0)
                .fetch_one(conn)
                .await?;
                view(&row)
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
        self.switch_schedule(namespace, function, name, false).await
    }

    /// Lets it ring again, from the next instant after now.
    pub async fn resume_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
    ) -> Result<ScheduleView> {
        self.switch_schedule(namespace, function, name, true).await
    }

    async fn switch_schedule(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        name: &ScheduleName,
        on: bool,
    ) -> Result<ScheduleView> {
        let (namespace, function, name) = (namespace.clone(), function.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let id: Option<uuid::Uuid> = sqlx::query_scalar(
                    "select s.id from schedules s join functions f on f.id = s.function_id
                     join namespaces n on n.id = f.namespace_id
                     where n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null for update of s",
                )
                .bind(namespace.as_str())
                .bind(function.as_str())
                .bind(name.as_str())
                .fetch_optional(&mut *conn)
                .await?;
                let id = ScheduleId(id.ok_or_else(|| RegistryError::not_found("schedule", name))?);
                if !on {
                    give_up(conn, id, SkipReason::Paused).await?;
                }
                // The settings keep what davit.toml says, so that a deployment that changes nothing leaves a pause alone.
                let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "update schedules s set enabled = $2, revision = revision + 1,
                        next_due_at = case when s.enabled and $2 then s.next_due_at end, ended = s.ended and s.enabled and $2,
                        due_from = case when s.enabled and $2 then s.due_from else clock_timestamp() end
                     from functions f where s.id = $1 and f.id = s.function_id returning {VIEW}"
                )))
                .bind(id.0)
                .bind(on)
                .fetch_one(conn)
                .await?;
                view(&row)
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

    /// Accepts an invocation as the schedule would, now and besides its instants. With `queue` it waits its turn among them.
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
                    let row = sqlx::query(
                        "select s.id, f.id as function_id, s.spec - 'payload' as spec, s.enabled, v.spec as version
                         from schedules s join functions f on f.id = s.function_id join namespaces n on n.id = f.namespace_id
                         join aliases a on a.function_id = f.id and a.name = 'live' join versions v on v.id = a.version_id
                         where n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null",
                    )
                    .bind(namespace.as_str())
                    .bind(function.as_str())
                    .bind(name.as_str())
                    .fetch_optional(&mut *conn)
                    .await?;
                    let row = row.ok_or_else(|| RegistryError::not_found("schedule of a live function named", name))?;
                    let (spec, version): (_, VersionSpec) = (spec(&row)?, json(&row, "version")?);
                    let function = FunctionId(row.try_get("function_id")?);
                    let policy = spec.retry.unwrap_or(version.retry);
                    let source = InvocationSource::Schedule;
                    let ordering_key = (spec.overlap == OverlapPolicy::Queue)
                        .then(|| row.try_get("id").map(|id| ordering_key(ScheduleId(id))))
                        .transpose()?;
                    let new = NewInvocation {
                        destinations: version.destinations,
                        ordering_key,
                        ..NewInvocation::new(namespace, function, source, payload, policy)
                    };
                    queue::accept_one(conn, &new).await
                })
            })
            .await?;
        self.registry.poke(Topic::Queue);
        Ok(id)
    }
}
