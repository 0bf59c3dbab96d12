//! Versions: what was handed in, and how far it has come.

use davit_api::{
    FunctionId, FunctionName, NamespaceName, NewVersion, Page, PoolKey, Rollout, ScheduleName, ScheduleSpec,
    VersionAccepted, VersionId, VersionSpec, VersionView,
};
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::namespaces::id_of;
use crate::rows::{count32, digest, digest_opt, json, json_opt, parsed, to_json};
use crate::{Audited, Registry, RegistryError, Result};

/// Start of every statement that reads [`VersionView`]s.
const VIEW: &str =
    "select v.id, v.number, v.state, (a.version_id is not null) as live, v.spec, v.source, v.bundle,
        v.bundle_size, v.image_digest, v.git_commit, v.description, v.error, v.created_at, v.ready_at,
        (select json_agg(json_build_object('alias', w.alias, 'weight', w.weight) order by w.alias)
            from alias_versions w where w.version_id = v.id) as aliases
    from versions v
    join functions f on f.id = v.function_id
    join namespaces n on n.id = f.namespace_id
    left join aliases a on a.version_id = v.id and a.name = 'live'";

fn view(row: &PgRow) -> Result<VersionView> {
    let spec: VersionSpec = json(row, "spec")?;
    Ok(VersionView {
        id: VersionId(row.try_get("id")?),
        number: count32(row, "number")?,
        state: parsed(row, "state")?,
        live: row.try_get("live")?,
        aliases: json_opt(row, "aliases")?.unwrap_or_default(),
        description: row.try_get("description")?,
        image_id: row.try_get("image_digest")?,
        spec,
        source: digest(row, "source")?,
        bundle: digest_opt(row, "bundle")?,
        bundle_size: row.try_get::<Option<i64>, _>("bundle_size")?.and_then(|n| u64::try_from(n).ok()),
        git_commit: row.try_get("git_commit")?,
        error: row.try_get("error")?,
        created_at: row.try_get("created_at")?,
        ready_at: row.try_get("ready_at")?,
    })
}

/// As [`select`], without the OpenAPI documents: in a list they would be most of it.
fn select_brief(filter: &str) -> sqlx::AssertSqlSafe<String> {
    let brief = VIEW.replacen("v.spec,", "v.spec - 'openapi' as spec,", 1);
    sqlx::AssertSqlSafe(format!("{brief} {filter}"))
}

fn select(filter: &str) -> sqlx::AssertSqlSafe<String> {
    // Two literals of this file, never a caller's text.
    sqlx::AssertSqlSafe(format!("{VIEW} {filter}"))
}

pub(crate) async fn view_by_id(conn: &mut PgConnection, id: VersionId) -> Result<VersionView> {
    let row = sqlx::query(select("where v.id = $1")).bind(id.0).fetch_optional(conn).await?;
    view(&row.ok_or_else(|| RegistryError::not_found("version", id))?)
}

impl Audited {
    /// Accepts a deployment: a new version in state `queued`, or, when the same source with the same settings
    /// is ready already, that version again, with which at once is done what the deployment asks for. Makes the function
    /// when it is new.
    pub async fn create_version(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        new: &NewVersion,
    ) -> Result<VersionAccepted> {
        let (namespace, name, new) = (namespace.clone(), name.clone(), new.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let schedules: Vec<(&ScheduleName, &ScheduleSpec)> = new.schedules.iter().collect();
                let function = ensure_function(conn, &namespace, &name).await?;
                sqlx::query("update artifacts set touched_at = clock_timestamp() where digest = $1")
                    .bind(new.source.as_bytes().as_slice())
                    .execute(&mut *conn)
                    .await?;
                // What a tag leads to may be another image by now.
                let reuse = if new.spec.is_fixed() { Reuse::OfAnyImage } else { Reuse::Never };
                let content = Content {
                    spec: to_json(&new.spec)?,
                    schedules: to_json(&schedules)?,
                    source: new.source.as_bytes().to_vec(),
                    git_commit: new.git_commit,
                    description: new.description,
                };
                accept(conn, (function, &name), content, new.rollout, reuse, "accepted").await
            })
        })
        .await
    }
}

