//! The alias `live`: which version answers, and with it the routes and schedules in force.

use davit_api::{
    FunctionId, FunctionName, NamespaceName, ScheduleName, ScheduleSpec, VersionId, VersionSpec, VersionView,
};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::namespaces::function_of;
use crate::rows::{int, json, to_json};
use crate::{Audited, Registry, RegistryError, Result};

impl Registry {
    /// Makes a started version ready and live, with its routes and schedules, in one step. A version that is
    /// ready already just goes live. One that a newer deployment overtook becomes ready, and no more.
    pub async fn version_ready_and_live(&self, version: VersionId) -> Result<VersionView> {
        self.transact(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(
                    "select v.state, v.number, v.function_id, f.deleted_at is not null as deleted,
                        (select w.number from aliases a join versions w on w.id = a.version_id
                         where a.function_id = f.id and a.name = 'live') as live
                     from versions v join functions f on f.id = v.function_id where v.id = $1 for update of f",
                )
                .bind(version.0)
                .fetch_optional(&mut *conn)
                .await?
                .ok_or_else(|| RegistryError::not_found("version", version))?;
                if row.try_get("deleted")? {
                    return Err(RegistryError::conflict("the function was deleted"));
                }
                let overtaken = match row.try_get("state")? {
                    "ready" => false,
                    "starting" => {
                        become_ready(conn, version).await?;
                        row.try_get::<Option<i32>, _>("live")?.unwrap_or(0) > row.try_get::<i32, _>("number")?
                    }
                    other => return Err(RegistryError::conflict(format!("the version is {other}"))),
                };
                if !overtaken {
                    go_live(conn, FunctionId(row.try_get("function_id")?), version).await?;
                }
                crate::versions::view_by_id(conn, version).await
            })
        })
        .await
    }
}

impl Audited {
    /// Moves `live` to the version of that number, or to the ready one before the live one.
    pub async fn rollback(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        to: Option<u32>,
    ) -> Result<VersionView> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let (_, function) = function_of(conn, &namespace, &name).await?;
                sqlx::query("select from functions where id = $1 for update").bind(function.0).execute(&mut *conn).await?;
                let row = sqlx::query(
                    "select v.id, v.state from versions v where v.function_id = $1 and case when $2::int is null
                        then v.state = 'ready' and v.number < (select w.number from aliases a
                            join versions w on w.id = a.version_id where a.function_id = $1 and a.name = 'live')
                        else v.number = $2 end
                     order by v.number desc limit 1",
                )
                .bind(function.0)
                .bind(to.map(int))
                .fetch_optional(&mut *conn)
                .await?
                .ok_or_else(|| match to {
                    Some(number) => RegistryError::not_found("version", format_args!("{namespace}/{name}:{number}")),
                    None => RegistryError::conflict("there is no earlier ready version to go back to"),
                })?;
                let version = VersionId(row.try_get("id")?);
                go_live(conn, function, version).await?;
                let view = crate::versions::view_by_id(conn, version).await?;
                let object = format!("{name}/{}", view.number);
                Ok((view, object))
            })
        })
        .await
    }
}

async fn become_ready(conn: &mut PgConnection, version: VersionId) -> Result<()> {
    sqlx::query(
        "update versions set state = 'ready', ready_at = clock_timestamp(), builder = null, build_lease_until = null
         where id = $1",
    )
    .bind(version.0)
    .execute(&mut *conn)
    .await?;
    crate::builds::event(conn, version, "ready", "ready").await
}

async fn go_live(conn: &mut PgConnection, function: FunctionId, version: VersionId) -> Result<()> {
    let moved = sqlx::query(
        "update aliases set version_id = $2, moved_at = clock_timestamp() where function_id = $1 and name = 'live'",
    )
    .bind(function.0)
    .bind(version.0)
    .execute(&mut *conn)
    .await?;
    if moved.rows_affected() == 0 {
        sqlx::query("insert into aliases (function_id, name, version_id) values ($1, 'live', $2)")
            .bind(function.0)
            .bind(version.0)
            .execute(&mut *conn)
            .await?;
        // What was scheduled before there was anything to call is due from now on.
        sqlx::query("update schedules set due_from = clock_timestamp() where function_id = $1 and next_due_at is null")
            .bind(function.0)
            .execute(&mut *conn)
            .await?;
    }
    let row = sqlx::query("select spec, schedules from versions where id = $1")
        .bind(version.0)
        .fetch_one(&mut *conn)
        .await?;
    let spec: VersionSpec = json(&row, "spec")?;
    let schedules: Vec<(ScheduleName, ScheduleSpec)> = json(&row, "schedules")?;
    put_routes(conn, function, &spec).await?;
    put_schedules(conn, function, &schedules).await?;
    crate::topics::put_subscriptions(conn, function, &spec.subscriptions).await
}

async fn put_routes(conn: &mut PgConnection, function: FunctionId, spec: &VersionSpec) -> Result<()> {
    sqlx::query("delete from routes where function_id = $1").bind(function.0).execute(&mut *conn).await?;
    for route in &spec.routes {
        sqlx::query(
            "insert into routes (function_id, host, method, path, shape) values ($1, $2, $3, $4, $5)",
        )
        .bind(function.0)
        .bind(route.host.as_ref().map_or("", |h| h.as_str()))
        .bind(route.method.as_str())
        .bind(route.path.as_str())
        .bind(route.path.shape())
        .execute(&mut *conn)
        .await
        .map_err(|error| {
            let taken = error.as_database_error().and_then(|e| e.constraint()) == Some("routes_taken");
            match taken {
                true => RegistryError::conflict(format!(
                    "another function has a route like {} {}",
                    route.method, route.path
                )),
                false => error.into(),
            }
        })?;
    }
    Ok(())
}

/// Schedules of the manifest come and go with the version. One that did not change keeps its next instant
/// and, when somebody paused it, its pause.
async fn put_schedules(
    conn: &mut PgConnection,
    function: FunctionId,
    schedules: &[(ScheduleName, ScheduleSpec)],
) -> Result<()> {
    let names: Vec<&str> = schedules.iter().map(|(name, _)| name.as_str()).collect();
    sqlx::query("delete from schedules where function_id = $1 and from_manifest and name <> all($2)")
        .bind(function.0)
        .bind(&names)
        .execute(&mut *conn)
        .await?;
    for (name, spec) in schedules {
        let made = sqlx::query(
            "insert into schedules (id, function_id, name, spec, enabled, from_manifest, due_from)
             values ($1, $2, $3, $4, $5, true, clock_timestamp()) on conflict do nothing",
        )
        .bind(davit_api::ScheduleId::new().0)
        .bind(function.0)
        .bind(name.as_str())
        .bind(to_json(spec)?)
        .bind(spec.enabled)
        .execute(&mut *conn)
        .await?;
        if made.rows_affected() == 1 {
            continue;
        }
        let there = sqlx::query(
            "update schedules set from_manifest = true where function_id = $1 and name = $2
             returning id, spec is distinct from $3 as differs",
        )
        .bind(function.0)
        .bind(name.as_str())
        .bind(to_json(spec)?)
        .fetch_one(&mut *conn)
        .await?;
        if there.try_get("differs")? {
            crate::schedules::put(conn, davit_api::ScheduleId(there.try_get("id")?), spec).await?;
        }
    }
    Ok(())
}
