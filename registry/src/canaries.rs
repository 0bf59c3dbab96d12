//! Canaries: `live` goes over to another version in steps. What to do is decided by the acting controller
//! (`controller/src/canary`); here each step is one transaction that says from which step it goes on, so that no step can
//! be taken twice, whoever asks.

use std::time::Duration;

use davit_api::{
    ApiError, CanaryFigures, CanaryId, CanarySpec, CanaryState, CanaryView, ErrorCode, FunctionId,
    FunctionName, NamespaceName, VersionId, latency,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::aliases::{go_live, locked, set_live_shares};
use crate::namespaces::function_of;
use crate::rows::{bigint, count32, json, json_opt, parsed, to_json};
use crate::{Audited, Registry, RegistryError, Result};

/// Ended ones that are shown, and kept.
const SHOWN: i64 = 20;

/// Start of every statement that reads [`CanaryView`]s, with what was counted in the step that is in force. A canary that
/// has ended says itself what that was.
const VIEW: &str = "select c.id, c.spec, c.step, c.step_at, c.state, c.reason, c.figures, c.started_at, c.ended_at,
        n.name as namespace, f.name as function, c.function_id, v.number as version, b.number as base,
        x.calls as new_calls, x.errors as new_errors, x.platform_errors as new_platform, x.latency as new_latency,
        y.calls as old_calls, y.errors as old_errors, y.platform_errors as old_platform, y.latency as old_latency,
        extract(epoch from clock_timestamp() - c.step_at)::float8 as step_seconds
    from canaries c join functions f on f.id = c.function_id join namespaces n on n.id = f.namespace_id
    join versions v on v.id = c.version_id join versions b on b.id = c.base_id
    left join canary_counts x on x.canary_id = c.id and x.step = c.step and x.version_id = c.version_id
    left join canary_counts y on y.canary_id = c.id and y.step = c.step and y.version_id = c.base_id";

fn select(filter: &str) -> sqlx::AssertSqlSafe<String> {
    // Two literals of this file, never a caller's text.
    sqlx::AssertSqlSafe(format!("{VIEW} {filter}"))
}

/// What gateways have counted of one version in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanaryCounts {
    /// Calls that ended and were not failed by davit itself.
    pub calls: u64,
    /// Those that failed through the function's fault.
    pub errors: u64,
    /// Calls that davit itself failed.
    pub platform_errors: u64,
    /// Calls by how long they ran: the buckets of [`davit_api::latency`].
    pub latency: Vec<u64>,
}

impl CanaryCounts {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, more: &Self) {
        self.calls += more.calls;
        self.errors += more.errors;
        self.platform_errors += more.platform_errors;
        self.latency.resize(self.latency.len().max(more.latency.len()), 0);
        self.latency.iter_mut().zip(&more.latency).for_each(|(sum, more)| *sum += more);
    }

    /// The same as it is shown, with the quantile that the spec bounds.
    pub fn figures(&self, spec: &CanarySpec) -> CanaryFigures {
        CanaryFigures {
            calls: self.calls,
            errors: self.errors,
            platform_errors: self.platform_errors,
            latency_ms: spec
                .max_latency
                .and_then(|limit| latency::quantile(&self.latency, limit.percentile / 100.0)),
        }
    }
}

/// What to add to a version's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryDelta {
    /// Which canary.
    pub canary: CanaryId,
    /// In which of its steps, from 0.
    pub step: u32,
    /// Of which version.
    pub version: VersionId,
    /// What was counted since the last report.
    pub counts: CanaryCounts,
}

impl CanaryDelta {
    /// Whether both are of the same version in the same step.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.canary, self.step, self.version) == (other.canary, other.step, other.version)
    }
}

/// A canary that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningCanary {
    /// Its id.
    pub id: CanaryId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its function.
    pub function: FunctionName,
    /// Number of the version that is tried.
    pub version: u32,
    /// Number of the version that was live before.
    pub base: u32,
    /// How it goes on.
    pub spec: CanarySpec,
    /// Which of the spec's steps is in force, from 0.
    pub step: u32,
    /// For how long, by the database's clock.
    pub step_age: Duration,
    /// What was counted of the new version in it.
    pub new: CanaryCounts,
    /// What was counted of the old one in it.
    pub old: CanaryCounts,
}

