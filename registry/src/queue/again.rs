//! Once more: an ended invocation is accepted again as a new one, and dead ones are taken out of the list of dead letters.

use davit_api::{FunctionName, InvocationId, NamespaceName};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::turn;
use crate::{Audited, RegistryError, Result, Topic};

/// Dead letters that one call takes.
const AT_ONCE: i64 = 1_000;

impl Audited {
    /// Accepts an ended invocation's event again, as a new invocation with what its function promises now.
    pub async fn replay_invocation(
        &self,
        namespace: &NamespaceName,
        id: InvocationId,
    ) -> Result<InvocationId> {
        let view = self.registry.invocation(namespace, id).await?;
        if !view.state.ended() {
            return Err(RegistryError::conflict(format!(
                "the invocation is {}; only one that has ended can be replayed",
                view.state
            )));
        }
        let made = self.change(move |conn| Box::pin(async move { repeat(conn, &[id.0]).await })).await?;
        self.registry.poke(Topic::Queue);
        made.into_iter().next().map(|(_, new)| new).ok_or_else(|| {
            RegistryError::conflict("the invocation cannot be replayed: its function has no live version")
        })
    }

    /// Accepts dead letters again that were not yet, the oldest first: one of them, all of a function, or all of the
    /// namespace; a thousand at a time. Answers the new ids.
    pub async fn redrive(
        &self,
        namespace: &NamespaceName,
        function: Option<&FunctionName>,
        only: Option<InvocationId>,
    ) -> Result<Vec<InvocationId>> {
        let (namespace, function) = (namespace.clone(), function.cloned());
        let made = self
            .change(move |conn| {
                Box::pin(async move {
                    let ids = dead(conn, &namespace, function.as_ref(), only, true).await?;
                    let made = repeat(conn, &ids).await?;
                    let (old, new): (Vec<Uuid>, Vec<Uuid>) = made.iter().map(|(o, n)| (*o, n.0)).unzip();
                    sqlx::query(
                        "update ended_invocations e set redriven_as = g.new from unnest($1::uuid[], $2::uuid[]) as g(old, new)
                         where e.id = g.old",
                    )
                    .bind(old)
                    .bind(new)
                    .execute(conn)
                    .await?;
                    Ok(made.into_iter().map(|(_, new)| new).collect::<Vec<_>>())
                })
            })
            .await?;
        self.registry.poke(Topic::Queue);
        Ok(made)
    }

    /// Removes dead letters for good, the redriven ones among them; a thousand at a time. Answers how many went.
    pub async fn purge_dead(
        &self,
        namespace: &NamespaceName,
        function: Option<&FunctionName>,
        only: Option<InvocationId>,
    ) -> Result<u64> {
        let (namespace, function) = (namespace.clone(), function.cloned());
        self.change(move |conn| {
            Box::pin(async move {
                let ids = dead(conn, &namespace, function.as_ref(), only, false).await?;
                let done = sqlx::query("delete from ended_invocations where id = any($1)")
                    .bind(ids)
                    .execute(conn)
                    .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

/// Dead letters, locked, the oldest first.
async fn dead(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    function: Option<&FunctionName>,
    only: Option<InvocationId>,
    unredriven: bool,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "select e.id from ended_invocations e join namespaces n on n.id = e.namespace_id left join functions f on f.id = e.function_id
         where n.name = $1 and e.state = 'dead' and ($2::text is null or (f.name = $2 and f.deleted_at is null))
            and ($3::uuid is null or e.id = $3) and not ($4 and e.redriven_as is not null)
         order by e.ended_at limit $5 for update of e skip locked",
    )
    .bind(namespace.as_str())
    .bind(function.map(|f| f.as_str()))
    .bind(only.map(|id| id.0))
    .bind(unredriven)
    .bind(AT_ONCE)
    .fetch_all(conn)
    .await?)
}

/// Accepts the events of ended invocations once more, in their order; answers old and new ids. Those whose function
/// has gone are left out.
async fn repeat(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, InvocationId)>> {
    let keyed = sqlx::query(
        "select e.function_id, e.ordering_key from ended_invocations e where e.id = any($1) and e.ordering_key is not null",
    )
    .bind(ids)
    .fetch_all(&mut *conn)
    .await?;
    let keys = turn::lock_those_of(conn, &keyed).await?;
    let new: Vec<Uuid> = ids.iter().map(|_| InvocationId::new().0).collect();
    let made: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "insert into invocations (id, namespace_id, function_id, webhook, source, payload, policy, destinations, priority, ordering_key,
            replay_of, subscription_id, qualifier, run_at)
         select g.new, e.namespace_id, e.function_id, e.webhook, e.source, e.payload, coalesce(s.settings->'retry', v.spec->'retry', e.policy),
            case when s.settings ? 'destinations' or v.id is null then coalesce(s.settings->'destinations', e.destinations)
                else v.spec->'destinations' end,
            e.priority, e.ordering_key, e.id, e.subscription_id, e.qualifier, clock_timestamp()
         from unnest($1::uuid[], $2::uuid[]) with ordinality as g(old, new, n) join ended_invocations e on e.id = g.old
         left join functions f on f.id = e.function_id and f.deleted_at is null
         left join subscriptions s on s.id = e.subscription_id
         left join aliases a on a.function_id = f.id and a.name = 'live' left join versions v on v.id = a.version_id
         where e.webhook is not null or v.id is not null
         order by g.n returning replay_of, id",
    )
    .bind(ids)
    .bind(&new)
    .fetch_all(&mut *conn)
    .await?;
    if !keys.is_empty() {
        turn::line_up(conn, &new).await?;
    }
    Ok(made.into_iter().map(|(old, new)| (old, InvocationId(new))).collect())
}
