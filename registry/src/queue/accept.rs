//! Accepting: when this has returned, the invocation will not be lost.

use std::collections::HashSet;

use davit_api::InvocationId;
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{JobTarget, NewInvocation, Start, rank, turn};
use crate::days::IDEMPOTENT_FOR;
use crate::rows::to_json;
use crate::{Registry, RegistryError, Result, Topic};

impl Registry {
    /// Accepts an invocation. When this has returned, it will not be lost.
    pub async fn enqueue(&self, new: NewInvocation) -> Result<InvocationId> {
        let id = self.transact(move |conn| Box::pin(async move { accept_one(conn, &new).await })).await?;
        self.poke(Topic::Queue);
        Ok(id)
    }

    /// Accepts all of them or none; answers their ids in order.
    pub async fn enqueue_all(&self, new: Vec<NewInvocation>) -> Result<Vec<InvocationId>> {
        let ids = self.transact(move |conn| Box::pin(async move { accept_all(conn, &new).await })).await?;
        self.poke(Topic::Queue);
        Ok(ids)
    }

    /// Accepts each of them for itself, in one statement: for clients who happen to ask at the same time, and who ask
    /// for neither an ordering key nor an idempotency key. An error means that none was accepted.
    pub async fn enqueue_each(&self, new: &[NewInvocation]) -> Result<Vec<Result<InvocationId>>> {
        let ids = ids_for(new);
        let accepted = insert(&self.pool, &ids, new).await?;
        self.poke(Topic::Queue);
        let answer = |(id, n): (InvocationId, &NewInvocation)| {
            if accepted.contains(&id.0) { Ok(id) } else { Err(missing(n)) }
        };
        Ok(ids.into_iter().zip(new).map(answer).collect())
    }
}

/// Accepts within a transaction; all or nothing.
async fn accept_all(conn: &mut PgConnection, new: &[NewInvocation]) -> Result<Vec<InvocationId>> {
    if new.iter().all(NewInvocation::is_plain) {
        let ids = ids_for(new);
        let accepted = insert(conn, &ids, new).await?;
        return match ids.iter().zip(new).find(|(id, _)| !accepted.contains(&id.0)) {
            Some((_, refused)) => Err(missing(refused)),
            None => Ok(ids),
        };
    }
    turn::lock(conn, new.iter().filter_map(|n| Some((function(n)?, n.ordering_key.as_deref()?)))).await?;
    let mut ids = Vec::with_capacity(new.len());
    for one in new {
        ids.push(accept_one(conn, one).await?);
    }
    Ok(ids)
}

/// Accepts within a transaction those whose function is there, in as few statements as it can be; answers how many. For
/// what nobody waits for one by one, and without idempotency keys: those are looked up by [`accept_one`].
pub(crate) async fn accept_present(conn: &mut PgConnection, new: &[NewInvocation]) -> Result<usize> {
    turn::lock(conn, new.iter().filter_map(|n| Some((function(n)?, n.ordering_key.as_deref()?)))).await?;
    let ids = ids_for(new);
    let accepted = insert(&mut *conn, &ids, new).await?;
    let keyed = ids.iter().zip(new).filter(|(id, n)| n.ordering_key.is_some() && accepted.contains(&id.0));
    let keyed: Vec<Uuid> = keyed.map(|(id, _)| id.0).collect();
    if !keyed.is_empty() {
        turn::line_up(conn, &keyed).await?;
    }
    Ok(accepted.len())
}

/// Accepts one within a transaction.
pub(crate) async fn accept_one(conn: &mut PgConnection, new: &NewInvocation) -> Result<InvocationId> {
    let id = InvocationId::new();
    let function = function(new);
    if let (Some(function), Some(key)) = (function, &new.ordering_key) {
        turn::lock(conn, std::iter::once((function, key.as_str()))).await?;
    }
    if let (Some(function), Some(key)) = (function, &new.idempotency_key)
        && let Some(earlier) = known(conn, function, key, &new.payload, id).await?
    {
        return Ok(earlier);
    }
    if insert(&mut *conn, &[id], std::slice::from_ref(new)).await?.is_empty() {
        return Err(missing(new));
    }
    if function.is_some() && new.ordering_key.is_some() {
        turn::line_up(conn, &[id.0]).await?;
    }
    Ok(id)
}

fn function(new: &NewInvocation) -> Option<Uuid> {
    match &new.target {
        JobTarget::Function(id) => Some(id.0),
        JobTarget::Webhook(_) => None,
    }
}

fn missing(new: &NewInvocation) -> RegistryError {
    match &new.target {
        JobTarget::Function(id) => RegistryError::not_found("function", id),
        JobTarget::Webhook(_) => RegistryError::not_found("namespace", &new.namespace),
    }
}

fn ids_for(new: &[NewInvocation]) -> Vec<InvocationId> {
    new.iter().map(|_| InvocationId::new()).collect()
}

