//! The durable queue. A claim is a lease; a settlement needs the receipt (id and attempt) of the claim, so a
//! worker that comes back late can neither finish nor repeat what another took over.

use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{
    ErrorBody, FunctionId, FunctionName, GatewayId, InvocationId, InvocationSource, InvocationView,
    NamespaceName, RetryPolicy,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::rows::{count32, int, json, json_opt, parsed, to_json};
use crate::{Registry, RegistryError, Result, Topic};

/// An invocation to accept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewInvocation {
    /// Its namespace; must be the function's.
    pub namespace: NamespaceName,
    /// Which function.
    pub function_id: FunctionId,
    /// Through which door it came.
    pub source: InvocationSource,
    /// The event.
    pub payload: Vec<u8>,
    /// What is promised for it, from now on.
    pub policy: RetryPolicy,
    /// Not before; none means at once.
    pub run_at: Option<DateTime<Utc>>,
}

/// A claimed invocation.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id; with `attempt`, the receipt.
    pub id: InvocationId,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Which function.
    pub function_id: FunctionId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub function: FunctionName,
    /// The event.
    pub payload: Vec<u8>,
    /// What was promised.
    pub policy: RetryPolicy,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How long ago that was, by the database's clock.
    pub age: Duration,
    /// Through which door it came.
    pub source: InvocationSource,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// With a result.
    Succeeded {
        /// What the function answered.
        result: Vec<u8>,
    },
    /// With an error, and another attempt follows.
    RetryAt {
        /// How long until then.
        delay: Duration,
        /// What went wrong.
        error: ErrorBody,
    },
    /// With an error, and none follows.
    Dead {
        /// What went wrong.
        error: ErrorBody,
    },
}

pub(crate) async fn insert(conn: &mut PgConnection, new: &NewInvocation) -> Result<InvocationId> {
    let id = InvocationId::new();
    let done = sqlx::query(
        "insert into invocations (id, namespace_id, function_id, source, payload, policy, run_at)
         select $1, f.namespace_id, f.id, $4, $5, $6, coalesce($7, clock_timestamp())
         from functions f join namespaces n on n.id = f.namespace_id
         where f.id = $2 and n.name = $3 and f.deleted_at is null",
    )
    .bind(id.0)
    .bind(new.function_id.0)
    .bind(new.namespace.as_str())
    .bind(new.source.as_str())
    .bind(&new.payload)
    .bind(to_json(&new.policy)?)
    .bind(new.run_at)
    .execute(conn)
    .await?;
    if done.rows_affected() == 0 {
        return Err(RegistryError::not_found("function", new.function_id));
    }
    Ok(id)
}

/// Puts what a gateway holds back into the queue. The attempt stays counted: it may have run.
pub(crate) async fn free_jobs(conn: &mut PgConnection, gateway: GatewayId) -> Result<()> {
    sqlx::query(
        "update invocations set state = 'queued', gateway_id = null, lease_until = null, run_at = clock_timestamp()
         where gateway_id = $1 and state = 'running'",
    )
    .bind(gateway.0)
    .execute(conn)
    .await?;
    Ok(())
}

impl Registry {
    /// Accepts an invocation. When this has returned, it will not be lost.
    pub async fn enqueue(&self, new: NewInvocation) -> Result<InvocationId> {
        let id = self.transact(move |conn| Box::pin(async move { insert(conn, &new).await })).await?;
        self.poke(Topic::Queue);
        Ok(id)
    }

