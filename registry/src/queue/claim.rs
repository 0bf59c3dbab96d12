//! Claiming: what is due, under a lease, namespaces taking turns.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::{FunctionId, GatewayId, InvocationId, Lineage};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{ClaimedTarget, Job};
use crate::rows::{count32, hops, int, json, json_opt, parsed, parsed_opt};
use crate::{Registry, RegistryError, Result};

/// An acceptance that takes longer than this from its first statement to its commit may be found late.
const OVERLAP: TimeDelta = TimeDelta::seconds(5);
/// How long a claim holds unless it is renewed; a job that runs for hours holds it by renewals.
pub const JOB_LEASE: Duration = Duration::from_secs(30);
/// So often a claim looks at everything that is due.
const FULL_LOOK: Duration = Duration::from_secs(10);

/// From where a gateway looks for what is due.
///
/// What was claimed leaves entries behind in the index that Postgres cannot sweep away while some transaction is
/// open that might still see them, however long that is, and a claim that started at the oldest would walk over all
/// of them. So claims start a little before the oldest that the last one saw; what was committed very late is found
/// by the full look every ten seconds.
#[derive(Debug, Clone, Copy)]
pub struct ClaimFrom {
    since: Option<DateTime<Utc>>,
    last_full: Option<Instant>,
    lease: Duration,
}

impl Default for ClaimFrom {
    fn default() -> Self {
        Self::under(JOB_LEASE)
    }
}

impl ClaimFrom {
    /// From the oldest on, and what is claimed is held for so long.
    pub fn under(lease: Duration) -> Self {
        Self { since: None, last_full: None, lease }
    }

    fn next(&mut self, now: Instant) -> Option<DateTime<Utc>> {
        if self.last_full.is_none_or(|last| now.duration_since(last) >= FULL_LOOK) {
            self.last_full = Some(now);
            self.since = None;
        }
        self.since
    }

    /// `oldest`: the instant at which the oldest that was seen became due; the time of the look when there was none.
    fn saw(&mut self, oldest: DateTime<Utc>) {
        self.since = Some(oldest - OVERLAP);
    }
}

/// $1 gateway, $2 how many, $3 from when, $4 for how long. A stable function of time decides what is due, not
/// `clock_timestamp()`: only then is the index asked for what is due alone, and what is put off until later costs nothing. Rows are locked one by one, in order: a join
/// would be planned as a look at the whole table, because the planner cannot know how few there are.
const CLAIM: &str = "with due as (
    select c.id, c.run_at, c.namespace_id,
        row_number() over (partition by c.namespace_id order by p.priority desc, c.run_at) as place
    from namespaces s cross join (values (2::smallint), (1::smallint), (0::smallint)) as p(priority)
    cross join lateral (
        select i.id, i.run_at, i.namespace_id from invocations i
        where i.namespace_id = s.id and i.priority = p.priority and i.state = 'queued' and i.in_turn
            and i.run_at <= statement_timestamp() and i.run_at >= coalesce($3, '-infinity')
        order by i.run_at limit $2 * 2) c),
 seen as (select coalesce(min(run_at), statement_timestamp()) as oldest from due),
 mine as (
    select l.id from (select due.id from due order by due.place, due.run_at) d cross join lateral (
        select i.id from invocations i where i.id = d.id and i.state = 'queued' and i.in_turn
            and i.run_at <= statement_timestamp() for update skip locked) l
    limit $2),
 claimed as (
    update invocations i set state = 'running', attempt = i.attempt + 1, gateway_id = $1,
        lease_until = clock_timestamp() + make_interval(secs => $4)
    from mine where i.id = mine.id
    returning i.id, i.attempt, i.function_id, i.namespace_id, i.webhook, i.payload, i.policy, i.accepted_at, i.due_at, i.source, i.excused, i.qualifier, i.hops, i.caller,
        i.ordering_key is not null or i.destinations is not null as has_consequences)
 select c.*, n.name as namespace, f.name as function, seen.oldest,
    extract(epoch from clock_timestamp() - greatest(c.accepted_at, c.due_at))::float8 as age
 from seen left join (claimed c join namespaces n on n.id = c.namespace_id
    left join functions f on f.id = c.function_id) on true
 order by c.accepted_at";

impl Registry {
    /// Takes up to `n` invocations that are due, under a lease; namespaces take turns, and within one
    /// the higher priority goes first, then the older.
    pub async fn claim(&self, gateway: GatewayId, n: u32, from: &mut ClaimFrom) -> Result<Vec<Job>> {
        let rows = sqlx::query(CLAIM)
            .bind(gateway.0)
            .bind(i64::from(n))
            .bind(from.next(Instant::now()))
            .bind(from.lease.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        if let Some(row) = rows.first() {
            from.saw(row.try_get("oldest")?);
        }
        rows.iter().filter_map(|row| job(row).transpose()).collect()
    }

    /// Extends the leases of jobs that still run, and answers which of these attempts are still the gateway's.
    pub async fn heartbeat_jobs(
        &self,
        gateway: GatewayId,
        jobs: &[(InvocationId, u32)],
        lease: Duration,
    ) -> Result<Vec<(InvocationId, u32)>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        // A row that is locked is being settled at this moment; waiting for it could be waiting in a ring. It is still the gateway's.
        let rows = sqlx::query(
            "with ours as (
                select i.id, i.attempt from invocations i join unnest($2::uuid[], $3::int[]) as u(id, attempt) using (id, attempt)
                where i.gateway_id = $1 and i.state = 'running'),
             free as (select i.id from invocations i join ours using (id, attempt)
                where i.gateway_id = $1 and i.state = 'running' for update of i skip locked),
             renewed as (update invocations i set lease_until = clock_timestamp() + make_interval(secs => $4)
                from free where i.id = free.id)
             select id, attempt from ours",
        )
        .bind(gateway.0)
        .bind(jobs.iter().map(|j| j.0.0).collect::<Vec<_>>())
        .bind(jobs.iter().map(|j| int(j.1)).collect::<Vec<_>>())
        .bind(lease.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((InvocationId(row.try_get("id")?), count32(row, "attempt")?))).collect()
    }
}

/// A row of a claim; none for the row that stands for "nothing was due".
fn job(row: &PgRow) -> Result<Option<Job>> {
    let Some(id) = row.try_get::<Option<uuid::Uuid>, _>("id")? else { return Ok(None) };
    let target = match (row.try_get::<Option<uuid::Uuid>, _>("function_id")?, json_opt(row, "webhook")?) {
        (Some(id), _) => {
            let name =
                parsed_opt(row, "function")?.ok_or_else(|| RegistryError::damaged("function", "missing"))?;
            ClaimedTarget::Function { id: FunctionId(id), name, qualifier: parsed_opt(row, "qualifier")? }
        }
        (None, Some(hook)) => ClaimedTarget::Webhook(hook),
        (None, None) => return Err(RegistryError::damaged("invocation", "it goes nowhere")),
    };
    Ok(Some(Job {
        id: InvocationId(id),
        attempt: count32(row, "attempt")?,
        excused: count32(row, "excused")?,
        namespace: parsed(row, "namespace")?,
        target,
        payload: row.try_get("payload")?,
        policy: json(row, "policy")?,
        accepted_at: row.try_get("accepted_at")?,
        age: Duration::from_secs_f64(row.try_get::<f64, _>("age")?.max(0.0)),
        source: parsed(row, "source")?,
        lineage: Lineage { hops: hops(row)?, caller: json_opt(row, "caller")? },
        has_consequences: row.try_get("has_consequences")?,
    }))
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
