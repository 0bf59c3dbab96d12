//! Functions, over all of their versions.

use davit_api::{
    FunctionDetail, FunctionId, FunctionName, FunctionSummary, InstanceCounts, NamespaceName, VersionSpec,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::namespaces::{function_of, id_of};
use crate::rows::{json_opt, parsed};
use crate::{Audited, Registry, RegistryError, Result};

const SUMMARY: &str = "select f.id, n.name as namespace, f.name, f.created_at, v.number, v.spec,
        coalesce(i.active, 0) as active, coalesce(i.frozen, 0) as frozen,
        coalesce(u.calls, 0) as calls, coalesce(u.errors, 0) as errors,
        coalesce(u.cold_starts, 0) as cold_starts, u.last_call_at, u.last_cold_ms, u.last_cold
    from functions f
    join namespaces n on n.id = f.namespace_id
    left join aliases a on a.function_id = f.id and a.name = 'live'
    left join versions v on v.id = a.version_id
    left join usage u on u.function_id = f.id
    left join lateral (
        select count(*) filter (where x.state = 'active') as active,
               count(*) filter (where x.state = 'frozen') as frozen
        from instances x join versions y on y.id = x.version_id
        where y.function_id = f.id and x.state in ('active', 'frozen')) i on true
    where n.name = $1 and f.deleted_at is null and ($2::text is null or f.name = $2)
    order by f.name";

fn summary(row: &PgRow) -> Result<FunctionSummary> {
    let spec: Option<VersionSpec> = json_opt(row, "spec")?;
    let count =
        |column: &str| Ok::<_, RegistryError>(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0));
    Ok(FunctionSummary {
        id: FunctionId(row.try_get("id")?),
        namespace: parsed(row, "namespace")?,
        name: parsed(row, "name")?,
        runtime: spec.as_ref().map(|s| s.runtime.clone()),
        kind: spec.as_ref().map(|s| s.kind),
        access: spec.as_ref().map(|s| s.access),
        live_version: row.try_get::<Option<i32>, _>("number")?.and_then(|n| u32::try_from(n).ok()),
        instances: InstanceCounts { active: count("active")?, frozen: count("frozen")? },
        usage: crate::usage::from_row(row)?,
        created_at: row.try_get("created_at")?,
    })
}

impl Registry {
    /// Every function of a namespace, by name.
    pub async fn list_functions(&self, namespace: &NamespaceName) -> Result<Vec<FunctionSummary>> {
        self.namespace_id(namespace).await?;
        let rows =
            sqlx::query(SUMMARY).bind(namespace.as_str()).bind(None::<&str>).fetch_all(&self.pool).await?;
        rows.iter().map(summary).collect()
    }

    /// Everything about one function.
    pub async fn function_detail(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
    ) -> Result<FunctionDetail> {
        let row = sqlx::query(SUMMARY)
            .bind(namespace.as_str())
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| RegistryError::not_found("function", format_args!("{namespace}/{name}")))?;
        let summary = summary(&row)?;
        let versions = self.list_versions(namespace, name).await?;
        let live = versions.iter().find(|v| v.live).cloned();
        let latest = versions.into_iter().next().filter(|v| !v.live);
        let routes = live.as_ref().map(|v| v.spec.routes.clone()).unwrap_or_default();
        let schedules = self.list_schedules(namespace, name).await?;
        Ok(FunctionDetail { summary, live, latest, routes, schedules })
    }
}

impl Audited {
    /// Takes a function out of service: its address, routes and schedules are gone at once, its name is free,
    /// and what it had queued ends as dead. Rows and artifacts stay until they are collected.
    pub async fn delete_function(&self, namespace: &NamespaceName, name: &FunctionName) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                id_of(conn, &namespace).await?;
                let (_, id) = function_of(conn, &namespace, &name).await?;
                for statement in [
                    "update functions set deleted_at = clock_timestamp() where id = $1 and deleted_at is null",
                    "delete from aliases where function_id = $1",
                    "delete from routes where function_id = $1",
                    "delete from schedules where function_id = $1",
                ] {
                    sqlx::query(statement).bind(id.0).execute(&mut *conn).await?;
                }
                crate::queue::end_queued_of(conn, id).await?;
                Ok(())
            })
        })
        .await
    }
}