    /// Takes up to `n` invocations that are due, under a lease of 30 seconds; namespaces take turns. Those
    /// whose lease lapsed are put back first, or end when their promise is used up.
    pub async fn claim(&self, gateway: GatewayId, n: u32) -> Result<Vec<Job>> {
        self.reclaim_lapsed().await?;
        let rows = sqlx::query(
            "with turn as (
                select c.id, c.place, c.run_at from namespaces s cross join lateral (
                    select i.id, i.run_at, row_number() over (order by i.run_at) as place from invocations i
                    where i.namespace_id = s.id and i.state = 'queued' and i.run_at <= clock_timestamp()
                    order by i.run_at limit $2 * 4) c
                order by c.place, c.run_at limit $2 * 4),
             mine as (
                select i.id from invocations i join turn using (id)
                where i.state = 'queued' and i.run_at <= clock_timestamp()
                order by turn.place, turn.run_at limit $2 for update of i skip locked),
             claimed as (
                update invocations i set state = 'running', attempt = i.attempt + 1, gateway_id = $1,
                    lease_until = clock_timestamp() + interval '30 seconds'
                from mine where i.id = mine.id
                returning i.id, i.attempt, i.function_id, i.payload, i.policy, i.accepted_at, i.source)
             select c.*, n.name as namespace, f.name as function,
                extract(epoch from clock_timestamp() - c.accepted_at)::float8 as age
             from claimed c join functions f on f.id = c.function_id join namespaces n on n.id = f.namespace_id
             order by c.accepted_at",
        )
        .bind(gateway.0)
        .bind(i64::from(n))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Job {
                    id: InvocationId(row.try_get("id")?),
                    attempt: count32(row, "attempt")?,
                    function_id: FunctionId(row.try_get("function_id")?),
                    namespace: parsed(row, "namespace")?,
                    function: parsed(row, "function")?,
                    payload: row.try_get("payload")?,
                    policy: json(row, "policy")?,
                    accepted_at: row.try_get("accepted_at")?,
                    age: Duration::from_secs_f64(row.try_get::<f64, _>("age")?.max(0.0)),
                    source: parsed(row, "source")?,
                })
            })
            .collect()
    }

    async fn reclaim_lapsed(&self) -> Result<()> {
        let lost = serde_json::json!({
            "code": "instance_lost", "source": "platform", "retryable": false,
            "message": "the gateway that ran it was lost, and no attempt is left"
        });
        sqlx::query(
            "with lapsed as (
                select id, attempt >= coalesce((policy->>'max_attempts')::int, 1) or clock_timestamp()
                    > accepted_at + make_interval(secs => coalesce((policy->>'max_age_seconds')::int, 0)) as over
                from invocations where state = 'running' and lease_until < clock_timestamp()
                order by lease_until limit 100 for update skip locked)
             update invocations i set state = case when over then 'dead' else 'queued' end,
                ended_at = case when over then clock_timestamp() end, error = case when over then $1 else i.error end,
                run_at = clock_timestamp(), gateway_id = null, lease_until = null
             from lapsed where i.id = lapsed.id",
        )
        .bind(lost)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Extends the leases of jobs that still run, and answers which of them are still the gateway's.
    pub async fn heartbeat_jobs(
        &self,
        gateway: GatewayId,
        jobs: &[(InvocationId, u32)],
    ) -> Result<Vec<InvocationId>> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
            "update invocations i set lease_until = clock_timestamp() + interval '30 seconds'
             from unnest($2::uuid[], $3::int[]) as u(id, attempt)
             where i.id = u.id and i.attempt = u.attempt and i.gateway_id = $1 and i.state = 'running'
             returning i.id",
        )
        .bind(gateway.0)
        .bind(jobs.iter().map(|j| j.0.0).collect::<Vec<_>>())
        .bind(jobs.iter().map(|j| int(j.1)).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        Ok(ids.into_iter().map(InvocationId).collect())
    }

    /// Records how an attempt ended. `false`: too late, the receipt is no longer good and nothing changed.
    pub async fn settle(&self, id: InvocationId, attempt: u32, settlement: Settlement) -> Result<bool> {
        let (state, result, error, delay) = match &settlement {
            Settlement::Succeeded { result } => ("succeeded", Some(result.as_slice()), None, None),
            Settlement::RetryAt { delay, error } => {
                ("queued", None, Some(storable(error)?), Some(delay.as_secs_f64()))
            }
            Settlement::Dead { error } => ("dead", None, Some(storable(error)?), None),
        };
        let done = sqlx::query(
            "update invocations set state = $3, result = $4, error = $5, gateway_id = null, lease_until = null,
                run_at = clock_timestamp() + make_interval(secs => coalesce($6, 0)),
                ended_at = case when $3 = 'queued' then null else clock_timestamp() end
             where id = $1 and attempt = $2 and state = 'running'",
        )
        .bind(id.0)
        .bind(int(attempt))
        .bind(state)
        .bind(result)
        .bind(error)
        .bind(delay)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives back everything a gateway holds, when it stops.
    pub async fn release_jobs(&self, gateway: GatewayId) -> Result<()> {
        self.transact(move |conn| Box::pin(free_jobs(conn, gateway))).await?;
        self.poke(Topic::Queue);
        Ok(())
    }

    /// One accepted invocation.
    pub async fn invocation(&self, namespace: &NamespaceName, id: InvocationId) -> Result<InvocationView> {
        let row = sqlx::query(
            "select i.*, f.name as function from invocations i join functions f on f.id = i.function_id
             join namespaces n on n.id = i.namespace_id where n.name = $1 and i.id = $2",
        )
        .bind(namespace.as_str())
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| RegistryError::not_found("invocation", id))?;
        view(&row)
    }

    /// A function's invocations, newest first, without their results.
    pub async fn list_invocations(
        &self,
        namespace: &NamespaceName,
        function: &FunctionName,
        limit: u32,
    ) -> Result<Vec<InvocationView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, id) = crate::namespaces::function_of(&mut conn, namespace, function).await?;
        let rows = sqlx::query(
            "select i.id, i.source, i.state, i.attempt, i.accepted_at, i.run_at, i.ended_at, i.error,
                null::bytea as result, $3::text as function from invocations i
             where i.function_id = $1 order by i.accepted_at desc limit $2",
        )
        .bind(id.0)
        .bind(i64::from(limit.min(1000)))
        .bind(function.as_str())
        .fetch_all(&mut *conn)
        .await?;
        rows.iter().map(view).collect()
    }

    /// Removes invocations that ended longer ago than that, and answers how many. Call it until it answers 0.
    pub async fn prune_invocations(&self, keep: Duration) -> Result<u64> {
        let done = sqlx::query(
            "delete from invocations where id in (select id from invocations
             where ended_at < clock_timestamp() - make_interval(secs => $1) order by ended_at limit 5000)",
        )
        .bind(keep.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

fn view(row: &PgRow) -> Result<InvocationView> {
    let queued = row.try_get::<&str, _>("state")? == "queued";
    Ok(InvocationView {
        id: InvocationId(row.try_get("id")?),
        function: parsed(row, "function")?,
        source: parsed(row, "source")?,
        state: parsed(row, "state")?,
        attempt: count32(row, "attempt")?,
        accepted_at: row.try_get("accepted_at")?,
        run_at: if queued { Some(row.try_get("run_at")?) } else { None },
        ended_at: row.try_get("ended_at")?,
        result: row.try_get::<Option<Vec<u8>>, _>("result")?.and_then(|bytes| String::from_utf8(bytes).ok()),
        error: json_opt(row, "error")?,
    })
}

/// An error as json that Postgres takes: what a function reports may hold U+0000.
fn storable(error: &ErrorBody) -> Result<serde_json::Value> {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
            serde_json::Value::Array(items) => items.iter_mut().for_each(clean),
            serde_json::Value::Object(fields) => {
                if fields.keys().any(|k| k.contains('\0')) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(k, v)| (k.replace('\0', "\u{fffd}"), v))
                        .collect();
                }
                fields.values_mut().for_each(clean);
            }
            _ => {}
        }
    }
    let mut value = to_json(error)?;
    clean(&mut value);
    Ok(value)
}
