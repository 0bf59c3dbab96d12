//! Runtime images: which one each runtime has now, and which versions run in an earlier one.

use davit_api::{
    ApiError, ErrorCode, FunctionBehind, FunctionName, NamespaceName, Page, Rollout, RuntimeName,
    RuntimeView, VersionAccepted, VersionId,
};
use sqlx::Row;

use crate::aliases::locked;
use crate::rows::{count32, json_opt, parsed};
use crate::versions::{Content, Reuse, accept, named, view_by_id};
use crate::{Audited, Registry, RegistryError, Result};

/// The live versions of a namespace's functions that have a runtime: `live`, for a statement that goes on with it.
const LIVE: &str = "with live as (
        select f.name, v.number, v.spec ->> 'runtime' as runtime, v.image_digest
        from namespaces n join functions f on f.namespace_id = n.id and f.deleted_at is null
        join aliases a on a.function_id = f.id and a.name = 'live' join versions v on v.id = a.version_id
        where n.name = $1 and v.spec ->> 'runtime' <> 'image')";

fn of_live(rest: &str) -> sqlx::AssertSqlSafe<String> {
    // Two literals of this file, never a caller's text.
    sqlx::AssertSqlSafe(format!("{LIVE} {rest}"))
}

impl Registry {
    /// Notes the images that runtimes have on this host now, all of them. Says how many have changed.
    pub async fn note_runtime_images(&self, images: &[(RuntimeName, String)]) -> Result<u64> {
        let runtimes: Vec<String> = images.iter().map(|(runtime, _)| runtime.to_string()).collect();
        let ids: Vec<String> = images.iter().map(|(_, id)| id.clone()).collect();
        let changed = sqlx::query(
            "with now as (select * from unnest($1::text[], $2::text[]) as u(runtime, image_id)),
                gone as (delete from runtime_images where runtime not in (select runtime from now))
             insert into runtime_images (runtime, image_id) select runtime, image_id from now
             on conflict (runtime) do update set image_id = excluded.image_id, since = clock_timestamp()
                where runtime_images.image_id <> excluded.image_id",
        )
        .bind(runtimes)
        .bind(ids)
        .execute(&self.pool)
        .await?;
        Ok(changed.rows_affected())
    }

    /// The runtimes on this host and those that the namespace's live versions have, by name. Reads every function of the
    /// namespace: for people, not for every moment.
    pub async fn runtimes(&self, namespace: &NamespaceName) -> Result<Vec<RuntimeView>> {
        let rows = sqlx::query(of_live(
            "select coalesce(r.runtime, l.runtime) as runtime, r.image_id, r.since,
                (count(*) filter (where l.image_digest = r.image_id))::int as current,
                (count(*) filter (where l.image_digest <> r.image_id))::int as behind
            from runtime_images r full join live l on l.runtime = r.runtime
            group by 1, 2, 3 order by 1",
        ))
        .bind(namespace.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(RuntimeView {
                    runtime: parsed(row, "runtime")?,
                    image_id: row.try_get("image_id")?,
                    since: row.try_get("since")?,
                    current: count32(row, "current")?,
                    behind: count32(row, "behind")?,
                })
            })
            .collect()
    }

    /// Functions whose live version runs in an earlier image of its runtime, by name: of all runtimes or of one.
    pub async fn functions_behind(
        &self,
        namespace: &NamespaceName,
        runtime: Option<&RuntimeName>,
        after: Option<&FunctionName>,
        limit: u32,
    ) -> Result<Page<FunctionBehind>> {
        let rows = sqlx::query(of_live(
            "select l.* from live l join runtime_images r on r.runtime = l.runtime and r.image_id <> l.image_digest
             where ($2::text is null or l.runtime = $2) and ($3::text is null or l.name > $3)
             order by l.name limit $4",
        ))
        .bind(namespace.as_str())
        .bind(runtime.map(RuntimeName::as_str))
        .bind(after.map(FunctionName::as_str))
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await?;
        let found = rows.iter().map(|row| {
            Ok(FunctionBehind {
                name: parsed(row, "name")?,
                version: count32(row, "number")?,
                runtime: parsed(row, "runtime")?,
                image_id: row.try_get("image_digest")?,
            })
        });
        Ok(Page::cut(found.collect::<Result<_>>()?, limit, |function| function.name.to_string()))
    }

    /// The runtimes of versions that some alias leads to, with the ids of the images that they run in. Reads every alias:
    /// not for every moment.
    pub async fn runtime_images_in_use(&self) -> Result<Vec<(RuntimeName, String)>> {
        let sql = "select distinct v.spec ->> 'runtime' as runtime, v.image_digest
            from aliases a join versions v on v.id = a.version_id and v.function_id = a.function_id
            where v.state = 'ready' and v.image_digest is not null and v.spec ->> 'runtime' <> 'image'";
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((parsed(row, "runtime")?, row.try_get("image_digest")?))).collect()
    }

    /// Ids of the images that some version runs in, or may soon.
    pub async fn images_of_versions(&self) -> Result<Vec<String>> {
        let sql =
            "select distinct image_digest from versions where image_digest is not null and state <> 'failed'";
        Ok(sqlx::query_scalar(sql).fetch_all(&self.pool).await?)
    }
}

