//! Event sources: kept here, changed by the management API, carried out by gateways, which hold them in their snapshot.
//! Which gateway fetches the events of one that does not send them is in `hold.rs`.

mod hold;

use davit_api::{
    FunctionId, GatewayId, InvocationId, NamespaceId, NamespaceName, NewSource, SourceId, SourceName,
    SourceSpec, SourceState, SourceStatus, SourceView, limits,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::namespaces::{function_of, id_of};
use crate::rows::{count64, json, parsed, to_json};
use crate::{Audited, MasterKey, Registry, RegistryError, Result};

pub use hold::{Holding, SourceBatch};

/// What a source looks like from outside.
const VIEW: &str =
    "select s.*, n.name as namespace, f.name as function, t.source_id, t.holder, t.state, t.delivered,
        t.last_event_at, t.lag_seconds, t.last_error, t.last_error_at
    from sources s join namespaces n on n.id = s.namespace_id join functions f on f.id = s.function_id
    left join source_states t on t.source_id = s.id";

/// A source as gateways need it.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Its id.
    pub id: SourceId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: SourceName,
    /// The function that gets its events.
    pub function_id: FunctionId,
    /// Where they come from.
    pub spec: SourceSpec,
    /// Whether it takes nothing for now.
    pub paused: bool,
    /// The value of the secret that it names; none when there is none of that name, or it does not open.
    pub secret: Option<String>,
}

impl std::fmt::Debug for SourceRow {
    // Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceRow({}/{})", self.namespace, self.name)
    }
}

fn view(row: &PgRow) -> Result<SourceView> {
    let (namespace, name, spec): (NamespaceName, SourceName, SourceSpec) =
        (parsed(row, "namespace")?, parsed(row, "name")?, json(row, "spec")?);
    Ok(SourceView {
        id: SourceId(row.try_get("id")?),
        function: parsed(row, "function")?,
        paused: row.try_get("paused")?,
        created_at: row.try_get("created_at")?,
        path: spec.path(&namespace, &name),
        status: status(row)?,
        name,
        spec,
    })
}

/// How it is getting on, where its events are fetched.
fn status(row: &PgRow) -> Result<Option<SourceStatus>> {
    if row.try_get::<Option<uuid::Uuid>, _>("source_id")?.is_none() {
        return Ok(None);
    }
    let gateway = row.try_get::<Option<uuid::Uuid>, _>("holder")?.map(GatewayId);
    let state = match (row.try_get("paused")?, gateway) {
        (true, _) => SourceState::Paused,
        (false, None) => SourceState::Unheld,
        (false, Some(_)) => parsed(row, "state")?,
    };
    Ok(Some(SourceStatus {
        state,
        gateway,
        delivered: count64(row, "delivered")?,
        last_event_at: row.try_get("last_event_at")?,
        lag_seconds: row.try_get("lag_seconds")?,
        last_error: row.try_get("last_error")?,
        last_error_at: row.try_get("last_error_at")?,
    }))
}

/// Every source, with the secret that it names.
pub(crate) async fn all(conn: &mut PgConnection, key: &MasterKey) -> Result<Vec<SourceRow>> {
    let rows = sqlx::query(
        "select s.id, s.namespace_id, n.name as namespace, s.name, s.function_id, s.spec, s.paused, x.nonce, x.sealed
         from sources s join namespaces n on n.id = s.namespace_id
         left join secrets x on x.namespace_id = s.namespace_id and x.name = s.spec ->> 'secret'
         order by s.id",
    )
    .fetch_all(conn)
    .await?;
    let read = |row: &PgRow| match whole(row, key) {
        Ok(row) => Some(row),
        Err(error) => {
            // A newer davit may have written it. It must not take everybody's routes away.
            tracing::warn!(%error, "a source cannot be read");
            None
        }
    };
    Ok(rows.iter().filter_map(read).collect())
}

fn whole(row: &PgRow, key: &MasterKey) -> Result<SourceRow> {
    let spec: SourceSpec = json(row, "spec")?;
    let (nonce, sealed): (Option<&[u8]>, Option<&[u8]>) = (row.try_get("nonce")?, row.try_get("sealed")?);
    let secret = match (spec.secret(), nonce, sealed) {
        (Some(name), Some(nonce), Some(sealed)) => key
            .open(NamespaceId(row.try_get("namespace_id")?), name.as_str(), nonce, sealed)
            .inspect_err(|error| tracing::error!(%error, "cannot open a source's secret"))
            .ok(),
        _ => None,
    };
    Ok(SourceRow {
        id: SourceId(row.try_get("id")?),
        namespace: parsed(row, "namespace")?,
        name: parsed(row, "name")?,
        function_id: FunctionId(row.try_get("function_id")?),
        paused: row.try_get("paused")?,
        spec,
        secret,
    })
}

impl Registry {
    /// A namespace's sources, by name; at most [`limits::SOURCES`].
    pub async fn list_sources(&self, namespace: &NamespaceName) -> Result<Vec<SourceView>> {
        let id = self.namespace_id(namespace).await?;
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("{VIEW} where s.namespace_id = $1 order by s.name")))
                .bind(id.0)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(view).collect()
    }

    /// One source.
    pub async fn source(&self, namespace: &NamespaceName, name: &SourceName) -> Result<SourceView> {
        one(&mut *self.pool.acquire().await?, namespace, name).await
    }

    /// The invocation that an idempotency key of a function stands for, whatever its event was.
    pub async fn invocation_known_as(&self, function: FunctionId, key: &str) -> Result<Option<InvocationId>> {
        let id = sqlx::query_scalar(
            "select invocation_id from idempotency_keys where function_id = $1 and key = $2",
        )
        .bind(function.0)
        .bind(key)
        .fetch_optional(&self.pool)
        .await?;
        Ok(id.map(InvocationId))
    }
}