/// What a version is made from, and what is said about it.
pub(crate) struct Content {
    pub(crate) spec: Value,
    pub(crate) schedules: Value,
    /// Digest of the source archive.
    pub(crate) source: Vec<u8>,
    pub(crate) git_commit: Option<String>,
    pub(crate) description: Option<String>,
}

/// When a ready version with the same source, settings and schedules is taken instead of a new one.
pub(crate) enum Reuse {
    Never,
    OfAnyImage,
    /// Only one that runs in the image with this id.
    Of(String),
}

/// Queues a version of a function whose row is locked; or rolls out one that is ready and the same. `why` stands in the build's log.
pub(crate) async fn accept(
    conn: &mut PgConnection,
    (function, name): (FunctionId, &FunctionName),
    content: Content,
    rollout: Rollout,
    reuse: Reuse,
    why: &str,
) -> Result<(VersionAccepted, String)> {
    if let Rollout::Canary(_) = rollout {
        crate::canaries::refuse_second(conn, function).await?;
    }
    let (reuses, image) = match reuse {
        Reuse::Never => (false, None),
        Reuse::OfAnyImage => (true, None),
        Reuse::Of(image) => (true, Some(image)),
    };
    // Of two that differ by their runtime's image, the live one.
    let same = sqlx::query_scalar(
        "select id from versions where function_id = $1 and state = 'ready' and source = $2
         and spec = $3 and schedules = $4 and $5::boolean and ($6::text is null or image_digest = $6)
         order by exists (select from aliases a where a.version_id = versions.id and a.name = 'live') desc,
            number desc limit 1",
    )
    .bind(function.0)
    .bind(&content.source)
    .bind(&content.spec)
    .bind(&content.schedules)
    .bind(reuses)
    .bind(image)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(id) = same {
        let id = VersionId(id);
        crate::aliases::roll_out(conn, function, id, rollout).await?;
        return named(name, true, view_by_id(conn, id).await?);
    }
    let id = VersionId::new();
    let rollout = if rollout == Rollout::Live { None } else { Some(to_json(&rollout)?) };
    sqlx::query(
        "with f as (update functions set last_number = last_number + 1 where id = $2 returning last_number)
         insert into versions (id, function_id, number, spec, schedules, source, git_commit, description, rollout)
         select $1, $2, f.last_number, $3, $4, $5, $6, $7, $8 from f",
    )
    .bind(id.0)
    .bind(function.0)
    .bind(content.spec)
    .bind(content.schedules)
    .bind(content.source)
    .bind(content.git_commit)
    .bind(content.description)
    .bind(rollout)
    .execute(&mut *conn)
    .await?;
    crate::builds::event(conn, id, "queued", why).await?;
    named(name, false, view_by_id(conn, id).await?)
}

/// A version with what the audit log calls it.
pub(crate) fn named(
    function: &FunctionName,
    unchanged: bool,
    version: VersionView,
) -> Result<(VersionAccepted, String)> {
    let object = format!("{function}/{}", version.number);
    Ok((VersionAccepted { unchanged, version }, object))
}

