//! Everything a gateway needs to route and start functions, read at one instant; or what has changed since such an
//! instant. A gateway reads all of it once, and from then on mostly nothing.

mod read;

use std::time::Duration;

use chrono::{DateTime, Utc};
use davit_api::{
    AliasName, CanaryId, Digest, FunctionId, FunctionName, NamespaceName, Role, Sticky, TokenId, VersionId,
    VersionSpec,
};
use sqlx::Row;

use crate::{Environment, MasterKey, Registry, Result, SourceRow, sources};

/// Notes of changes are kept this long; whoever read before that reads everything again.
const NOTES_KEPT: Duration = Duration::from_secs(3_600);
/// How old a position may be. Well below the age at which notes go, so that none can go in between.
const POSITION_AGE: Duration = Duration::from_secs(1_800);
/// Changed functions that are looked up one by one; of more, everything is read.
const MOST_CHANGED: i64 = 1_000;

/// An alias that is not just `live` with one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedAlias {
    /// Whose.
    pub function_id: FunctionId,
    /// Its name.
    pub name: AliasName,
    /// Its versions by their numbers, and how many calls of a hundred each gets.
    pub shares: Vec<(VersionId, u32)>,
    /// What decides which version a call goes to.
    pub sticky: Option<Sticky>,
    /// Whether its address is as open as its version says.
    pub public: bool,
    /// The canary that shifts it, and the step that is in force.
    pub canary: Option<(CanaryId, u32)>,
}

/// A function that an alias leads to, and the version that it leads to.
#[derive(Clone, PartialEq)]
pub struct RoutedFunction {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: FunctionName,
    /// Its id.
    pub function_id: FunctionId,
    /// The version.
    pub version_id: VersionId,
    /// Its number.
    pub number: u32,
    /// Its settings.
    pub spec: VersionSpec,
    /// Its code.
    pub bundle: Digest,
    /// Size of its code in bytes.
    pub bundle_size: u64,
    /// The image that it was built for.
    pub image_digest: Option<String>,
    /// What its instances are given. It cannot start while secrets are missing.
    pub environment: Environment,
}

impl std::fmt::Debug for RoutedFunction {
    // Without the environment, which holds secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RoutedFunction({}/{}:{})", self.namespace, self.name, self.number)
    }
}

/// A token that callers may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHash {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The namespace it is bound to; none means all.
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Routes, tokens and sources of one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingSnapshot<T = RoutedFunction> {
    /// Every function with its live version.
    pub functions: Vec<T>,
    /// The other versions that aliases lead to.
    pub others: Vec<T>,
    /// Aliases that say more than which version is live.
    pub aliases: Vec<RoutedAlias>,
    /// Every token that is not revoked or expired.
    pub tokens: Vec<TokenHash>,
    /// Every event source.
    pub sources: Vec<SourceRow>,
    /// The instant.
    pub position: RoutingPosition,
}

/// What is different from an earlier instant.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingChanges<T = RoutedFunction> {
    /// Functions with a live version that may have changed.
    pub functions: Vec<T>,
    /// The other versions that their aliases lead to.
    pub others: Vec<T>,
    /// Their aliases that say more than which version is live.
    pub aliases: Vec<RoutedAlias>,
    /// Functions that may have changed. Those that are not in `functions` have no live version any more.
    pub touched: Vec<FunctionId>,
    /// Every token that is not revoked or expired.
    pub tokens: Vec<TokenHash>,
    /// Every event source.
    pub sources: Vec<SourceRow>,
    /// The instant.
    pub position: RoutingPosition,
}

/// An instant, as the database sees it: which transactions were visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingPosition {
    snapshot: String,
    at: DateTime<Utc>,
}

/// What a look for changes came to.
#[derive(Debug, Clone, PartialEq)]
pub enum RoutingNews<T = RoutedFunction> {
    /// Nothing has changed.
    Nothing,
    /// These have.
    Changes(RoutingChanges<T>),
    /// Too much, or since too long ago: everything has to be read.
    ReadAll,
}

