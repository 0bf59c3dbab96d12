//! The audit log: who changed what, when, and how it ended. Append-only by a trigger, but for entries that are
//! older than the installation keeps them.
//!
//! What somebody asks the management API to change, only an [`Audited`] handle can change, and it writes the
//! entry in the same transaction: there is no change without its entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use davit_api::{AuditView, NamespaceName, RequestId, TokenId};
use futures_util::future::BoxFuture;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::rows::parsed_opt;
use crate::{Registry, Result};

/// Entries that one statement removes: a bound on how long it holds its locks.
const PRUNED_AT_ONCE: i64 = 5_000;

/// Who is about to change what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The request, as in the access log.
    pub request_id: Option<RequestId>,
    /// The token that does it.
    pub token_id: Option<TokenId>,
    /// Its description, or `davit` itself.
    pub actor: String,
    /// In which namespace.
    pub namespace: Option<NamespaceName>,
    /// What, such as `functions.delete`.
    pub action: String,
    /// To what, as far as it is known beforehand, such as the function's name.
    pub object: String,
}

/// The registry in the hands of somebody who is answerable: everything that is changed through it leaves an
/// entry, or is not changed. Clones stand for the same act.
#[derive(Clone)]
pub struct Audited {
    pub(crate) registry: Registry,
    act: Arc<Act>,
    recorded: Arc<AtomicBool>,
}

impl Registry {
    /// The handle through which an act may change things.
    pub fn audited(&self, act: Act) -> Audited {
        Audited { registry: self.clone(), act: Arc::new(act), recorded: Arc::default() }
    }

    /// The handle for what davit does by itself.
    pub fn as_davit(&self, action: &str) -> Audited {
        self.audited(Act {
            request_id: None,
            token_id: None,
            actor: "davit".into(),
            namespace: None,
            action: action.to_owned(),
            object: String::new(),
        })
    }

    /// Entries of a namespace or of all, newest first, before a position.
    pub async fn list_audit(
        &self,
        namespace: Option<&NamespaceName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditView>> {
        let rows = sqlx::query(
            "select * from audit where ($1::text is null or namespace = $1) and id < coalesce($2, 9223372036854775807)
             order by id desc limit $3",
        )
        .bind(namespace.map(|n| n.as_str()))
        .bind(before)
        .bind(i64::from(limit.min(1000)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }

    /// Removes entries that are older than so many days, at least one, and says how many went.
    pub async fn prune_audit(&self, days: u32) -> Result<u64> {
        let days = days.max(1).to_string();
        self.transact(move |conn| {
            Box::pin(async move {
                // What the trigger asks for: only this transaction, and only what is older.
                sqlx::query("select set_config('davit.audit_days', $1, true)")
                    .bind(&days)
                    .execute(&mut *conn)
                    .await?;
                let done = sqlx::query(
                    "delete from audit where id in (select id from audit
                        where at < clock_timestamp() - make_interval(days => $1::int) order by at limit $2)",
                )
                .bind(&days)
                .bind(PRUNED_AT_ONCE)
                .execute(&mut *conn)
                .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }
}

impl Audited {
    /// Whether a change was made, and its entry with it.
    pub fn recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire)
    }

    /// Writes down an act that changed nothing: refused, failed, or found everything as it wished.
    pub async fn record(&self, outcome: &str) -> Result<()> {
        insert(&mut *self.registry.pool.acquire().await?, &self.act, &self.act.object, outcome).await
    }

    /// Makes a change to what the act named, and its entry, in one transaction.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        let object = self.act.object.clone();
        self.change_named(move |conn| Box::pin(async move { Ok((work(conn).await?, object)) })).await
    }

    /// The same for what has a name only when it is done: `work` answers it, too.
    pub(crate) async fn change_named<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<(T, String)>> + Send + 'static,
    {
        let act = self.act.clone();
        let value = self
            .registry
            .transact(move |conn| {
                Box::pin(async move {
                    let (value, object) = work(conn).await?;
                    insert(conn, &act, &object, "ok").await?;
                    Ok(value)
                })
            })
            .await?;
        self.recorded.store(true, Ordering::Release);
        Ok(value)
    }
}

async fn insert(conn: &mut PgConnection, act: &Act, object: &str, outcome: &str) -> Result<()> {
    sqlx::query(
        "insert into audit (request_id, token_id, actor, namespace, action, object, outcome)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(act.request_id.map(|id| id.0))
    .bind(act.token_id.map(|id| id.0))
    .bind(act.actor.replace('\0', "\u{fffd}"))
    .bind(act.namespace.as_ref().map(|n| n.as_str()))
    .bind(&act.action)
    .bind(object.replace('\0', "\u{fffd}"))
    .bind(outcome)
    .execute(conn)
    .await?;
    Ok(())
}

fn view(row: &PgRow) -> Result<AuditView> {
    Ok(AuditView {
        cursor: row.try_get("id")?,
        at: row.try_get("at")?,
        request_id: row.try_get::<Option<_>, _>("request_id")?.map(RequestId),
        token_id: row.try_get::<Option<_>, _>("token_id")?.map(TokenId),
        actor: row.try_get("actor")?,
        namespace: parsed_opt(row, "namespace")?,
        action: row.try_get("action")?,
        object: row.try_get("object")?,
        outcome: row.try_get("outcome")?,
    })
}