fn counts(row: &PgRow, which: &str) -> Result<CanaryCounts> {
    let number = |column: &str| -> Result<u64> {
        let value: Option<i64> = row.try_get(format!("{which}_{column}").as_str())?;
        Ok(value.and_then(|n| u64::try_from(n).ok()).unwrap_or_default())
    };
    let buckets: Option<Vec<i64>> = row.try_get(format!("{which}_latency").as_str())?;
    Ok(CanaryCounts {
        calls: number("calls")?,
        errors: number("errors")?,
        platform_errors: number("platform")?,
        latency: buckets.unwrap_or_default().into_iter().map(|n| u64::try_from(n).unwrap_or(0)).collect(),
    })
}

fn view(row: &PgRow) -> Result<CanaryView> {
    let spec: CanarySpec = json(row, "spec")?;
    let kept: Option<(CanaryFigures, CanaryFigures)> = json_opt(row, "figures")?;
    let (new, old) = match kept {
        Some(kept) => kept,
        None => (counts(row, "new")?.figures(&spec), counts(row, "old")?.figures(&spec)),
    };
    Ok(CanaryView {
        id: CanaryId(row.try_get("id")?),
        version: count32(row, "version")?,
        base: count32(row, "base")?,
        step: count32(row, "step")? + 1,
        state: parsed(row, "state")?,
        reason: row.try_get("reason")?,
        new,
        old,
        started_at: row.try_get("started_at")?,
        step_at: row.try_get("step_at")?,
        ended_at: row.try_get("ended_at")?,
        spec,
    })
}

fn running(row: &PgRow) -> Result<RunningCanary> {
    Ok(RunningCanary {
        id: CanaryId(row.try_get("id")?),
        namespace: parsed(row, "namespace")?,
        function: parsed(row, "function")?,
        version: count32(row, "version")?,
        base: count32(row, "base")?,
        spec: json(row, "spec")?,
        step: count32(row, "step")?,
        step_age: Duration::from_secs_f64(row.try_get::<f64, _>("step_seconds")?.max(0.0)),
        new: counts(row, "new")?,
        old: counts(row, "old")?,
    })
}

/// Starts one from the version that is live; one that runs ends. The function's row is locked and has a live version.
pub(crate) async fn start(
    conn: &mut PgConnection,
    function: FunctionId,
    version: VersionId,
    spec: &CanarySpec,
) -> Result<()> {
    spec.check()?;
    abort(conn, function, "another canary began").await?;
    let base: uuid::Uuid =
        sqlx::query_scalar("select version_id from aliases where function_id = $1 and name = 'live'")
            .bind(function.0)
            .fetch_optional(&mut *conn)
            .await?
            .ok_or_else(|| RegistryError::conflict("the function has no live version to go over from"))?;
    if base == version.0 {
        return Err(RegistryError::conflict("version: it is live already"));
    }
    sqlx::query(
        "insert into canaries (id, function_id, version_id, base_id, spec) values ($1, $2, $3, $4, $5)",
    )
    .bind(CanaryId::new().0)
    .bind(function.0)
    .bind(version.0)
    .bind(base)
    .bind(to_json(spec)?)
    .execute(&mut *conn)
    .await?;
    // Of those that have ended, the last ones stay to be looked at.
    sqlx::query(
        "delete from canaries where id in (select id from canaries where function_id = $1 and state <> 'running'
            order by started_at desc offset $2)",
    )
    .bind(function.0)
    .bind(SHOWN)
    .execute(&mut *conn)
    .await?;
    split(conn, function, VersionId(base), version, spec, 0).await
}

/// Puts a step's weights in force.
async fn split(
    conn: &mut PgConnection,
    function: FunctionId,
    base: VersionId,
    version: VersionId,
    spec: &CanarySpec,
    step: u32,
) -> Result<()> {
    let percent = usize::try_from(step).ok().and_then(|step| spec.steps.get(step)).copied();
    let percent = percent.ok_or_else(|| RegistryError::damaged("canary", format_args!("no step {step}")))?;
    set_live_shares(conn, function, &[(base, 100 - percent), (version, percent)]).await
}

