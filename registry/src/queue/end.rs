//! The end: an invocation moves from `invocations` to `ended_invocations`, the next of its ordering key gets its
//! turn, and its outcome is sent on. All in the caller's transaction.

use davit_api::{InvocationId, InvocationState};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{sent_on, turn};
use crate::Result;

/// Rows that one statement moves when all of a function's end.
const AT_ONCE: i64 = 10_000;

/// How an invocation ends.
pub(super) struct Ending {
    pub(super) id: InvocationId,
    /// Only while this attempt of it runs; none: only while it is queued.
    pub(super) attempt: Option<u32>,
    pub(super) state: InvocationState,
    pub(super) result: Option<Vec<u8>>,
    pub(super) error: Option<Value>,
}

/// Ends them where nothing follows from it: one statement. Answers those that ended.
pub(super) async fn end_plain(conn: impl PgExecutor<'_>, endings: &[Ending]) -> Result<Vec<Uuid>> {
    let nowhere = vec![None; endings.len()];
    move_over(conn, endings, nowhere).await
}

/// Ends them with all that follows. Answers those that ended. The caller holds no lock on their rows: keys are locked
/// before rows everywhere, so that nobody waits in a ring.
pub(super) async fn end_all(conn: &mut PgConnection, endings: &[Ending]) -> Result<Vec<Uuid>> {
    let ids: Vec<Uuid> = endings.iter().map(|e| e.id.0).collect();
    let keyed = sqlx::query(
        "select function_id, ordering_key from invocations where id = any($1) and ordering_key is not null
         order by position",
    )
    .bind(&ids)
    .fetch_all(&mut *conn)
    .await?;
    let keys = turn::lock_those_of(conn, &keyed).await?;
    let sent = sent_on::send_all(conn, endings).await?;
    let ended = move_over(&mut *conn, endings, sent).await?;
    if !keys.is_empty() {
        let (functions, keys): (Vec<Uuid>, Vec<&str>) = keys.iter().map(|(f, k)| (*f, k.as_str())).unzip();
        turn::advance(conn, &functions, &keys).await?;
    }
    Ok(ended)
}

async fn move_over(
    conn: impl PgExecutor<'_>,
    endings: &[Ending],
    sent_on: Vec<Option<Value>>,
) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar(
        "with gone as (
            delete from invocations i
            using unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[], $5::jsonb[], $6::jsonb[])
                as g(id, attempt, state, result, error, sent_on)
            where i.id = g.id and case when g.attempt is null then i.state = 'queued' else i.state = 'running' and i.attempt = g.attempt end
            returning i.id, i.namespace_id, i.function_id, i.webhook, i.source, g.state, i.payload, i.policy, i.destinations,
                i.priority, i.ordering_key, i.accepted_at, i.attempt, g.result, g.error, i.replay_of, i.hops, g.sent_on,
                i.subscription_id, i.qualifier, i.caller)
         insert into ended_invocations (id, namespace_id, function_id, webhook, source, state, payload, policy, destinations,
            priority, ordering_key, accepted_at, attempt, result, error, replay_of, hops, sent_on, subscription_id, qualifier, caller)
         select * from gone returning id",
    )
    .bind(endings.iter().map(|e| e.id.0).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.attempt.map(crate::rows::int)).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.state.as_str()).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.result.as_deref()).collect::<Vec<_>>())
    .bind(endings.iter().map(|e| e.error.as_ref()).collect::<Vec<_>>())
    .bind(sent_on)
    .fetch_all(conn)
    .await?)
}

/// Everything that a deleted function still had queued is dead; its outcome goes nowhere, and no turn is left to take.
/// What runs is settled by who runs it.
pub(crate) async fn end_queued_of(conn: &mut PgConnection, function: davit_api::FunctionId) -> Result<()> {
    let gone = json!({
        "code": "not_found", "message": "the function was deleted", "source": "client", "retryable": false
    });
    loop {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "select id from invocations where function_id = $1 and state = 'queued' order by position limit $2 for update",
        )
        .bind(function.0)
        .bind(AT_ONCE)
        .fetch_all(&mut *conn)
        .await?;
        let endings: Vec<Ending> = ids
            .iter()
            .map(|id| Ending {
                id: InvocationId(*id),
                attempt: None,
                state: InvocationState::Dead,
                result: None,
                error: Some(gone.clone()),
            })
            .collect();
        end_plain(&mut *conn, &endings).await?;
        if endings.is_empty() {
            return Ok(());
        }
    }
}