impl Registry {
    /// What instances of live versions with an image of their own are started from, those of the newest versions first, at
    /// most so many kinds. Reads every alias: not for every moment.
    pub async fn own_images_live(&self, limit: u32) -> Result<Vec<PoolKey>> {
        let sql = "select v.spec - 'openapi' as spec, v.image_digest from versions v
            where v.state = 'ready' and v.spec ->> 'runtime' = 'image' and v.image_digest is not null
            and exists (select from aliases a where a.version_id = v.id and a.function_id = v.function_id)
            order by v.ready_at desc limit $1";
        // A few versions may be of one kind.
        let rows = sqlx::query(sql).bind(i64::from(limit) * 4).fetch_all(&self.pool).await?;
        let mut keys = Vec::new();
        for row in &rows {
            let (spec, image): (VersionSpec, String) = (json(row, "spec")?, row.try_get("image_digest")?);
            let key = PoolKey::of(&spec, &image);
            if keys.len() < limit as usize && !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// The live versions of a namespace's functions by name, or of one: name, number and settings. At most so many; the size
    /// of their OpenAPI documents is what it costs.
    pub async fn live_specs(
        &self,
        namespace: &NamespaceName,
        function: Option<&FunctionName>,
        limit: u32,
    ) -> Result<Vec<(FunctionName, u32, VersionSpec)>> {
        let mut conn = self.pool.acquire().await?;
        let namespace_id = id_of(&mut conn, namespace).await?;
        if let Some(function) = function {
            crate::namespaces::function_of(&mut conn, namespace, function).await?;
        }
        let sql = "select f.name, v.number, v.spec from functions f
            join aliases a on a.function_id = f.id and a.name = 'live'
            join versions v on v.id = a.version_id
            where f.namespace_id = $1 and f.deleted_at is null and ($2::text is null or f.name = $2)
            order by f.name limit $3";
        let rows = sqlx::query(sql)
            .bind(namespace_id.0)
            .bind(function.map(FunctionName::as_str))
            .bind(i64::from(limit))
            .fetch_all(&mut *conn)
            .await?;
        rows.iter()
            .map(|row| Ok((parsed(row, "name")?, count32(row, "number")?, json(row, "spec")?)))
            .collect()
    }

    /// A function's versions, newest first, at most so many; with `after`, only older ones than that number.
    pub async fn list_versions(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        after: Option<u32>,
        limit: u32,
    ) -> Result<Page<VersionView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, function) = crate::namespaces::function_of(&mut conn, namespace, name).await?;
        // By the index of a function's numbers.
        let rows = sqlx::query(select_brief(
            "where v.function_id = $1 and v.number < $2 order by v.number desc limit $3",
        ))
        .bind(function.0)
        .bind(after.map_or(i64::MAX, i64::from))
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *conn)
        .await?;
        let found: Vec<VersionView> = rows.iter().map(view).collect::<Result<_>>()?;
        Ok(Page::cut(found, limit, |v| v.number.to_string()))
    }

    /// A function's live version, and its newest one if that is another.
    pub(crate) async fn live_and_latest(
        &self,
        function: FunctionId,
    ) -> Result<(Option<VersionView>, Option<VersionView>)> {
        let rows = sqlx::query(select(
            "where v.id in ((select version_id from aliases where function_id = $1 and name = 'live'),
                (select id from versions where function_id = $1 order by number desc limit 1))",
        ))
        .bind(function.0)
        .fetch_all(&self.pool)
        .await?;
        let found: Vec<VersionView> = rows.iter().map(view).collect::<Result<_>>()?;
        let (live, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|v| v.live);
        Ok((live.into_iter().next(), other.into_iter().next()))
    }

    /// The schedules that a version brings.
    pub async fn schedules_of_version(&self, id: VersionId) -> Result<Vec<(ScheduleName, ScheduleSpec)>> {
        let row = sqlx::query("select schedules from versions where id = $1")
            .bind(id.0)
            .fetch_one(&self.pool)
            .await?;
        json(&row, "schedules")
    }

    /// One version by its number.
    pub async fn version(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        number: u32,
    ) -> Result<VersionView> {
        let row = sqlx::query(select(
            "where n.name = $1 and f.name = $2 and f.deleted_at is null and v.number = $3",
        ))
        .bind(namespace.as_str())
        .bind(name.as_str())
        .bind(i64::from(number))
        .fetch_optional(&self.pool)
        .await?;
        view(&row.ok_or_else(|| {
            RegistryError::not_found("version", format_args!("{namespace}/{name}:{number}"))
        })?)
    }
}

/// Finds or makes the function and locks its row, so that deployments of one function take turns.
async fn ensure_function(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    name: &FunctionName,
) -> Result<FunctionId> {
    let namespace = id_of(conn, namespace).await?;
    sqlx::query(
        "insert into functions (id, namespace_id, name) values ($1, $2, $3)
         on conflict (namespace_id, name) where deleted_at is null do nothing",
    )
    .bind(FunctionId::new().0)
    .bind(namespace.0)
    .bind(name.as_str())
    .execute(&mut *conn)
    .await?;
    let id = sqlx::query_scalar(
        "select id from functions where namespace_id = $1 and name = $2 and deleted_at is null for update",
    )
    .bind(namespace.0)
    .bind(name.as_str())
    .fetch_optional(&mut *conn)
    .await?;
    id.map(FunctionId).ok_or_else(|| RegistryError::conflict("the function is being deleted; try again"))
}
