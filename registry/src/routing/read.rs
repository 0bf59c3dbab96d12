//! The statements of one read of routes: all in one transaction that sees one instant.

use std::collections::HashMap;

use davit_api::{CanaryId, FunctionId, NamespaceId, TokenId, VersionId, VersionSpec};
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::{Keep, MOST_CHANGED, RoutedAlias, RoutedFunction, RoutingPosition, TokenHash};
use crate::environment::Environment;
use crate::rows::{count32, count64, digest, json, parsed, parsed_opt};
use crate::{MasterKey, RegistryError, Result};

/// Sealed secrets by namespace and name.
type Sealed = HashMap<NamespaceId, HashMap<String, (Vec<u8>, Vec<u8>)>>;

/// Makes every statement that follows see the instant which this returns.
pub(super) async fn begin(conn: &mut PgConnection) -> Result<RoutingPosition> {
    sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *conn).await?;
    let row = sqlx::query("select pg_current_snapshot()::text as snapshot, clock_timestamp() as at")
        .fetch_one(conn)
        .await?;
    Ok(RoutingPosition { snapshot: row.try_get("snapshot")?, at: row.try_get("at")? })
}

/// Functions that changed after `since`, those whose secrets did among them; `None` when they are too many.
pub(super) async fn touched(
    conn: &mut PgConnection,
    since: &RoutingPosition,
) -> Result<Option<Vec<FunctionId>>> {
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
        "with c as (select function_id, namespace_id from route_changes
            where xid >= pg_snapshot_xmin($1::text::pg_snapshot)
            and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot))
         select function_id from c where function_id is not null
         union
         select f.id from c join functions f on f.namespace_id = c.namespace_id
            join alias_versions a on a.function_id = f.id join versions v on v.id = a.version_id
            where v.spec -> 'secrets' <> '{}' or v.spec -> 'secret_files' <> '{}'
         limit $2",
    )
    .bind(&since.snapshot)
    .bind(MOST_CHANGED + 1)
    .fetch_all(conn)
    .await?;
    let few = ids.len() as i64 <= MOST_CHANGED;
    Ok(few.then(|| ids.into_iter().map(FunctionId).collect()))
}

/// Versions that aliases lead to.
pub(super) struct Versions<T> {
    pub(super) live: Vec<T>,
    pub(super) others: Vec<T>,
}

/// What is read of a version.
const COLUMNS: &str =
    "n.id as namespace_id, n.name as namespace, f.id as function_id, f.name, v.id, v.number,
    v.spec, v.bundle, v.bundle_size, v.image_digest";

/// Versions that aliases of these functions lead to, or of all.
pub(super) async fn functions<K: Keep>(
    conn: &mut PgConnection,
    key: &MasterKey,
    keep: &K,
    of: Option<&[FunctionId]>,
) -> Result<Versions<K::Kept>> {
    let sealed = secrets(conn).await?;
    let of: Option<Vec<_>> = of.map(|ids| ids.iter().map(|id| id.0).collect());
    let statement = format!(
        "select {COLUMNS}, l.version_id is not distinct from v.id as live
         from (select a.function_id, a.version_id from aliases a union select s.function_id, s.version_id from alias_shares s) u
         join versions v on v.id = u.version_id
         join functions f on f.id = u.function_id join namespaces n on n.id = f.namespace_id
         left join aliases l on l.function_id = u.function_id and l.name = 'live'
         where f.deleted_at is null and ($1::uuid[] is null or u.function_id = any($1))"
    );
    // Row by row: a row that was kept is gone before the next one comes. The statement is literals of this file.
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(of).fetch(conn);
    let mut versions = Versions { live: Vec::new(), others: Vec::new() };
    while let Some(row) = rows.try_next().await? {
        let function = FunctionId(row.try_get("function_id")?);
        let kept = match keep.known(function, VersionId(row.try_get("id")?)) {
            Some(known) => known,
            None => keep.keep(routed(&row, &sealed, key)?),
        };
        let to = if row.try_get("live")? { &mut versions.live } else { &mut versions.others };
        to.push(kept);
    }
    Ok(versions)
}

/// One ready version.
pub(super) async fn version(
    conn: &mut PgConnection,
    key: &MasterKey,
    function: FunctionId,
    number: u32,
) -> Result<Option<RoutedFunction>> {
    let statement = format!(
        "select {COLUMNS} from versions v join functions f on f.id = v.function_id
         join namespaces n on n.id = f.namespace_id
         where f.id = $1 and f.deleted_at is null and v.number = $2 and v.state = 'ready'"
    );
    // Literals of this file.
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(function.0)
        .bind(crate::rows::int(number))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let sealed = secrets(conn).await?;
    routed(&row, &sealed, key).map(Some)
}

