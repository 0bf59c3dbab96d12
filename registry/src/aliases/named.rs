//! Aliases by name: what they lead to, with which weights.

use davit_api::{
    AliasName, AliasSettings, AliasView, FunctionId, FunctionName, LIVE, NamespaceName, Qualifier, VersionId,
    VersionWeight, limits,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::{go_live, locked, put_in_force, resolve};
use crate::namespaces::function_of;
use crate::rows::{count32, parsed, parsed_opt};
use crate::{Audited, Registry, RegistryError, Result, canaries};

/// Aliases with one row for each version.
const VIEW: &str = "select a.name, a.description, a.sticky, a.public, a.moved_at, v.number, w.weight
    from aliases a join alias_versions w on w.function_id = a.function_id and w.alias = a.name
    join versions v on v.id = w.version_id
    where a.function_id = $1 and ($2::text is null or a.name = $2)
    order by a.name, w.version_id <> a.version_id, v.number";

/// A function's aliases by name, or the one of that name.
async fn views(
    conn: &mut PgConnection,
    function: FunctionId,
    only: Option<&AliasName>,
) -> Result<Vec<AliasView>> {
    let rows = sqlx::query(VIEW).bind(function.0).bind(only.map(AliasName::as_str)).fetch_all(conn).await?;
    let mut all: Vec<AliasView> = Vec::new();
    for row in &rows {
        let name: AliasName = parsed(row, "name")?;
        let weight = weight(row)?;
        match all.last_mut().filter(|last| last.name == name) {
            Some(last) => last.versions.push(weight),
            None => all.push(AliasView {
                name,
                versions: vec![weight],
                description: row.try_get("description")?,
                sticky: parsed_opt(row, "sticky")?,
                public: row.try_get("public")?,
                moved_at: row.try_get("moved_at")?,
            }),
        }
    }
    Ok(all)
}

fn weight(row: &PgRow) -> Result<VersionWeight> {
    let weight = u32::try_from(row.try_get::<i16, _>("weight")?);
    let weight = weight.map_err(|e| RegistryError::damaged("weight", e))?;
    Ok(VersionWeight { version: count32(row, "number")?, weight })
}

/// Which versions an alias is to lead to: ready ones, in the order of the settings.
async fn weights(
    conn: &mut PgConnection,
    function: FunctionId,
    settings: &AliasSettings,
) -> Result<Vec<(VersionId, u32)>> {
    let mut shares = Vec::with_capacity(settings.versions.len());
    for (n, one) in settings.versions.iter().enumerate() {
        let found = resolve(conn, function, &Qualifier::Version(one.version)).await;
        let (version, _) = found.map_err(|error| match error {
            RegistryError::Refused(e) => {
                let text = format!("versions[{n}].version: {}", e.message);
                davit_api::ApiError::new(e.code, text).into()
            }
            other => other,
        })?;
        shares.push((version, one.weight));
    }
    Ok(shares)
}

/// Lets an alias lead to these versions, of which the first one is the one whose routes count. The function's row is
/// locked.
pub(super) async fn give(
    conn: &mut PgConnection,
    function: FunctionId,
    name: &AliasName,
    shares: &[(VersionId, u32)],
) -> Result<()> {
    let Some((first, _)) = shares.first() else {
        return Err(RegistryError::conflict("an alias leads somewhere"));
    };
    // The shares there were go first, or with the row's trigger; those there are come last.
    sqlx::query("delete from alias_shares where function_id = $1 and alias = $2")
        .bind(function.0)
        .bind(name.as_str())
        .execute(&mut *conn)
        .await?;
    let made: bool = sqlx::query_scalar(
        "insert into aliases (function_id, name, version_id) values ($1, $2, $3)
         on conflict (function_id, name) do update set version_id = excluded.version_id, moved_at = clock_timestamp()
         returning xmax = 0",
    )
    .bind(function.0)
    .bind(name.as_str())
    .bind(first.0)
    .fetch_one(&mut *conn)
    .await?;
    if shares.len() > 1 {
        sqlx::query(
            "insert into alias_shares (function_id, alias, version_id, weight)
             select $1, $2, g.version_id, g.weight from unnest($3::uuid[], $4::smallint[]) as g(version_id, weight)",
        )
        .bind(function.0)
        .bind(name.as_str())
        .bind(shares.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(shares.iter().map(|(_, weight)| i16::try_from(*weight).unwrap_or(i16::MAX)).collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    }
    if made && name.as_str() == LIVE {
        // What was scheduled before there was anything to call is due from now on.
        sqlx::query("update schedules set due_from = clock_timestamp() where function_id = $1 and next_due_at is null")
            .bind(function.0)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Lets an alias lead to one version, and makes it if there is none of that name.
pub(super) async fn point(
    conn: &mut PgConnection,
    function: FunctionId,
    name: &AliasName,
    version: VersionId,
) -> Result<()> {
    bound(conn, function, name).await?;
    give(conn, function, name, &[(version, 100)]).await
}

/// Refuses an alias more than a function may have.
async fn bound(conn: &mut PgConnection, function: FunctionId, name: &AliasName) -> Result<()> {
    let others: i64 =
        sqlx::query_scalar("select count(*) from aliases where function_id = $1 and name <> $2")
            .bind(function.0)
            .bind(name.as_str())
            .fetch_one(conn)
            .await?;
    if usize::try_from(others).unwrap_or(usize::MAX) >= limits::ALIASES {
        return Err(RegistryError::conflict(format!("a function has at most {} aliases", limits::ALIASES)));
    }
    Ok(())
}

impl Registry {
    /// A function's aliases, by name.
    pub async fn list_aliases(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
    ) -> Result<Vec<AliasView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, function) = function_of(&mut conn, namespace, name).await?;
        views(&mut conn, function, None).await
    }

    /// One of them.
    pub async fn alias(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        alias: &AliasName,
    ) -> Result<AliasView> {
        let mut conn = self.pool.acquire().await?;
        let (_, function) = function_of(&mut conn, namespace, name).await?;
        one(&mut conn, function, alias).await
    }
}

async fn one(conn: &mut PgConnection, function: FunctionId, alias: &AliasName) -> Result<AliasView> {
    let found = views(conn, function, Some(alias)).await?;
    found.into_iter().next().ok_or_else(|| RegistryError::not_found("alias", alias))
}

impl Audited {
    /// Makes an alias, or replaces what it was. Of `live`, the first version's routes, schedules and subscriptions come in
    /// force, and a canary that runs ends.
    pub async fn set_alias(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        alias: &AliasName,
        settings: &AliasSettings,
    ) -> Result<AliasView> {
        settings.check()?;
        let (namespace, name, alias) = (namespace.clone(), name.clone(), alias.clone());
        let settings = settings.clone();
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let shares = weights(conn, function, &settings).await?;
                if alias.as_str() == LIVE {
                    canaries::abort(conn, function, "somebody set the alias live").await?;
                } else {
                    bound(conn, function, &alias).await?;
                    has_live(conn, function, &alias).await?;
                }
                give(conn, function, &alias, &shares).await?;
                if alias.as_str() == LIVE
                    && let Some((first, _)) = shares.first()
                {
                    put_in_force(conn, function, *first).await?;
                }
                sqlx::query(
                    "update aliases set description = $3, sticky = $4, public = $5 where function_id = $1 and name = $2",
                )
                .bind(function.0)
                .bind(alias.as_str())
                .bind(settings.description.as_deref())
                .bind(settings.sticky.as_ref().map(ToString::to_string))
                .bind(settings.public)
                .execute(&mut *conn)
                .await?;
                Ok((one(conn, function, &alias).await?, format!("{name}@{alias}")))
            })
        })
        .await
    }

    /// Removes an alias, unless it is `live` or invocations that wait ask for it by name.
    pub async fn remove_alias(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        alias: &AliasName,
    ) -> Result<()> {
        if alias.as_str() == LIVE {
            let text = "alias: live cannot be removed; `davit delete` removes the function";
            return Err(RegistryError::conflict(text));
        }
        let (namespace, name, alias) = (namespace.clone(), name.clone(), alias.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let waiting: i64 = sqlx::query_scalar(
                    "select count(*) from invocations where function_id = $1 and qualifier = $2",
                )
                .bind(function.0)
                .bind(alias.as_str())
                .fetch_one(&mut *conn)
                .await?;
                if waiting > 0 {
                    let text = format!("alias: {waiting} invocations that have not ended ask for {alias}");
                    return Err(RegistryError::conflict(text));
                }
                let done = sqlx::query("delete from aliases where function_id = $1 and name = $2")
                    .bind(function.0)
                    .bind(alias.as_str())
                    .execute(&mut *conn)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("alias", &alias));
                }
                Ok(((), format!("{name}@{alias}")))
            })
        })
        .await
    }

    /// Gives all of `live` to a version, at once or in steps.
    pub async fn promote(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        promote: &davit_api::Promote,
    ) -> Result<davit_api::VersionView> {
        let (namespace, name, promote) = (namespace.clone(), name.clone(), promote.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let (version, number) = resolve(conn, function, &promote.version).await?;
                match &promote.canary {
                    None => go_live(conn, function, version, "somebody promoted a version").await?,
                    Some(spec) => {
                        canaries::refuse_second(conn, function).await?;
                        canaries::start(conn, function, version, spec).await?;
                    }
                }
                let view = crate::versions::view_by_id(conn, version).await?;
                Ok((view, format!("{name}/{number}")))
            })
        })
        .await
    }
}

async fn has_live(conn: &mut PgConnection, function: FunctionId, alias: &AliasName) -> Result<()> {
    let live: bool =
        sqlx::query_scalar("select exists (select from aliases where function_id = $1 and name = 'live')")
            .bind(function.0)
            .fetch_one(conn)
            .await?;
    if live {
        return Ok(());
    }
    Err(RegistryError::conflict(format!(
        "alias: the function has no live version yet, beside which {alias} could be"
    )))
}
