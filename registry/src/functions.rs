//! Functions, over all of their versions.

use davit_api::{
    FunctionDetail, FunctionId, FunctionName, FunctionSummary, InstanceCounts, NamePart, NamespaceName, Page,
    PoolKey, RuntimeName, VersionSpec,
};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::namespaces::{function_of, id_of};
use crate::rows::{json_opt, parsed};
use crate::{Audited, Registry, RegistryError, Result};

/// A page of a namespace's functions, found by the index of names alone: behind a name, in order, and no further than
/// the page is long. Only what is on it is looked up in other tables, but for a runtime, of which each candidate's live
/// version has to be asked.
const PAGE: &str = "with page as materialized (
    select f.id, f.namespace_id, f.name, f.created_at from functions f
    where f.namespace_id = $1 and f.deleted_at is null and f.name > $2
        and ($3::text is null or position($3 in f.name) > 0)
        and ($4::text is null or exists (
            select from aliases a join versions v on v.id = a.version_id
            where a.function_id = f.id and a.name = 'live' and v.spec ->> 'runtime' = $4))
    order by f.name limit $5)";

/// One function.
const ONE: &str = "with page as (
    select f.id, f.namespace_id, f.name, f.created_at
    from functions f join namespaces n on n.id = f.namespace_id
    where n.name = $1 and f.name = $2 and f.deleted_at is null)";

/// What is shown of the functions of a page.
const SUMMARY: &str =
    "select f.id, n.name as namespace, f.name, f.created_at, v.number, v.spec - 'openapi' as spec,
        coalesce(i.active, 0) as active, coalesce(i.frozen, 0) as frozen,
        coalesce(u.calls, 0) as calls, coalesce(u.errors, 0) as errors,
        coalesce(u.cold_starts, 0) as cold_starts, u.last_call_at, u.last_cold_ms, u.last_cold
    from page f
    join namespaces n on n.id = f.namespace_id
    left join aliases a on a.function_id = f.id and a.name = 'live'
    left join versions v on v.id = a.version_id
    left join usage u on u.function_id = f.id
    left join lateral (
        select count(*) filter (where x.state = 'active') as active,
               count(*) filter (where x.state = 'frozen') as frozen
        from instances x join versions y on y.id = x.version_id
        where y.function_id = f.id and x.state in ('active', 'frozen')) i on true
    order by f.name";

/// Which functions of a namespace, and from where on. The default is all of them from the first.
#[derive(Debug, Clone, Default)]
pub struct FunctionFilter {
    /// Only those whose names come after this one.
    pub after: Option<FunctionName>,
    /// Only those with this somewhere in their names.
    pub search: Option<NamePart>,
    /// Only those whose live version has this runtime.
    pub runtime: Option<RuntimeName>,
}

fn summaries(page: &str) -> sqlx::AssertSqlSafe<String> {
    // Two literals of this file, never a caller's text.
    sqlx::AssertSqlSafe(format!("{page} {SUMMARY}"))
}

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
    /// A namespace's functions by name, at most so many.
    pub async fn list_functions(
        &self,
        namespace: &NamespaceName,
        filter: &FunctionFilter,
        limit: u32,
    ) -> Result<Page<FunctionSummary>> {
        let namespace = self.namespace_id(namespace).await?;
        let rows = sqlx::query(summaries(PAGE))
            .bind(namespace.0)
            .bind(filter.after.as_ref().map_or("", FunctionName::as_str))
            .bind(filter.search.as_ref().map(NamePart::as_str))
            .bind(filter.runtime.as_ref().map(RuntimeName::as_str))
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.pool)
            .await?;
        let found: Vec<FunctionSummary> = rows.iter().map(summary).collect::<Result<_>>()?;
        Ok(Page::cut(found, limit, |f| f.name.to_string()))
    }

    /// Everything about one function.
    pub async fn function_detail(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
    ) -> Result<FunctionDetail> {
        let row = sqlx::query(summaries(ONE))
            .bind(namespace.as_str())
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| RegistryError::not_found("function", format_args!("{namespace}/{name}")))?;
        let summary = summary(&row)?;
        let (live, latest) = self.live_and_latest(summary.id).await?;
        let routes = live.as_ref().map(|v| v.spec.routes.clone()).unwrap_or_default();
        let schedules = self.list_schedules(namespace, name).await?;
        let aliases = self.list_aliases(namespace, name).await?;
        let canary = self.list_canaries(namespace, name).await?.into_iter().next();
        let key = live.as_ref().and_then(|v| Some(PoolKey::of(&v.spec, v.image_id.as_deref()?)));
        let obstacle = match key {
            Some(key) => self.obstacle(&key).await?,
            None => None,
        };
        Ok(FunctionDetail { summary, live, latest, routes, aliases, canary, schedules, obstacle })
    }
}