impl Audited {
    /// Asks for a function's live version once more, in the image that its runtime has now: the same source, settings and
    /// schedules. What runs in that image already is answered as it is; a version that was made of the same before is
    /// taken instead of being built again.
    pub async fn upgrade_runtime(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        rollout: Option<Rollout>,
    ) -> Result<VersionAccepted> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let live = sqlx::query(
                    "select v.id, v.rollout, v.spec ->> 'runtime' as runtime, v.image_digest, r.image_id,
                        v.spec, v.schedules, v.source, v.git_commit, v.description
                     from aliases a join versions v on v.id = a.version_id
                     left join runtime_images r on r.runtime = v.spec ->> 'runtime'
                     where a.function_id = $1 and a.name = 'live'",
                )
                .bind(function.0)
                .fetch_optional(&mut *conn)
                .await?;
                let live = live.ok_or_else(|| {
                    RegistryError::conflict(format!("no version of {name} is live; deploy it"))
                })?;
                let runtime: RuntimeName = parsed(&live, "runtime")?;
                if runtime.is_own_image() {
                    return Err(RegistryError::Refused(ApiError::new(
                        ErrorCode::Unprocessable,
                        format!("{name} has an image of its own; deploy it again to have a newer one"),
                    )));
                }
                let now: Option<String> = live.try_get("image_id")?;
                let now = now.ok_or_else(|| {
                    RegistryError::Refused(ApiError::new(
                        ErrorCode::Unprocessable,
                        format!(
                            "there is no image of {runtime} on the host that davit looks after; make it with \
                             `scripts/images.sh {runtime}` or load it with `davit images load`"
                        ),
                    ))
                })?;
                if live.try_get::<Option<String>, _>("image_digest")?.as_deref() == Some(now.as_str()) {
                    return named(&name, true, view_by_id(conn, VersionId(live.try_get("id")?)).await?);
                }
                let rollout = match (rollout, json_opt(&live, "rollout")?) {
                    (Some(asked), _) => asked,
                    (None, Some(Rollout::Canary(spec))) => Rollout::Canary(spec),
                    (None, _) => Rollout::Live,
                };
                let content = Content {
                    spec: live.try_get("spec")?,
                    schedules: live.try_get("schedules")?,
                    source: live.try_get("source")?,
                    git_commit: live.try_get("git_commit")?,
                    description: live.try_get("description")?,
                };
                let why = "accepted: the runtime's image is a newer one";
                accept(conn, (function, &name), content, rollout, Reuse::Of(now), why).await
            })
        })
        .await
    }
}
