//! One transaction for many schedules: what nobody else works on and is still as it was read is taken; its instants are
//! recorded; the invocations of those that nobody had recorded before are accepted; and the schedules move on.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use davit_api::{FireOutcome, InvocationId, OverlapPolicy, ScheduleId, SkipReason};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{Due, Fire, Rung};
use crate::{RegistryError, Result, queue};

/// The columns of rows to insert.
#[derive(Default)]
struct Rows {
    schedules: Vec<Uuid>,
    due: Vec<DateTime<Utc>>,
    planned: Vec<Option<DateTime<Utc>>>,
    outcomes: Vec<&'static str>,
    reasons: Vec<Option<&'static str>>,
    invocations: Vec<Option<Uuid>>,
}

impl Rows {
    fn pass(&mut self, schedule: ScheduleId, due_at: DateTime<Utc>, skipped: Option<SkipReason>) {
        let outcome = if skipped.is_some() { FireOutcome::Skipped } else { FireOutcome::Missed };
        self.push(schedule, due_at, None, outcome, skipped, None);
    }
    fn push(
        &mut self,
        schedule: ScheduleId,
        due_at: DateTime<Utc>,
        planned_at: Option<DateTime<Utc>>,
        outcome: FireOutcome,
        reason: Option<SkipReason>,
        invocation: Option<Uuid>,
    ) {
        self.schedules.push(schedule.0);
        self.due.push(due_at);
        self.planned.push(planned_at.filter(|at| *at != due_at));
        self.outcomes.push(outcome.as_str());
        self.reasons.push(reason.map(SkipReason::as_str));
        self.invocations.push(invocation);
    }

    /// Inserts them, and answers the invocations whose instants nobody had recorded before.
    async fn insert(self, conn: &mut PgConnection) -> Result<HashSet<Uuid>> {
        let fresh: Vec<Option<Uuid>> = sqlx::query_scalar(
            "insert into fires (schedule_id, due_at, planned_at, outcome, reason, invocation_id)
             select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::uuid[])
             on conflict do nothing returning invocation_id",
        )
        .bind(self.schedules)
        .bind(self.due)
        .bind(self.planned)
        .bind(self.outcomes)
        .bind(self.reasons)
        .bind(self.invocations)
        .fetch_all(conn)
        .await?;
        Ok(fresh.into_iter().flatten().collect())
    }
}

/// Takes the schedules that are still as they were read and that nobody else works on.
async fn take(conn: &mut PgConnection, dues: &[Due]) -> Result<HashSet<Uuid>> {
    let taken: Vec<Uuid> = sqlx::query_scalar(
        "select s.id from unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) as d(id, revision, stored)
         join schedules s on s.id = d.id join functions f on f.id = s.function_id
         where s.enabled and not s.ended and s.revision = d.revision and s.next_due_at is not distinct from d.stored
            and f.deleted_at is null and exists (select from aliases a where a.function_id = f.id and a.name = 'live')
         order by s.id for update of s skip locked",
    )
    .bind(dues.iter().map(|d| d.schedule.0).collect::<Vec<_>>())
    .bind(dues.iter().map(|d| d.revision).collect::<Vec<_>>())
    .bind(dues.iter().map(|d| d.stored).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    Ok(taken.into_iter().collect())
}

/// The invocations of the schedules' last fires, where they have not ended.
async fn unfinished(conn: &mut PgConnection, schedules: &[Uuid]) -> Result<HashMap<Uuid, InvocationId>> {
    if schedules.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "select s.id as schedule, i.id from unnest($1::uuid[]) as s(id)
         cross join lateral (select invocation_id from fires where schedule_id = s.id and outcome = 'fired'
            order by due_at desc limit 1) as last
         join invocations i on i.id = last.invocation_id",
    )
    .bind(schedules)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("schedule")?, InvocationId(row.try_get("id")?)))).collect()
}

/// The ordering key of a schedule whose calls run one after the other.
pub(crate) fn ordering_key(schedule: ScheduleId) -> String {
    format!("schedule/{}", schedule.0)
}

/// An instant whose invocation is to be accepted.
struct Accept {
    id: Uuid,
    schedule: ScheduleId,
    due_at: DateTime<Utc>,
    payload: Vec<u8>,
    /// Whether it waits for those before it.
    queued: bool,
}

