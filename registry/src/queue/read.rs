//! Looking: one invocation, or the latest of a function or namespace, whether they wait, run or have ended.

use chrono::{DateTime, Utc};
use davit_api::{
    FunctionName, InvocationId, InvocationSource, InvocationState, InvocationView, NamespaceName, QueueView,
    Webhook,
};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::priority;
use crate::rows::{count32, count64, json_opt, parsed, parsed_opt};
use crate::{Registry, RegistryError, Result};

/// Which invocations are meant; without any part, all of the namespace.
#[derive(Debug, Clone, Default)]
pub struct InvocationFilter {
    /// Only of this function.
    pub function: Option<FunctionName>,
    /// Only in this state.
    pub state: Option<InvocationState>,
    /// Only from this door.
    pub source: Option<InvocationSource>,
    /// Only those accepted before this one, as a list's last one was: the next page.
    pub before: Option<(DateTime<Utc>, InvocationId)>,
}

/// The columns of a view of what has not ended.
const LIVE: &str = "select i.id, i.namespace_id, i.function_id, i.webhook, i.source, i.state, i.attempt, i.accepted_at, i.run_at,
    i.error, i.priority, i.ordering_key, i.cancel_requested, i.replay_of, i.qualifier, i.caller, null::timestamptz as ended_at, null::bytea as result,
    null::uuid as redriven_as, null::jsonb as sent_on from invocations i";

/// The same columns of what has; `result` is `i.result`, or what stands for it where nobody wants to read it.
fn ended(result: &str) -> String {
    format!(
        "select i.id, i.namespace_id, i.function_id, i.webhook, i.source, i.state, i.attempt, i.accepted_at, null,
            i.error, i.priority, i.ordering_key, false, i.replay_of, i.qualifier, i.caller, i.ended_at, {result}, i.redriven_as, i.sent_on
         from ended_invocations i"
    )
}

impl Registry {
    /// One accepted invocation.
    pub async fn invocation(&self, namespace: &NamespaceName, id: InvocationId) -> Result<InvocationView> {
        // Both tables as of one instant: between two statements it could move from one to the other unseen.
        let ended = ended("i.result");
        let row = sqlx::query(AssertSqlSafe(format!(
            "select a.*, f.name as function from ({LIVE} where i.id = $2 union all {ended} where i.id = $2) a
             join namespaces n on n.id = a.namespace_id left join functions f on f.id = a.function_id where n.name = $1"
        )))
        .bind(namespace.as_str())
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| RegistryError::not_found("invocation", id))?;
        view(&row)
    }

    /// Invocations, newest first, without their results.
    pub async fn list_invocations(
        &self,
        namespace: &NamespaceName,
        filter: &InvocationFilter,
        limit: u32,
    ) -> Result<Vec<InvocationView>> {
        let mut conn = self.pool.acquire().await?;
        if let Some(function) = &filter.function {
            // One that does not exist and one that was never called must not look alike.
            crate::namespaces::function_of(&mut conn, namespace, function).await?;
        }
        // Of each function its latest, by index, and of those the latest: what other functions were called never counts.
        let some = "where i.namespace_id = n.id and i.function_id is not distinct from t.id and ($3::text is null or i.state = $3)
                and ($4::text is null or i.source = $4)
                and ($5::timestamptz is null or (i.accepted_at, i.id) < ($5, $6))
            order by i.accepted_at desc, i.id desc limit $7";
        let ended = ended("null::bytea");
        let rows = sqlx::query(AssertSqlSafe(format!(
            "select a.*, t.name as function from namespaces n
             cross join lateral (select f.id, f.name from functions f where f.namespace_id = n.id and f.deleted_at is null
                and ($2::text is null or f.name = $2) union all select null, null where $2::text is null) t
             cross join lateral (({LIVE} {some}) union all ({ended} {some})) a
             where n.name = $1 order by a.accepted_at desc, a.id desc limit $7"
        )))
        .bind(namespace.as_str())
        .bind(filter.function.as_ref().map(|f| f.as_str()))
        .bind(filter.state.map(|s| s.as_str()))
        .bind(filter.source.map(|s| s.as_str()))
        .bind(filter.before.map(|b| b.0))
        .bind(filter.before.map(|b| b.1.0))
        .bind(i64::from(limit.min(1001)))
        .fetch_all(&mut *conn)
        .await?;
        rows.iter().map(view).collect()
    }
}

impl Registry {
    /// What of a namespace's asynchronous work has not ended, by function; those with nothing are left out. Counts
    /// rows, so it is for people and alarms, not for a call's way.
    pub async fn queue(&self, namespace: &NamespaceName) -> Result<Vec<QueueView>> {
        let rows = sqlx::query(
            "with counted as (
                select i.function_id, count(*) filter (where i.state = 'running') as running,
                    count(*) filter (where i.state = 'queued' and not i.in_turn) as behind,
                    count(*) filter (where i.state = 'queued' and i.in_turn and i.run_at <= now()) as due,
                    count(*) filter (where i.state = 'queued' and i.in_turn and i.run_at > now()) as delayed,
                    min(i.run_at) filter (where i.state = 'queued' and i.in_turn and i.run_at <= now()) as oldest, 0 as dead
                from invocations i join namespaces n on n.id = i.namespace_id where n.name = $1 group by i.function_id
                union all
                select e.function_id, 0, 0, 0, 0, null, count(*) from ended_invocations e join namespaces n on n.id = e.namespace_id
                where n.name = $1 and e.state = 'dead' and e.redriven_as is null group by e.function_id)
             select f.name as function, max(due) as due, max(oldest) as oldest, max(delayed) as delayed, max(behind) as behind,
                max(running) as running, max(dead) as dead
             from counted c left join functions f on f.id = c.function_id where f.deleted_at is null
             group by c.function_id, f.name order by f.name nulls last",
        )
        .bind(namespace.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(QueueView {
                    function: parsed_opt(row, "function")?,
                    due: count64(row, "due")?,
                    oldest_due_at: row.try_get("oldest")?,
                    delayed: count64(row, "delayed")?,
                    behind: count64(row, "behind")?,
                    running: count64(row, "running")?,
                    dead: count64(row, "dead")?,
                })
            })
            .collect()
    }
}

fn view(row: &PgRow) -> Result<InvocationView> {
    let state: InvocationState = parsed(row, "state")?;
    let run_at: Option<DateTime<Utc>> = row.try_get("run_at")?;
    Ok(InvocationView {
        id: InvocationId(row.try_get("id")?),
        function: parsed_opt(row, "function")?,
        webhook: json_opt::<Webhook>(row, "webhook")?.map(|hook| hook.url),
        source: parsed(row, "source")?,
        caller: json_opt(row, "caller")?,
        state,
        attempt: count32(row, "attempt")?,
        accepted_at: row.try_get("accepted_at")?,
        run_at: run_at.filter(|_| state == InvocationState::Queued),
        ended_at: row.try_get("ended_at")?,
        result: row.try_get::<Option<Vec<u8>>, _>("result")?.and_then(|bytes| String::from_utf8(bytes).ok()),
        error: json_opt(row, "error")?,
        priority: priority(row.try_get("priority")?),
        ordering_key: row.try_get("ordering_key")?,
        cancel_requested: row.try_get("cancel_requested")?,
        replay_of: row.try_get::<Option<_>, _>("replay_of")?.map(InvocationId),
        qualifier: parsed_opt(row, "qualifier")?,
        redriven_as: row.try_get::<Option<_>, _>("redriven_as")?.map(InvocationId),
        sent_on: json_opt(row, "sent_on")?,
    })
}
