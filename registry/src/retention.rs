//! How long versions are kept. One that is in use stays, whatever the policy says: one that an alias leads to, that a
//! canary is about, that an instance serves or that an invocation which has not ended asks for by its number.

use davit_api::{FunctionName, NamespaceName, RetentionPolicy, RetentionView};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::aliases::locked;
use crate::namespaces::{function_of, id_of};
use crate::rows::int;
use crate::{Audited, Registry, RegistryError, Result};

/// What is kept where nobody says otherwise: the newest ten ready versions.
pub const DEFAULT_KEEP: RetentionPolicy = RetentionPolicy { versions: Some(10), days: Some(0) };
/// Versions that one statement removes: a bound on how long it holds its locks.
const AT_ONCE: i64 = 500;
/// Days for which a version that failed is kept, for its error to be read.
const FAILED_DAYS: i32 = 7;

/// Why a version `v` is in use; null when it is not.
const IN_USE: &str = "coalesce(
    (select 'the alias ' || min(a.alias) || ' leads to it' from alias_versions a where a.version_id = v.id having count(*) > 0),
    (select 'a canary is about it' from canaries c where (c.version_id = v.id or c.base_id = v.id) and c.state = 'running' limit 1),
    (select 'an instance serves it' from instances i where i.version_id = v.id and i.state <> 'removed' limit 1),
    (select 'an invocation that has not ended asks for it' from invocations q
        where q.function_id = v.function_id and q.qualifier = v.number::text limit 1),
    (select 'it is being built' where v.state in ('queued', 'building', 'starting')))";

fn policy(row: &PgRow, of: &str) -> Result<RetentionPolicy> {
    let read = |what: &str| -> Result<Option<u32>> {
        let value: Option<i32> = row.try_get(format!("{of}_{what}").as_str())?;
        Ok(value.and_then(|n| u32::try_from(n).ok()))
    };
    Ok(RetentionPolicy { versions: read("versions")?, days: read("days")? })
}

/// Its own policy, and with what it leaves to the next ones.
fn resolved(own: RetentionPolicy, next: &[RetentionPolicy]) -> RetentionView {
    let first = |of: fn(&RetentionPolicy) -> Option<u32>| {
        std::iter::once(&own).chain(next).chain([&DEFAULT_KEEP]).find_map(of).unwrap_or_default()
    };
    RetentionView { own, versions: first(|p| p.versions), days: first(|p| p.days) }
}

impl Registry {
    /// What is kept of a function's versions.
    pub async fn function_retention(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
    ) -> Result<RetentionView> {
        let mut conn = self.pool.acquire().await?;
        let (_, function) = function_of(&mut conn, namespace, name).await?;
        let row = sqlx::query(
            "select f.keep_versions as f_versions, f.keep_days as f_days, n.keep_versions as n_versions, n.keep_days as n_days
             from functions f join namespaces n on n.id = f.namespace_id where f.id = $1",
        )
        .bind(function.0)
        .fetch_one(&mut *conn)
        .await?;
        Ok(resolved(policy(&row, "f")?, &[policy(&row, "n")?]))
    }

    /// What is kept of the versions of a namespace's functions that say nothing themselves.
    pub async fn namespace_retention(&self, namespace: &NamespaceName) -> Result<RetentionView> {
        let mut conn = self.pool.acquire().await?;
        let id = id_of(&mut conn, namespace).await?;
        let row = sqlx::query(
            "select keep_versions as n_versions, keep_days as n_days from namespaces where id = $1",
        )
        .bind(id.0)
        .fetch_one(&mut *conn)
        .await?;
        Ok(resolved(policy(&row, "n")?, &[]))
    }