async fn one(conn: &mut PgConnection, namespace: &NamespaceName, name: &SourceName) -> Result<SourceView> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{VIEW} where n.name = $1 and s.name = $2")))
        .bind(namespace.as_str())
        .bind(name.as_str())
        .fetch_optional(conn)
        .await?;
    view(&row.ok_or_else(|| RegistryError::not_found("source", name))?)
}

impl Audited {
    /// Makes a source. Its function and its secret must be there.
    pub async fn create_source(&self, namespace: &NamespaceName, new: &NewSource) -> Result<SourceView> {
        self.create_source_as(SourceId::new(), namespace, new).await
    }

    /// The same with an id that was chosen before, for what goes by it elsewhere.
    pub async fn create_source_as(
        &self,
        id: SourceId,
        namespace: &NamespaceName,
        new: &NewSource,
    ) -> Result<SourceView> {
        let (namespace, new) = (namespace.clone(), new.clone());
        let spec = to_json(&new.spec)?;
        self.change_named(move |conn| {
            Box::pin(async move {
                // Locked, so that two who come at once do not both find room.
                sqlx::query("select from namespaces where name = $1 for no key update")
                    .bind(namespace.as_str())
                    .execute(&mut *conn)
                    .await?;
                let namespace_id = id_of(conn, &namespace).await?;
                let (_, function) = function_of(conn, &namespace, &new.function).await?;
                function_must_stay(conn, function).await?;
                if let Some(secret) = new.spec.secret() {
                    secret_must_exist(conn, namespace_id, secret.as_str()).await?;
                }
                let there: i64 = sqlx::query_scalar("select count(*) from sources where namespace_id = $1")
                    .bind(namespace_id.0)
                    .fetch_one(&mut *conn)
                    .await?;
                if there >= i64::from(limits::SOURCES) {
                    let most = limits::SOURCES;
                    return Err(RegistryError::conflict(format!("a namespace has at most {most} sources")));
                }
                sqlx::query(
                    "insert into sources (id, namespace_id, function_id, name, spec, paused) values ($1, $2, $3, $4, $5, $6)",
                )
                .bind(id.0)
                .bind(namespace_id.0)
                .bind(function.0)
                .bind(new.name.as_str())
                .bind(spec)
                .bind(new.paused)
                .execute(&mut *conn)
                .await?;
                if new.spec.is_fetched() {
                    let state = sqlx::query("insert into source_states (source_id) values ($1)");
                    state.bind(id.0).execute(&mut *conn).await?;
                }
                Ok((one(conn, &namespace, &new.name).await?, new.name.to_string()))
            })
        })
        .await
    }

    /// Pauses a source, or lets it go on. A gateway that fetches its events delivers nothing more from now on.
    pub async fn pause_source(
        &self,
        namespace: &NamespaceName,
        name: &SourceName,
        paused: bool,
    ) -> Result<SourceView> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let found = one(&mut *conn, &namespace, &name).await?;
                sqlx::query("update sources set paused = $2 where id = $1")
                    .bind(found.id.0)
                    .bind(paused)
                    .execute(&mut *conn)
                    .await?;
                if paused {
                    let state = sqlx::query("update source_states set holder = null where source_id = $1");
                    state.bind(found.id.0).execute(&mut *conn).await?;
                }
                one(conn, &namespace, &name).await
            })
        })
        .await
    }

    /// Removes a source. What it has delivered is carried out.
    pub async fn remove_source(&self, namespace: &NamespaceName, name: &SourceName) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let found = one(conn, &namespace, &name).await?;
                sqlx::query("delete from sources where id = $1").bind(found.id.0).execute(conn).await?;
                Ok(())
            })
        })
        .await
    }
}

async fn secret_must_exist(conn: &mut PgConnection, namespace: NamespaceId, name: &str) -> Result<()> {
    let there: bool =
        sqlx::query_scalar("select exists (select from secrets where namespace_id = $1 and name = $2)")
            .bind(namespace.0)
            .bind(name)
            .fetch_one(conn)
            .await?;
    if there {
        return Ok(());
    }
    let text = format!("there is none named {name}; set it first: davit secret set {name}");
    Err(davit_api::ApiError::field("secret", text).into())
}

/// Refuses when a source fetches events for the function.
pub(crate) async fn none_fetched(conn: &mut PgConnection, function: FunctionId) -> Result<()> {
    // Whoever makes a source for it meanwhile waits, and finds no function.
    sqlx::query("select from functions where id = $1 for update")
        .bind(function.0)
        .execute(&mut *conn)
        .await?;
    let found: Option<String> = sqlx::query_scalar(
        "select s.name from sources s join source_states t on t.source_id = s.id where s.function_id = $1 order by s.name limit 1",
    )
    .bind(function.0)
    .fetch_optional(conn)
    .await?;
    match found {
        Some(name) => Err(RegistryError::conflict(format!(
            "the source {name} fetches events for this function; delete it first: davit source delete {name}"
        ))),
        None => Ok(()),
    }
}

/// Whoever deletes the function now waits, and finds the source.
async fn function_must_stay(conn: &mut PgConnection, function: FunctionId) -> Result<()> {
    let there = sqlx::query("select from functions where id = $1 and deleted_at is null for share")
        .bind(function.0)
        .fetch_optional(conn)
        .await?;
    there.map(drop).ok_or_else(|| RegistryError::not_found("function", function))
}