/// Refuses to begin a canary while another runs.
pub(crate) async fn refuse_second(conn: &mut PgConnection, function: FunctionId) -> Result<()> {
    let other: Option<i32> = sqlx::query_scalar(
        "select v.number from canaries c join versions v on v.id = c.version_id
         where c.function_id = $1 and c.state = 'running'",
    )
    .bind(function.0)
    .fetch_optional(conn)
    .await?;
    match other {
        None => Ok(()),
        Some(number) => Err(RegistryError::conflict(format!(
            "canary: one of version {number} is running; `davit canary abort` ends it"
        ))),
    }
}

/// Ends the canary that runs, if one does, and changes no weights: the caller does.
pub(crate) async fn abort(conn: &mut PgConnection, function: FunctionId, why: &str) -> Result<()> {
    let row = sqlx::query(select("where c.function_id = $1 and c.state = 'running' for update of c"))
        .bind(function.0)
        .fetch_optional(&mut *conn)
        .await?;
    match row {
        Some(row) => finish(conn, &row, CanaryState::Aborted, why).await,
        None => Ok(()),
    }
}

/// Records how one ended, with what was counted.
async fn finish(conn: &mut PgConnection, row: &PgRow, state: CanaryState, reason: &str) -> Result<()> {
    let seen = view(row)?;
    sqlx::query(
        "update canaries set state = $2, reason = $3, figures = $4, ended_at = clock_timestamp() where id = $1",
    )
    .bind(seen.id.0)
    .bind(state.as_str())
    .bind(reason)
    .bind(to_json(&(seen.new, seen.old))?)
    .execute(conn)
    .await?;
    Ok(())
}

/// The canary, locked together with its function, if it runs.
async fn held(conn: &mut PgConnection, id: CanaryId) -> Result<Option<PgRow>> {
    // The function first, as everybody does who changes its aliases.
    sqlx::query(
        "select from functions where id = (select function_id from canaries where id = $1) for update",
    )
    .bind(id.0)
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query(select(
        "where c.id = $1 and c.state = 'running' and f.deleted_at is null for update of c",
    ))
    .bind(id.0)
    .fetch_optional(&mut *conn)
    .await?)
}

/// The versions of a row: the old one, and the one that is tried.
async fn pair(conn: &mut PgConnection, id: CanaryId) -> Result<(VersionId, VersionId)> {
    let (base, version) = sqlx::query_as("select base_id, version_id from canaries where id = $1")
        .bind(id.0)
        .fetch_one(conn)
        .await?;
    Ok((VersionId(base), VersionId(version)))
}

impl Registry {
    /// Every canary that runs.
    pub async fn running_canaries(&self) -> Result<Vec<RunningCanary>> {
        let rows = sqlx::query(select("where c.state = 'running' and f.deleted_at is null"))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(running).collect()
    }

    /// A function's canaries, newest first.
    pub async fn list_canaries(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
    ) -> Result<Vec<CanaryView>> {
        let mut conn = self.pool.acquire().await?;
        let (_, function) = function_of(&mut conn, namespace, name).await?;
        let rows = sqlx::query(select("where c.function_id = $1 order by c.started_at desc limit $2"))
            .bind(function.0)
            .bind(SHOWN)
            .fetch_all(&mut *conn)
            .await?;
        rows.iter().map(view).collect()
    }

    /// Adds to what was counted. What belongs to a canary that is gone is passed over.
    pub async fn record_canaries(&self, deltas: &[CanaryDelta]) -> Result<()> {
        // One statement each: there are as many as canaries run, twice, and mostly none.
        for delta in deltas {
            let buckets: Vec<i64> = delta.counts.latency.iter().map(|n| bigint(*n)).collect();
            sqlx::query(
                "insert into canary_counts as k (canary_id, step, version_id, calls, errors, platform_errors, latency)
                 select c.id, $2, $3, $4, $5, $6, $7 from canaries c where c.id = $1 and c.state = 'running'
                 on conflict (canary_id, step, version_id) do update set calls = k.calls + excluded.calls,
                    errors = k.errors + excluded.errors, platform_errors = k.platform_errors + excluded.platform_errors,
                    latency = (select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
                        from unnest(k.latency, excluded.latency) with ordinality as t(a, b, n))",
            )
            .bind(delta.canary.0)
            .bind(crate::rows::int(delta.step))
            .bind(delta.version.0)
            .bind(bigint(delta.counts.calls))
            .bind(bigint(delta.counts.errors))
            .bind(bigint(delta.counts.platform_errors))
            .bind(buckets)
            .execute(&self.pool)
            .await?;
        }
        Ok(())
    }
}

