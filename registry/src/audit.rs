//! The audit log: who did what, when, and how it ended. Append-only by a trigger.

use chrono::{DateTime, Utc};
use davit_api::{NamespaceName, RequestId, TokenId};
use sqlx::Row;

use crate::rows::parsed_opt;
use crate::{Registry, Result};

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// The request, as in the access log.
    pub request_id: Option<RequestId>,
    /// The token that did it.
    pub token_id: Option<TokenId>,
    /// Its description, or the part of davit that did it.
    pub actor: String,
    /// In which namespace.
    pub namespace: Option<NamespaceName>,
    /// What, such as `function.delete`.
    pub action: String,
    /// To what, such as the function's name.
    pub object: String,
    /// How it ended: `ok`, or an error code.
    pub outcome: String,
}

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Position; ask for entries before it to read on.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub entry: AuditEntry,
}

impl Registry {
    /// Adds an entry.
    pub async fn audit(&self, entry: AuditEntry) -> Result<()> {
        sqlx::query(
            "insert into audit (request_id, token_id, actor, namespace, action, object, outcome)
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(entry.request_id.map(|id| id.0))
        .bind(entry.token_id.map(|id| id.0))
        .bind(entry.actor.replace('\0', "\u{fffd}"))
        .bind(entry.namespace.as_ref().map(|n| n.as_str()))
        .bind(entry.action)
        .bind(entry.object.replace('\0', "\u{fffd}"))
        .bind(entry.outcome)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Entries of a namespace or of all, newest first, before a position.
    pub async fn list_audit(
        &self,
        namespace: Option<&NamespaceName>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let rows = sqlx::query(
            "select * from audit where ($1::text is null or namespace = $1) and id < coalesce($2, 9223372036854775807)
             order by id desc limit $3",
        )
        .bind(namespace.map(|n| n.as_str()))
        .bind(before)
        .bind(i64::from(limit.min(1000)))
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let entry = AuditEntry {
                    request_id: row.try_get::<Option<_>, _>("request_id")?.map(RequestId),
                    token_id: row.try_get::<Option<_>, _>("token_id")?.map(TokenId),
                    actor: row.try_get("actor")?,
                    namespace: parsed_opt(row, "namespace")?,
                    action: row.try_get("action")?,
                    object: row.try_get("object")?,
                    outcome: row.try_get("outcome")?,
                };
                Ok(AuditRow { id: row.try_get("id")?, at: row.try_get("at")?, entry })
            })
            .collect()
    }
}