    /// Removes versions that nobody keeps; at most a few hundred in one call. Answers how many went.
    pub async fn collect_versions(&self) -> Result<u64> {
        let (versions, days) = (DEFAULT_KEEP.versions.map_or(0, int), DEFAULT_KEEP.days.map_or(0, int));
        // A version that an alias gets at this moment is locked by its foreign key, and passed over.
        let statement = format!(
            "with kept as (
                select v.id, v.state, v.ready_at, v.created_at,
                    coalesce(f.keep_versions, n.keep_versions, $1) as versions, coalesce(f.keep_days, n.keep_days, $2) as days,
                    count(*) filter (where v.state = 'ready') over (partition by v.function_id order by v.number desc) as place
                from versions v join functions f on f.id = v.function_id join namespaces n on n.id = f.namespace_id
                where f.deleted_at is null),
             gone as (
                select v.id from kept k join versions v on v.id = k.id
                where (case k.state
                    when 'ready' then k.place > k.versions and k.ready_at < clock_timestamp() - make_interval(days => k.days)
                    when 'failed' then k.created_at < clock_timestamp() - make_interval(days => greatest(k.days, $3))
                    else false end)
                    and not exists (select from instances i where i.version_id = v.id)
                    and {IN_USE} is null
                limit $4 for update of v skip locked)
             delete from versions v using gone where v.id = gone.id"
        );
        // A literal of this file and another, never a caller's text.
        let done = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(versions)
            .bind(days)
            .bind(FAILED_DAYS)
            .bind(AT_ONCE)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

impl Audited {
    /// Says what is kept of a function's versions.
    pub async fn set_function_retention(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        policy: RetentionPolicy,
    ) -> Result<RetentionView> {
        policy.check()?;
        let (of, called) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &of, &called).await?;
                sqlx::query("update functions set keep_versions = $2, keep_days = $3 where id = $1")
                    .bind(function.0)
                    .bind(policy.versions.map(int))
                    .bind(policy.days.map(int))
                    .execute(conn)
                    .await?;
                Ok(())
            })
        })
        .await?;
        self.registry.function_retention(namespace, name).await
    }

    /// Says what is kept in a namespace where functions say nothing themselves.
    pub async fn set_namespace_retention(
        &self,
        namespace: &NamespaceName,
        policy: RetentionPolicy,
    ) -> Result<RetentionView> {
        policy.check()?;
        let of = namespace.clone();
        self.change(move |conn| {
            Box::pin(async move {
                let id = id_of(conn, &of).await?;
                sqlx::query("update namespaces set keep_versions = $2, keep_days = $3 where id = $1")
                    .bind(id.0)
                    .bind(policy.versions.map(int))
                    .bind(policy.days.map(int))
                    .execute(conn)
                    .await?;
                Ok(())
            })
        })
        .await?;
        self.registry.namespace_retention(namespace).await
    }

    /// Removes a version that is not in use.
    pub async fn delete_version(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        number: u32,
    ) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let statement = format!(
                    "select v.id, {IN_USE} as used from versions v where v.function_id = $1 and v.number = $2 for update"
                );
                let row = sqlx::query(sqlx::AssertSqlSafe(statement))
                    .bind(function.0)
                    .bind(int(number))
                    .fetch_optional(&mut *conn)
                    .await?
                    .ok_or_else(|| RegistryError::not_found("version", format_args!("{namespace}/{name}:{number}")))?;
                if let Some(used) = row.try_get::<Option<String>, _>("used")? {
                    return Err(RegistryError::conflict(format!("version {number} is in use: {used}")));
                }
                // Of instances that are gone only the row is left, which says nothing any more.
                sqlx::query("delete from instances where version_id = $1 and state = 'removed'")
                    .bind(row.try_get::<uuid::Uuid, _>("id")?)
                    .execute(&mut *conn)
                    .await?;
                sqlx::query("delete from versions where id = $1")
                    .bind(row.try_get::<uuid::Uuid, _>("id")?)
                    .execute(&mut *conn)
                    .await?;
                Ok(((), format!("{name}/{number}")))
            })
        })
        .await
    }
}