/// Inserts; answers the ids of those whose function and namespace are there.
async fn insert(
    conn: impl PgExecutor<'_>,
    ids: &[InvocationId],
    new: &[NewInvocation],
) -> Result<HashSet<Uuid>> {
    let mut webhooks = Vec::with_capacity(new.len());
    let mut policies = Vec::with_capacity(new.len());
    let mut destinations = Vec::with_capacity(new.len());
    let mut callers = Vec::with_capacity(new.len());
    for one in new {
        one.check_size()?;
        callers.push(one.lineage.caller.as_ref().map(to_json).transpose()?);
        webhooks.push(match &one.target {
            JobTarget::Webhook(hook) => Some(to_json(hook)?),
            JobTarget::Function(_) => None,
        });
        policies.push(to_json(&one.policy)?);
        destinations.push(if one.destinations.is_empty() { None } else { Some(to_json(&one.destinations)?) });
    }
    let accepted: Vec<Uuid> = sqlx::query_scalar(
        "insert into invocations (id, namespace_id, function_id, webhook, source, payload, policy, destinations, priority,
            ordering_key, replay_of, hops, subscription_id, qualifier, caller, run_at, due_at)
         select g.id, n.id, f.id, g.webhook, g.source, g.payload, g.policy, g.destinations, g.priority, g.ordering_key, g.replay_of, g.hops,
            g.subscription_id, g.qualifier, g.caller, d.at, d.at
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::jsonb[], $5::text[], $6::bytea[], $7::jsonb[], $8::jsonb[],
                $9::smallint[], $10::text[], $11::uuid[], $12::smallint[], $13::uuid[], $14::timestamptz[], $15::float8[], $16::text[],
                $17::jsonb[])
            with ordinality as g(id, namespace, function_id, webhook, source, payload, policy, destinations, priority, ordering_key,
                replay_of, hops, subscription_id, run_at, delay, qualifier, caller, n)
         join namespaces n on n.name = g.namespace
         cross join lateral (select coalesce(g.run_at, clock_timestamp() + make_interval(secs => g.delay), clock_timestamp()) as at) d
         left join functions f on f.id = g.function_id and f.namespace_id = n.id and f.deleted_at is null
         where f.id is not null or g.function_id is null
         order by g.n returning id",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.namespace.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(function).collect::<Vec<_>>())
    .bind(webhooks)
    .bind(new.iter().map(|n| n.source.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.payload.as_slice()).collect::<Vec<_>>())
    .bind(policies)
    .bind(destinations)
    .bind(new.iter().map(|n| rank(n.priority)).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.ordering_key.as_deref()).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.replay_of.map(|id| id.0)).collect::<Vec<_>>())
    .bind(new.iter().map(|n| i16::from(n.lineage.hops)).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.subscription.map(|id| id.0)).collect::<Vec<_>>())
    .bind(new.iter().map(|n| if let Start::At(at) = n.start { Some(at) } else { None }).collect::<Vec<_>>())
    .bind(new.iter().map(|n| if let Start::After(d) = n.start { Some(d.as_secs_f64()) } else { None }).collect::<Vec<_>>())
    .bind(new.iter().map(|n| n.qualifier.as_ref().map(ToString::to_string)).collect::<Vec<_>>())
    .bind(callers)
    .fetch_all(conn)
    .await?;
    Ok(accepted.into_iter().collect())
}

/// The invocation that the key stands for already; none when it now stands for `id`.
async fn known(
    conn: &mut PgConnection,
    function: Uuid,
    key: &str,
    payload: &[u8],
    id: InvocationId,
) -> Result<Option<InvocationId>> {
    let digest = Sha256::digest(payload).to_vec();
    // Waits for a transaction that has just used the same key, and takes its answer.
    let taken = sqlx::query(sqlx::AssertSqlSafe(format!(
        "insert into idempotency_keys as k (function_id, key, invocation_id, digest) values ($1, $2, $3, $4)
         on conflict (function_id, key) do update set invocation_id = excluded.invocation_id, digest = excluded.digest,
            created_at = clock_timestamp() where k.created_at < clock_timestamp() - interval '{IDEMPOTENT_FOR}'",
    )))
    .bind(function)
    .bind(key)
    .bind(id.0)
    .bind(&digest)
    .execute(&mut *conn)
    .await?;
    if taken.rows_affected() == 1 {
        return Ok(None);
    }
    let row =
        sqlx::query("select invocation_id, digest from idempotency_keys where function_id = $1 and key = $2")
            .bind(function)
            .bind(key)
            .fetch_one(conn)
            .await?;
    if row.try_get::<Vec<u8>, _>("digest")? != digest {
        return Err(RegistryError::conflict(
            "this idempotency key was used for another event within the last 24 hours",
        ));
    }
    Ok(Some(InvocationId(row.try_get("invocation_id")?)))
}
