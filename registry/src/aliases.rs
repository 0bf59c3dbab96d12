//! The alias `live`: which version answers, and with it the routes and schedules in force. Other aliases are in
//! `aliases/named.rs`, shifts in steps in `canaries.rs`.

mod named;

use davit_api::{
    FunctionId, FunctionName, LIVE, NamespaceName, Qualifier, Rollout, ScheduleName, ScheduleSpec, VersionId,
    VersionSpec, VersionView,
};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::namespaces::function_of;
use crate::rows::{int, json, json_opt, to_json};
use crate::{Audited, Registry, RegistryError, Result, canaries};

impl Registry {
    /// Makes a started version ready, and does with it what its deployment asked for, in one step: live with its routes and
    /// schedules, unless it said otherwise. One that a newer deployment overtook becomes ready, and no more.
    pub async fn version_ready_and_live(&self, version: VersionId) -> Result<VersionView> {
        self.transact(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(
                    "select v.state, v.number, v.function_id, v.rollout, f.deleted_at is not null as deleted,
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
                let rollout: Option<Rollout> = json_opt(&row, "rollout")?;
                let rollout = rollout.unwrap_or_default();
                // An alias of its own is nobody else's: it cannot be overtaken.
                if !overtaken || matches!(rollout, Rollout::Alias(_)) {
                    roll_out(conn, FunctionId(row.try_get("function_id")?), version, rollout).await?;
                }
                crate::versions::view_by_id(conn, version).await
            })
        })
        .await
    }
}

/// Does with a ready version what its deployment asked for. The function's row is locked. Without a live version there
/// is nothing to go over from, nor anything that an alias could stand beside: it goes live.
pub(crate) async fn roll_out(
    conn: &mut PgConnection,
    function: FunctionId,
    version: VersionId,
    rollout: Rollout,
) -> Result<()> {
    let live: Option<uuid::Uuid> =
        sqlx::query_scalar("select version_id from aliases where function_id = $1 and name = 'live'")
            .bind(function.0)
            .fetch_optional(&mut *conn)
            .await?;
    match (rollout, live) {
        (Rollout::Live, _) | (_, None) => go_live(conn, function, version, "another version went live").await,
        (Rollout::Hold, _) => Ok(()),
        (Rollout::Alias(name), _) => named::point(conn, function, &name, version).await,
        (Rollout::Canary(_), Some(live)) if live == version.0 => {
            go_live(conn, function, version, "the live version was deployed again").await
        }
        (Rollout::Canary(spec), Some(_)) => canaries::start(conn, function, version, &spec).await,
    }
}

/// A function's version by its number or an alias's name, and its number: a ready one. An alias must lead to no other.
pub(crate) async fn resolve(
    conn: &mut PgConnection,
    function: FunctionId,
    which: &Qualifier,
) -> Result<(VersionId, u32)> {
    let rows =
        match which {
            Qualifier::Version(number) => {
                sqlx::query("select id, number, state from versions where function_id = $1 and number = $2")
                    .bind(function.0)
                    .bind(int(*number))
                    .fetch_all(&mut *conn)
                    .await?
            }
            Qualifier::Alias(name) => sqlx::query(
                "select v.id, v.number, v.state from alias_versions a join versions v on v.id = a.version_id
                 where a.function_id = $1 and a.alias = $2",
            )
            .bind(function.0)
            .bind(name.as_str())
            .fetch_all(&mut *conn)
            .await?,
        };
    let row = match (rows.as_slice(), which) {
        ([row], _) => row,
        ([], Qualifier::Version(number)) => return Err(RegistryError::not_found("version", number)),
        ([], Qualifier::Alias(name)) => return Err(RegistryError::not_found("alias", name)),
        (_, which) => {
            let text = format!("the alias {which} leads to several versions; name one by its number");
            return Err(RegistryError::conflict(text));
        }
    };
    let number = crate::rows::count32(row, "number")?;
    let state: &str = row.try_get("state")?;
    if state != "ready" {
        return Err(RegistryError::conflict(format!("version {number} is {state}, not ready")));
    }
    Ok((VersionId(row.try_get("id")?), number))
}

/// Locks a function's row, so that changes of its aliases take turns; answers its id.
pub(crate) async fn locked(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    name: &FunctionName,
) -> Result<FunctionId> {
    let (_, function) = function_of(conn, namespace, name).await?;
    let there = sqlx::query("select from functions where id = $1 and deleted_at is null for update")
        .bind(function.0)
        .fetch_optional(&mut *conn)
        .await?;
    match there {
        Some(_) => Ok(function),
        None => Err(RegistryError::not_found("function", format_args!("{namespace}/{name}"))),
    }
}

impl Audited {
    /// Gives all of `live` to the version of that number. Without a number: to the version before a canary or a split
    /// of `live`, while there is one; else to the ready version before the live one.
    pub async fn rollback(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        to: Option<u32>,
    ) -> Result<VersionView> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let version = match to {
                    Some(number) => resolve(conn, function, &Qualifier::Version(number)).await?.0,
                    None => before(conn, function).await?,
                };
                go_live(conn, function, version, "somebody rolled back").await?;
                let view = crate::versions::view_by_id(conn, version).await?;
                let object = format!("{name}/{}", view.number);
                Ok((view, object))
            })
        })
        .await
    }
}

/// Where a rollback goes that names no version.
async fn before(conn: &mut PgConnection, function: FunctionId) -> Result<VersionId> {
    let found: Option<uuid::Uuid> = sqlx::query_scalar(
        "select v.id from aliases a join versions w on w.id = a.version_id
         join versions v on v.function_id = a.function_id and v.state = 'ready' and case
            when exists (select from alias_shares s where s.function_id = a.function_id and s.alias = a.name) then v.id = w.id
            else v.number < w.number end
         where a.function_id = $1 and a.name = 'live' order by v.number desc limit 1",
    )
    .bind(function.0)
    .fetch_optional(&mut *conn)
    .await?;
    found
        .map(VersionId)
        .ok_or_else(|| RegistryError::conflict("there is no earlier ready version to go back to"))
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

/// Gives all of `live` to a version, with its routes, schedules and subscriptions. A canary that runs ends; `why` is told
/// as its reason. The function's row is locked.
pub(crate) async fn go_live(
    conn: &mut PgConnection,
    function: FunctionId,
    version: VersionId,
    why: &str,
) -> Result<()> {
    canaries::abort(conn, function, why).await?;
    named::give(conn, function, &live_name(), &[(version, 100)]).await?;
    put_in_force(conn, function, version).await
}

/// Shares `live` out between versions, of which the first one is live already. The function's row is locked.
pub(crate) async fn set_live_shares(
    conn: &mut PgConnection,
    function: FunctionId,
    shares: &[(VersionId, u32)],
) -> Result<()> {
    named::give(conn, function, &live_name(), shares).await
}

fn live_name() -> davit_api::AliasName {
    LIVE.parse().unwrap_or_else(|_| unreachable!("a label"))
}

/// Puts a version's routes, schedules and subscriptions in the place of those of the version before.
async fn put_in_force(conn: &mut PgConnection, function: FunctionId, version: VersionId) -> Result<()> {
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