impl Audited {
    /// Goes on from a step: to the next, or, after the last, all to the new version. `false` when it is not in that step
    /// any more, or has not been for as long as it must be, by the database's clock: another controller was quicker.
    pub async fn advance_canary(&self, id: CanaryId, from: u32, reason: &str) -> Result<bool> {
        let reason = reason.to_owned();
        self.change_named(move |conn| {
            Box::pin(async move {
                let Some(row) = held(conn, id).await? else { return Ok((false, String::new())) };
                let canary = running(&row)?;
                let early = canary.step_age < Duration::from_secs(canary.spec.interval_seconds.into());
                if canary.step != from || early {
                    return Ok((false, String::new()));
                }
                let function = FunctionId(row.try_get("function_id")?);
                let (base, version) = pair(conn, id).await?;
                let next = from + 1;
                let percent = canary.spec.steps.get(usize::try_from(next).unwrap_or(usize::MAX));
                let told = percent.copied().unwrap_or(100);
                match percent {
                    Some(_) => {
                        sqlx::query(
                            "update canaries set step = $2, step_at = clock_timestamp() where id = $1",
                        )
                        .bind(id.0)
                        .bind(crate::rows::int(next))
                        .execute(&mut *conn)
                        .await?;
                        split(conn, function, base, version, &canary.spec, next).await?;
                    }
                    None => {
                        finish(conn, &row, CanaryState::Promoted, &reason).await?;
                        go_live(conn, function, version, "").await?;
                    }
                }
                let object = format!("{}/{}/{} {told}%", canary.namespace, canary.function, canary.version);
                Ok((true, object))
            })
        })
        .await
    }

    /// Gives everything back to the old version and says why. `false` when it has ended already.
    pub async fn roll_back_canary(&self, id: CanaryId, reason: &str) -> Result<bool> {
        let reason = reason.to_owned();
        self.change_named(move |conn| {
            Box::pin(async move {
                let Some(row) = held(conn, id).await? else { return Ok((false, String::new())) };
                let canary = running(&row)?;
                finish(conn, &row, CanaryState::RolledBack, &reason).await?;
                let (base, _) = pair(conn, id).await?;
                set_live_shares(conn, FunctionId(row.try_get("function_id")?), &[(base, 100)]).await?;
                Ok((true, format!("{}/{}/{}", canary.namespace, canary.function, canary.version)))
            })
        })
        .await
    }

    /// Ends a function's canary by hand: all to the new version, or all back to the old one.
    pub async fn end_canary(
        &self,
        namespace: &NamespaceName,
        name: &FunctionName,
        promote: bool,
    ) -> Result<CanaryView> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let function = locked(conn, &namespace, &name).await?;
                let row =
                    sqlx::query(select("where c.function_id = $1 and c.state = 'running' for update of c"))
                        .bind(function.0)
                        .fetch_optional(&mut *conn)
                        .await?
                        .ok_or_else(|| ApiError::new(ErrorCode::Conflict, "canary: none is running"))?;
                let id = CanaryId(row.try_get("id")?);
                let (base, version) = pair(conn, id).await?;
                if promote {
                    finish(conn, &row, CanaryState::Promoted, "somebody promoted it").await?;
                    go_live(conn, function, version, "").await?;
                } else {
                    finish(conn, &row, CanaryState::Aborted, "somebody aborted it").await?;
                    set_live_shares(conn, function, &[(base, 100)]).await?;
                }
                let row = sqlx::query(select("where c.id = $1")).bind(id.0).fetch_one(&mut *conn).await?;
                let view = view(&row)?;
                let object = format!("{name}/{}", view.version);
                Ok((view, object))
            })
        })
        .await
    }
}