/// Accepts the invocations of instants, in this order.
async fn accept(conn: &mut PgConnection, fires: &[Accept]) -> Result<()> {
    if fires.is_empty() {
        return Ok(());
    }
    let keys: Vec<Option<String>> =
        fires.iter().map(|fire| fire.queued.then(|| ordering_key(fire.schedule))).collect();
    lock_schedules(conn, fires).await?;
    let done = sqlx::query(
        "insert into invocations (id, namespace_id, function_id, source, payload, policy, destinations, ordering_key, run_at)
         select u.id, f.namespace_id, f.id, 'schedule', u.payload, coalesce(s.spec->'retry', v.spec->'retry', '{}'),
            nullif(v.spec->'destinations', '{}'), u.ordering_key, clock_timestamp()
         from unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::text[]) with ordinality
            as u(id, schedule, payload, ordering_key, place)
         join schedules s on s.id = u.schedule join functions f on f.id = s.function_id
         join aliases a on a.function_id = f.id and a.name = 'live' join versions v on v.id = a.version_id
         where f.deleted_at is null order by u.place",
    )
    .bind(fires.iter().map(|fire| fire.id).collect::<Vec<_>>())
    .bind(fires.iter().map(|fire| fire.schedule.0).collect::<Vec<_>>())
    .bind(fires.iter().map(|fire| fire.payload.as_slice()).collect::<Vec<_>>())
    .bind(keys)
    .execute(&mut *conn)
    .await?;
    if done.rows_affected() != fires.len() as u64 {
        // Somebody took a function out of service between two statements; all is as it was, and is looked at again.
        return Err(RegistryError::conflict("a function went out of service meanwhile"));
    }
    let queued: Vec<Uuid> = fires.iter().filter(|fire| fire.queued).map(|fire| fire.id).collect();
    if !queued.is_empty() {
        queue::line_up(conn, &queued).await?;
    }
    Ok(())
}

/// Takes the ordering keys of those that wait for others.
async fn lock_schedules(conn: &mut PgConnection, fires: &[Accept]) -> Result<()> {
    let ids: Vec<Uuid> = fires.iter().filter(|fire| fire.queued).map(|fire| fire.schedule.0).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query("select id, function_id from schedules where id = any($1)")
        .bind(&ids)
        .fetch_all(&mut *conn)
        .await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let function: Uuid = row.try_get("function_id")?;
        keys.push((function, ordering_key(ScheduleId(row.try_get("id")?))));
    }
    queue::lock_keys(conn, keys.iter().map(|(function, key)| (*function, key.as_str()))).await
}

async fn move_on(conn: &mut PgConnection, dues: &[Due]) -> Result<()> {
    sqlx::query(
        "update schedules s set next_due_at = d.next, ended = d.next is null, due_from = null
         from unnest($1::uuid[], $2::timestamptz[]) as d(id, next) where s.id = d.id",
    )
    .bind(dues.iter().map(|d| d.schedule.0).collect::<Vec<_>>())
    .bind(dues.iter().map(|d| d.next).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

/// What came of a transaction.
pub(super) struct Done {
    pub(super) rung: Vec<Rung>,
    /// Whether a gateway is to stop a call.
    pub(super) cancelled: bool,
}

/// Carries out what is still as it was read.
pub(super) async fn carry_out(conn: &mut PgConnection, mut dues: Vec<Due>) -> Result<Done> {
    let taken = take(conn, &dues).await?;
    dues.retain(|due| taken.contains(&due.schedule.0));
    let alone = |due: &&Due| {
        matches!(due.overlap, OverlapPolicy::Skip | OverlapPolicy::Replace) && !due.fires.is_empty()
    };
    let asked: Vec<Uuid> = dues.iter().filter(alone).map(|due| due.schedule.0).collect();
    let unfinished = unfinished(conn, &asked).await?;
    let (mut rows, mut fires) = (Rows::default(), Vec::new());
    for due in &mut dues {
        for passed in &due.passed {
            rows.pass(due.schedule, passed.due_at, passed.skipped);
        }
        let busy = unfinished.contains_key(&due.schedule.0);
        for fire in std::mem::take(&mut due.fires) {
            if busy && due.overlap == OverlapPolicy::Skip {
                rows.pass(due.schedule, fire.due_at, Some(SkipReason::Overlap));
                continue;
            }
            let id = InvocationId::new().0;
            let fired = FireOutcome::Fired;
            rows.push(due.schedule, fire.due_at, Some(fire.planned_at), fired, None, Some(id));
            let queued = due.overlap == OverlapPolicy::Queue;
            let Fire { due_at, payload, .. } = fire;
            fires.push(Accept { id, schedule: due.schedule, due_at, payload, queued });
        }
    }
    let fresh = rows.insert(conn).await?;
    fires.retain(|fire| fresh.contains(&fire.id));
    let replaced: Vec<InvocationId> = dues
        .iter()
        .filter(|due| due.overlap == OverlapPolicy::Replace)
        .filter(|due| fires.iter().any(|fire| fire.schedule == due.schedule))
        .filter_map(|due| unfinished.get(&due.schedule.0).copied())
        .collect();
    queue::cancel_all(conn, &replaced).await?;
    accept(conn, &fires).await?;
    move_on(conn, &dues).await?;
    let mut fired: HashMap<ScheduleId, Vec<(DateTime<Utc>, InvocationId)>> = HashMap::new();
    for fire in &fires {
        fired.entry(fire.schedule).or_default().push((fire.due_at, InvocationId(fire.id)));
    }
    let rung =
        |due: &Due| Rung { schedule: due.schedule, fired: fired.remove(&due.schedule).unwrap_or_default() };
    Ok(Done { rung: dues.iter().map(rung).collect(), cancelled: !replaced.is_empty() })
}