/// Aliases of these functions, or of all, that say more than which version is live.
pub(super) async fn aliases(conn: &mut PgConnection, of: Option<&[FunctionId]>) -> Result<Vec<RoutedAlias>> {
    let of: Option<Vec<_>> = of.map(|ids| ids.iter().map(|id| id.0).collect());
    let rows = sqlx::query(
        "select a.function_id, a.name, a.sticky, a.public, c.id as canary, c.step,
            array_agg(w.version_id order by v.number) as versions, array_agg(w.weight order by v.number) as weights
         from aliases a join functions f on f.id = a.function_id
         join alias_versions w on w.function_id = a.function_id and w.alias = a.name
         join versions v on v.id = w.version_id
         left join canaries c on c.function_id = a.function_id and c.state = 'running' and a.name = 'live'
         where f.deleted_at is null and ($1::uuid[] is null or a.function_id = any($1))
            and (a.name <> 'live' or exists (select from alias_shares s where s.function_id = a.function_id and s.alias = 'live'))
         group by a.function_id, a.name, a.sticky, a.public, c.id, c.step",
    )
    .bind(of)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let versions: Vec<uuid::Uuid> = row.try_get("versions")?;
            let weights: Vec<i16> = row.try_get("weights")?;
            let weights = weights.into_iter().map(|weight| u32::try_from(weight).unwrap_or(0));
            let canary: Option<uuid::Uuid> = row.try_get("canary")?;
            let canary = canary.map(|id| Ok::<_, RegistryError>((CanaryId(id), count32(row, "step")?)));
            Ok(RoutedAlias {
                function_id: FunctionId(row.try_get("function_id")?),
                name: parsed(row, "name")?,
                shares: versions.into_iter().map(VersionId).zip(weights).collect(),
                sticky: parsed_opt(row, "sticky")?,
                public: row.try_get("public")?,
                canary: canary.transpose()?,
            })
        })
        .collect()
}

async fn secrets(conn: &mut PgConnection) -> Result<Sealed> {
    let mut sealed = Sealed::new();
    let rows = sqlx::query("select namespace_id, name, nonce, sealed from secrets").fetch_all(conn).await?;
    for row in &rows {
        let of = sealed.entry(NamespaceId(row.try_get("namespace_id")?)).or_default();
        of.insert(row.try_get("name")?, (row.try_get("nonce")?, row.try_get("sealed")?));
    }
    Ok(sealed)
}

/// Tokens that callers may show.
pub(super) async fn tokens(conn: &mut PgConnection) -> Result<Vec<TokenHash>> {
    let rows = sqlx::query(
        "select t.id, t.hash, t.role, t.expires_at, n.name as namespace
         from tokens t left join namespaces n on n.id = t.namespace_id
         where t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let hash: &[u8] = row.try_get("hash")?;
            let hash = hash.try_into().map_err(|_| RegistryError::damaged("tokens.hash", "not 32 bytes"))?;
            Ok(TokenHash {
                id: TokenId(row.try_get("id")?),
                hash,
                namespace: parsed_opt(row, "namespace")?,
                role: parsed(row, "role")?,
                expires_at: row.try_get("expires_at")?,
            })
        })
        .collect()
}

fn routed(row: &PgRow, sealed: &Sealed, key: &MasterKey) -> Result<RoutedFunction> {
    let namespace_id = NamespaceId(row.try_get("namespace_id")?);
    let spec: VersionSpec = json(row, "spec")?;
    let environment = Environment::of(&spec, |secret| {
        let (nonce, sealed) = sealed.get(&namespace_id)?.get(secret.as_str())?;
        // One secret that does not open must not take every function's routes away.
        key.open(namespace_id, secret.as_str(), nonce, sealed)
            .inspect_err(|error| tracing::error!(%error, "cannot open a secret"))
            .ok()
    });
    Ok(RoutedFunction {
        namespace: parsed(row, "namespace")?,
        name: parsed(row, "name")?,
        function_id: FunctionId(row.try_get("function_id")?),
        version_id: VersionId(row.try_get("id")?),
        number: count32(row, "number")?,
        spec,
        bundle: digest(row, "bundle")?,
        bundle_size: count64(row, "bundle_size")?,
        image_digest: row.try_get("image_digest")?,
        environment,
    })
}