/// What a reader makes of each function, as it comes in: thousands of them need not be held twice.
pub trait Keep: Clone + Send + Sync + 'static {
    /// What it is kept as.
    type Kept: Send + 'static;
    /// The kept one, if that is all it takes. A version never changes, but the secrets that it names may.
    fn known(&self, function: FunctionId, version: VersionId) -> Option<Self::Kept>;
    /// Keeps it.
    fn keep(&self, function: RoutedFunction) -> Self::Kept;
}

/// Keeps everything as it was read.
#[derive(Debug, Clone, Copy)]
pub struct AsRead;

impl Keep for AsRead {
    type Kept = RoutedFunction;
    fn known(&self, _: FunctionId, _: VersionId) -> Option<RoutedFunction> {
        None
    }
    fn keep(&self, function: RoutedFunction) -> RoutedFunction {
        function
    }
}

impl Registry {
    /// Reads everything, and opens the secrets in it.
    pub async fn routing_snapshot<K: Keep>(
        &self,
        key: &MasterKey,
        keep: &K,
    ) -> Result<RoutingSnapshot<K::Kept>> {
        let (key, keep) = (key.clone(), keep.clone());
        self.transact(|conn| {
            Box::pin(async move {
                let position = read::begin(conn).await?;
                let read::Versions { live: functions, others } =
                    read::functions(conn, &key, &keep, None).await?;
                let aliases = read::aliases(conn, None).await?;
                let tokens = read::tokens(conn).await?;
                let sources = sources::all(conn, &key).await?;
                Ok(RoutingSnapshot { functions, others, aliases, tokens, sources, position })
            })
        })
        .await
    }

    /// Reads what has changed since `since`. One small statement when nothing has.
    pub async fn routing_changes<K: Keep>(
        &self,
        key: &MasterKey,
        keep: &K,
        since: &RoutingPosition,
    ) -> Result<RoutingNews<K::Kept>> {
        let look = sqlx::query(
            "select $2 < clock_timestamp() - make_interval(secs => $3) as old, exists (select from route_changes
                where xid >= pg_snapshot_xmin($1::text::pg_snapshot)
                and not pg_visible_in_snapshot(xid, $1::text::pg_snapshot)) as changed",
        )
        .bind(&since.snapshot)
        .bind(since.at)
        .bind(POSITION_AGE.as_secs_f64())
        .fetch_one(&self.pool)
        .await?;
        if look.try_get("old")? {
            return Ok(RoutingNews::ReadAll);
        }
        if !look.try_get::<bool, _>("changed")? {
            return Ok(RoutingNews::Nothing);
        }
        let (key, keep, since) = (key.clone(), keep.clone(), since.clone());
        self.transact(|conn| {
            Box::pin(async move {
                let position = read::begin(conn).await?;
                let Some(touched) = read::touched(conn, &since).await? else {
                    return Ok(RoutingNews::ReadAll);
                };
                let versions = read::functions(conn, &key, &keep, Some(&touched)).await?;
                let read::Versions { live: functions, others } = versions;
                let aliases = read::aliases(conn, Some(&touched)).await?;
                let tokens = read::tokens(conn).await?;
                let sources = sources::all(conn, &key).await?;
                let changes =
                    RoutingChanges { functions, others, aliases, touched, tokens, sources, position };
                Ok(RoutingNews::Changes(changes))
            })
        })
        .await
    }

    /// One ready version of a function by its number, whether or not an alias leads to it.
    pub async fn routed_version(
        &self,
        key: &MasterKey,
        function: FunctionId,
        number: u32,
    ) -> Result<Option<RoutedFunction>> {
        let mut conn = self.pool.acquire().await?;
        read::version(&mut conn, key, function, number).await
    }

    /// Removes notes of changes that every reader has passed.
    pub async fn prune_route_changes(&self) -> Result<u64> {
        let done =
            sqlx::query("delete from route_changes where at < clock_timestamp() - make_interval(secs => $1)")
                .bind(NOTES_KEPT.as_secs_f64())
                .execute(&self.pool)
                .await?;
        Ok(done.rows_affected())
    }
}
