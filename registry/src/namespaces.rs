//! Namespaces: the unit of tenancy.

use davit_api::{NamespaceId, NamespaceName};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::rows::parsed;
use crate::{Audited, Registry, RegistryError, Result};

/// The id behind a name, inside a transaction.
pub(crate) async fn id_of(conn: &mut PgConnection, name: &NamespaceName) -> Result<NamespaceId> {
    sqlx::query_scalar("select id from namespaces where name = $1")
        .bind(name.as_str())
        .fetch_optional(conn)
        .await?
        .map(NamespaceId)
        .ok_or_else(|| RegistryError::not_found("namespace", name))
}

impl Audited {
    /// Makes the namespace unless it exists.
    pub async fn ensure_namespace(&self, name: &NamespaceName) -> Result<NamespaceId> {
        let name = name.clone();
        self.change_named(move |conn| {
            Box::pin(async move {
                sqlx::query(
                    "insert into namespaces (id, name) values ($1, $2) on conflict (name) do nothing",
                )
                .bind(NamespaceId::new().0)
                .bind(name.as_str())
                .execute(&mut *conn)
                .await?;
                Ok((id_of(conn, &name).await?, name.to_string()))
            })
        })
        .await
    }
}

impl Registry {
    /// The id behind a name.
    pub async fn namespace_id(&self, name: &NamespaceName) -> Result<NamespaceId> {
        id_of(&mut *self.pool.acquire().await?, name).await
    }

    /// Every namespace, by name.
    pub async fn list_namespaces(&self) -> Result<Vec<NamespaceName>> {
        let rows = sqlx::query("select name from namespaces order by name").fetch_all(&self.pool).await?;
        rows.iter().map(|row| parsed(row, "name")).collect()
    }
}

/// The id of a function that is not deleted, by its names. The tenant stands in the statement itself.
pub(crate) async fn function_of(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    name: &davit_api::FunctionName,
) -> Result<(NamespaceId, davit_api::FunctionId)> {
    let row = sqlx::query(
        "select n.id as namespace_id, f.id from functions f join namespaces n on n.id = f.namespace_id
         where n.name = $1 and f.name = $2 and f.deleted_at is null",
    )
    .bind(namespace.as_str())
    .bind(name.as_str())
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| RegistryError::not_found("function", format_args!("{namespace}/{name}")))?;
    Ok((NamespaceId(row.try_get("namespace_id")?), davit_api::FunctionId(row.try_get("id")?)))
}
