//! Builds: who works on a version, what it prints, and how it ends.

use davit_api::{BuildEvent, Digest, FunctionName, NamespaceName, VersionId, VersionSpec};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::aliases::locked;
use crate::rows::{bigint, count32, digest, int, json, parsed, parsed_opt};
use crate::{Audited, Registry, RegistryError, Result};

/// The error of a version whose build was cancelled.
const CANCELLED: &str = "the build was cancelled";

/// A version to build.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildJob {
    /// Which version.
    pub version_id: VersionId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its function.
    pub function: FunctionName,
    /// Its number.
    pub number: u32,
    /// Its settings.
    pub spec: VersionSpec,
    /// Its source archive.
    pub source: Digest,
}

/// Records a change of state in the build's log.
pub(crate) async fn event(
    conn: &mut PgConnection,
    version: VersionId,
    state: &str,
    line: &str,
) -> Result<()> {
    sqlx::query("insert into build_logs (version_id, state, line) values ($1, $2, $3)")
        .bind(version.0)
        .bind(state)
        .bind(line.replace('\0', "\u{fffd}"))
        .execute(conn)
        .await?;
    Ok(())
}

impl Registry {
    /// Takes the oldest version that waits for a builder, or whose builder has been silent for a minute. A
    /// builder never takes over from itself, so a long silent build in a living controller is left alone.
    pub async fn claim_build(&self, builder: Uuid) -> Result<Option<BuildJob>> {
        self.transact(move |conn| {
            Box::pin(async move {
                let row = sqlx::query(
                    "update versions v
                     set state = 'building', builder = $1, build_lease_until = clock_timestamp() + interval '60 seconds'
                     from functions f join namespaces n on n.id = f.namespace_id
                     where f.id = v.function_id and v.id = (
                        select x.id from versions x join functions g on g.id = x.function_id
                        where g.deleted_at is null and (x.state = 'queued' or (x.state in ('building', 'starting')
                            and x.build_lease_until < clock_timestamp() and x.builder <> $1))
                        order by x.created_at for update of x skip locked limit 1)
                     returning v.id, n.name as namespace, f.name as function, v.number, v.spec, v.source",
                )
                .bind(builder)
                .fetch_optional(&mut *conn)
                .await?;
                let Some(row) = row else { return Ok(None) };
                let job = BuildJob {
                    version_id: VersionId(row.try_get("id")?),
                    namespace: parsed(&row, "namespace")?,
                    function: parsed(&row, "function")?,
                    number: count32(&row, "number")?,
                    spec: json(&row, "spec")?,
                    source: digest(&row, "source")?,
                };
                event(conn, job.version_id, "building", "build started").await?;
                Ok(Some(job))
            })
        })
        .await
    }

    /// Says that the builder is alive; `append_build_log` says so too.
    pub async fn heartbeat_build(&self, version: VersionId) -> Result<()> {
        sqlx::query(
            "update versions set build_lease_until = clock_timestamp() + interval '60 seconds'
             where id = $1 and state in ('building', 'starting')",
        )
        .bind(version.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Whether the version is still to be built: nobody has cancelled or removed it.
    pub async fn is_being_built(&self, version: VersionId) -> Result<bool> {
        let found: Option<bool> =
            sqlx::query_scalar("select state in ('building', 'starting') from versions where id = $1")
                .bind(version.0)
                .fetch_optional(&self.pool)
                .await?;
        Ok(found.unwrap_or(false))
    }

    /// Adds lines to a build's log.
    pub async fn append_build_log(&self, version: VersionId, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = lines.iter().map(|l| l.replace('\0', "\u{fffd}")).collect();
        sqlx::query("insert into build_logs (version_id, line) select $1, l from unnest($2::text[]) as l")
            .bind(version.0)
            .bind(lines)
            .execute(&self.pool)
            .await?;
        self.heartbeat_build(version).await
    }

    /// Up to a thousand events after a cursor, in order.
    pub async fn build_events(&self, version: VersionId, after: i64) -> Result<Vec<BuildEvent>> {
        let rows = sqlx::query(
            "select id, at, state, line from build_logs where version_id = $1 and id > $2 order by id limit 1000",
        )
        .bind(version.0)
        .bind(after)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(BuildEvent {
                    cursor: row.try_get("id")?,
                    at: row.try_get("at")?,
                    state: parsed_opt(row, "state")?,
                    line: row.try_get("line")?,
                })
            })
            .collect()
    }

    /// The build is done: the version waits for its first start (`starting`).
    pub async fn finish_build(
        &self,
        version: VersionId,
        bundle: Digest,
        bundle_size: u64,
        image_digest: &str,
    ) -> Result<()> {
        let image = image_digest.to_owned();
        self.transact(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "update versions set state = 'starting', bundle = $2, bundle_size = $3, image_digest = $4,
                        build_lease_until = clock_timestamp() + interval '60 seconds'
                     where id = $1 and state = 'building'",
                )
                .bind(version.0)
                .bind(bundle.as_bytes().as_slice())
                .bind(bigint(bundle_size))
                .bind(image)
                .execute(&mut *conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::conflict("the version is not being built"));
                }
                event(conn, version, "starting", "built; starting a first instance").await
            })
        })
        .await
    }

    /// The version will never be callable.
    pub async fn fail_version(&self, version: VersionId, message: &str) -> Result<()> {
        let message = message.replace('\0', "\u{fffd}");
        self.transact(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "update versions set state = 'failed', error = $2, builder = null, build_lease_until = null
                     where id = $1 and state in ('queued', 'building', 'starting')",
                )
                .bind(version.0)
                .bind(&message)
                .execute(&mut *conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::conflict("the version is not being built"));
                }
                event(conn, version, "failed", &message).await
            })
        })
        .await
    }
}

impl Audited {
    /// Ends the build of a version, or keeps it from beginning. Whoever builds it finds out and stops.
    pub async fn cancel_build(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        number: u32,
    ) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let row = sqlx::query(
                    "select id, state, state in ('queued', 'building', 'starting') as unfinished from versions
                     where function_id = $1 and number = $2 for update",
                )
                .bind(function.0)
                .bind(int(number))
                .fetch_optional(&mut *conn)
                .await?
                .ok_or_else(|| {
                    RegistryError::not_found("version", format_args!("{namespace}/{name}:{number}"))
                })?;
                if !row.try_get::<bool, _>("unfinished")? {
                    let state: String = row.try_get("state")?;
                    return Err(RegistryError::conflict(format!(
                        "version {number} is {state}: there is no build to cancel"
                    )));
                }
                let version = VersionId(row.try_get("id")?);
                sqlx::query(
                    "update versions set state = 'failed', error = $2, builder = null, build_lease_until = null where id = $1",
                )
                .bind(version.0)
                .bind(CANCELLED)
                .execute(&mut *conn)
                .await?;
                event(conn, version, "failed", CANCELLED).await?;
                Ok(((), format!("{name}/{number}")))
            })
        })
        .await
    }
}