impl Audited {
    /// Takes a function out of service: its address, routes, schedules and sources are gone at once, its name is free,
    /// and what it had queued ends as dead. Rows and artifacts stay until they are collected. Refused while a source has
    /// something of its own in somebody's database: it would gather there, and nobody would take it.
    pub async fn delete_function(&self, namespace: &NamespaceName, name: &FunctionName) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                id_of(conn, &namespace).await?;
                let (_, id) = function_of(conn, &namespace, &name).await?;
                crate::sources::none_fetched(conn, id).await?;
                for statement in [
                    "update functions set deleted_at = clock_timestamp() where id = $1 and deleted_at is null",
                    "update canaries set state = 'aborted', reason = 'the function was deleted', ended_at = clock_timestamp()
                        where function_id = $1 and state = 'running'",
                    "delete from aliases where function_id = $1",
                    "delete from routes where function_id = $1",
                    "delete from schedules where function_id = $1",
                    "delete from subscriptions where function_id = $1",
                    "delete from sources where function_id = $1",
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

#[cfg(all(test, feature = "testing"))]
mod tests {
    use sqlx::{Connection, PgConnection};

    use super::*;
    use crate::testing::TestDatabase;

    /// Ten thousand functions with a live version each, beside as many of another namespace.
    const FILL: &str = "
        insert into namespaces (id, name) values (gen_random_uuid(), 'many'), (gen_random_uuid(), 'others');
        insert into functions (id, namespace_id, name)
            select gen_random_uuid(), n.id, 'f-' || to_char(g, 'fm00000')
            from namespaces n, generate_series(1, 10000) g where n.name in ('many', 'others');
        insert into artifact_uploads (id) values (gen_random_uuid());
        insert into artifacts (digest, size, upload_id)
            select decode(repeat('00', 32), 'hex'), 0, id from artifact_uploads;
        insert into versions (id, function_id, number, state, spec, schedules, source, bundle, ready_at)
            select gen_random_uuid(), f.id, 1, 'ready', '{\"runtime\": \"node20\", \"kind\": \"handler\"}', '{}',
                a.digest, a.digest, now() from functions f, artifacts a;
        insert into aliases (function_id, name, version_id) select function_id, 'live', id from versions;
        analyze";

    #[tokio::test]
    async fn a_page_of_many_reads_no_table_from_end_to_end() {
        let db = TestDatabase::new().await;
        let mut raw = PgConnection::connect(db.url()).await.unwrap();
        sqlx::raw_sql(FILL).execute(&mut raw).await.unwrap();
        let namespace = db.registry().namespace_id(&"many".parse().unwrap()).await.unwrap();
        for (after, search) in [("", None), ("f-05000", None), ("f-09950", Some("99"))] {
            let explain = format!("explain (analyze, costs off, timing off) {PAGE} {SUMMARY}");
            let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
                .bind(namespace.0)
                .bind(after)
                .bind(search)
                .bind(None::<&str>)
                .bind(101_i64)
                .fetch_all(&mut raw)
                .await
                .unwrap();
            let plan = plan.join("\n");
            assert!(plan.contains("functions_name_taken"), "{plan}");
            for table in ["functions", "versions", "aliases"] {
                assert!(!plan.contains(&format!("Seq Scan on {table}")), "{table}: {plan}");
            }
            // Nor is the namespace read to its end for a page of it.
            assert!(!plan.contains("rows=10000 "), "{plan}");
        }
    }
}
