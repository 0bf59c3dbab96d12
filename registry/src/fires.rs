//! Fires: one row an instant of a schedule. Its primary key is what makes an instant happen once, however
//! many gateways ring.

mod ring;

use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{
    FireView, FunctionName, InvocationId, NamespaceName, OverlapPolicy, ScheduleId, ScheduleName, SkipReason,
};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::rows::{parsed, parsed_opt};
use crate::{Registry, RegistryError, Result, Topic};
use ring::{Done, carry_out};

pub(crate) use ring::ordering_key;

/// Rows that one statement removes: a bound on how long it holds its locks.
const PRUNED_AT_ONCE: i64 = 5_000;

/// What a gateway decided about a schedule that it read.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Which.
    pub schedule: ScheduleId,
    /// The revision that was read; at another one nothing happens.
    pub revision: i64,
    /// The next instant that was read; likewise.
    pub stored: Option<DateTime<Utc>>,
    /// What happens while the invocation of the instant before has not ended. With `skip` and `replace` there is at most
    /// one of `fires`.
    pub overlap: OverlapPolicy,
    /// Instants to fire, in order.
    pub fires: Vec<Fire>,
    /// Instants to record and not to fire.
    pub passed: Vec<Passed>,
    /// The next instant from then on; none ends the schedule.
    pub next: Option<DateTime<Utc>>,
}

/// An instant to fire.
#[derive(Debug, Clone, PartialEq)]
pub struct Fire {
    /// By the schedule.
    pub due_at: DateTime<Utc>,
    /// With its jitter.
    pub planned_at: DateTime<Utc>,
    /// The event.
    pub payload: Vec<u8>,
}

/// An instant that is recorded only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// By the schedule.
    pub due_at: DateTime<Utc>,
    /// Why it is skipped; none means missed.
    pub skipped: Option<SkipReason>,
}

/// What was carried out for one schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// Which.
    pub schedule: ScheduleId,
    /// The invocations that were accepted for its instants, in order.
    pub fired: Vec<(DateTime<Utc>, InvocationId)>,
}

impl Registry {
    /// Carries out what a gateway decided, in one transaction for all of them: accepts the invocations of instants that
    /// have come, records the others, and moves the schedules on. Those that somebody else works on or has moved on, that
    /// were edited or no longer ring are left out of the answer; nothing happened to them. The caller bounds how many.
    pub async fn ring(&self, dues: Vec<Due>) -> Result<Vec<Rung>> {
        if dues.is_empty() {
            return Ok(Vec::new());
        }
        let Done { rung, cancelled } = self.transact(move |conn| Box::pin(carry_out(conn, dues))).await?;
        if cancelled {
            self.poke(Topic::Cancels);
        }
        if rung.iter().any(|rung| !rung.fired.is_empty()) {
            self.poke(Topic::Queue);
        }
        Ok(rung)
    }

    /// A schedule's recorded instants before another one, newest first; `not_found` when there is no such schedule.
    pub async fn list_fires(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        schedule: &ScheduleName,
        before: Option<DateTime<Utc>>,
        limit: u32,
    ) -> Result<Vec<FireView>> {
        let id: Option<Uuid> = sqlx::query_scalar(
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
            "select e.*, coalesce((select state from invocations i where i.id = e.invocation_id),
                (select state from ended_invocations i where i.id = e.invocation_id limit 1)) as invocation_state
             from fires e where e.schedule_id = $1 and e.due_at < coalesce($2, 'infinity') order by e.due_at desc limit $3",
        )
        .bind(id)
        .bind(before)
        .bind(i64::from(limit.min(1000)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }

    /// Removes records of instants that are older than so many days, but for each schedule's last, and says how many
    /// went.
    pub async fn prune_fires(&self, keep: Duration) -> Result<u64> {
        let done = sqlx::query(
            "delete from fires e using (select schedule_id, due_at from fires old
                where recorded_at < clock_timestamp() - make_interval(secs => $1)
                    and exists (select from fires later where later.schedule_id = old.schedule_id and later.due_at > old.due_at)
                order by recorded_at limit $2) as old
             where e.schedule_id = old.schedule_id and e.due_at = old.due_at",
        )
        .bind(keep.as_secs_f64())
        .bind(PRUNED_AT_ONCE)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

fn view(row: &PgRow) -> Result<FireView> {
    let due_at: DateTime<Utc> = row.try_get("due_at")?;
    let planned_at: Option<DateTime<Utc>> = row.try_get("planned_at")?;
    let recorded_at: DateTime<Utc> = row.try_get("recorded_at")?;
    Ok(FireView {
        due_at,
        planned_at,
        recorded_at,
        late_ms: (recorded_at - planned_at.unwrap_or(due_at)).num_milliseconds().max(0),
        outcome: parsed(row, "outcome")?,
        reason: parsed_opt(row, "reason")?,
        invocation_id: row.try_get::<Option<_>, _>("invocation_id")?.map(InvocationId),
        invocation_state: parsed_opt(row, "invocation_state")?,
    })
}
