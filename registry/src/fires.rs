//! Fires: one row an instant of a schedule. Its primary key is what makes an instant happen once, however
//! many gateways ring.

use chrono::{DateTime, Utc};
use davit_api::{FireView, FunctionName, InvocationId, NamespaceName, ScheduleId, ScheduleName};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::rows::parsed;
use crate::{Registry, RegistryError, Result, Topic};

async fn miss(conn: &mut PgConnection, schedule: ScheduleId, missed: &[DateTime<Utc>]) -> Result<()> {
    sqlx::query(
        "insert into fires (schedule_id, due_at, outcome) select $1, m, 'missed' from unnest($2::timestamptz[]) as m
         on conflict do nothing",
    )
    .bind(schedule.0)
    .bind(missed)
    .execute(conn)
    .await?;
    Ok(())
}

impl Registry {
    /// Records that an instant has come: accepts its invocation, records the missed ones before it and moves
    /// the schedule on, all or nothing. `None`: another gateway was first, or it no longer rings.
    pub async fn fire(
        &self,
        schedule: ScheduleId,
        due_at: DateTime<Utc>,
        next_due: Option<DateTime<Utc>>,
        missed: &[DateTime<Utc>],
        payload: Vec<u8>,
    ) -> Result<Option<InvocationId>> {
        let missed = missed.to_vec();
        let fired = self
            .transact(move |conn| {
                Box::pin(async move {
                    let id = InvocationId::new();
                    let first = sqlx::query(
                        "insert into fires (schedule_id, due_at, outcome, invocation_id)
                         select s.id, $2, 'fired', $3 from schedules s where s.id = $1 and s.enabled
                         on conflict do nothing",
                    )
                    .bind(schedule.0)
                    .bind(due_at)
                    .bind(id.0)
                    .execute(&mut *conn)
                    .await?;
                    if first.rows_affected() == 0 {
                        return Ok(None);
                    }
                    let accepted = sqlx::query(
                        "insert into invocations (id, namespace_id, function_id, source, payload, policy, run_at)
                         select $2, f.namespace_id, f.id, 'schedule', $3, coalesce(v.spec->'retry', '{}'), clock_timestamp()
                         from schedules s join functions f on f.id = s.function_id
                         join aliases a on a.function_id = f.id and a.name = 'live'
                         join versions v on v.id = a.version_id where s.id = $1 and f.deleted_at is null",
                    )
                    .bind(schedule.0)
                    .bind(id.0)
                    .bind(payload)
                    .execute(&mut *conn)
                    .await?;
                    if accepted.rows_affected() == 0 {
                        return Err(RegistryError::conflict("the function has no live version"));
                    }
                    miss(conn, schedule, &missed).await?;
                    sqlx::query("update schedules set next_due_at = $2 where id = $1")
                        .bind(schedule.0)
                        .bind(next_due)
                        .execute(&mut *conn)
                        .await?;
                    Ok(Some(id))
                })
            })
            .await?;
        if fired.is_some() {
            self.poke(Topic::Queue);
        }
        Ok(fired)
    }

    /// Records instants as missed and moves the schedule on, when its policy runs none of them.
    pub async fn record_missed(
        &self,
        schedule: ScheduleId,
        missed: &[DateTime<Utc>],
        next_due: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let missed = missed.to_vec();
        self.transact(move |conn| {
            Box::pin(async move {
                miss(conn, schedule, &missed).await?;
                sqlx::query("update schedules set next_due_at = $2 where id = $1")
                    .bind(schedule.0)
                    .bind(next_due)
                    .execute(&mut *conn)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// A schedule's last instants, newest first; `not_found` when there is no such schedule.
    pub async fn list_fires(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        schedule: &ScheduleName,
        limit: u32,
    ) -> Result<Vec<FireView>> {
        let id: Option<uuid::Uuid> = sqlx::query_scalar(
            "select s.id from schedules s join functions f on f.id = s.function_id
             join namespaces n on n.id = f.namespace_id
             where n.name = $1 and f.name = $2 and s.name = $3 and f.deleted_at is null",
        )
        .bind(namespace.as_str())
        .bind(function.as_str())
        .bind(schedule.as_str())
        .fetch_optional(&self.pool)
        .await?;
        // A schedule that has not rung yet and one that does not exist must not look alike.
        let id = id.ok_or_else(|| RegistryError::not_found("schedule", schedule))?;
        let rows = sqlx::query(
            "select due_at, recorded_at, outcome, invocation_id from fires where schedule_id = $1
             order by due_at desc limit $2",
        )
        .bind(id)
        .bind(i64::from(limit.min(1000)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(FireView {
                    due_at: row.try_get("due_at")?,
                    recorded_at: row.try_get("recorded_at")?,
                    outcome: parsed(row, "outcome")?,
                    invocation_id: row.try_get::<Option<_>, _>("invocation_id")?.map(InvocationId),
                })
            })
            .collect()
    }
}
