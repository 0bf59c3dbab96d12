//! Event sources: who from outside reaches which function. Gateways carry them out; what one needs in somebody's own
//! database is put there and taken away here.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{
    ApiError, ErrorCode, NamespaceName, NewSource, PostgresSource, SourceId, SourceName, SourceSpec,
    SourceSql, SourceView,
};
use davit_outbox::{Address, Installing, Outbox, Session, Trouble};
use davit_registry::Audited;
use http::StatusCode;
use serde::Deserialize;
use tokio::time::{Duration, timeout};

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path, Query};

/// How long a request may take over somebody's database.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long davit's own row may take while somebody's table is locked for the trigger's sake.
const ROW: Duration = Duration::from_secs(5);

/// A namespace's event sources.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/sources", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<SourceView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<SourceView>>> {
    Ok(axum::Json(state.registry.list_sources(&namespace).await?))
}

/// Makes an event source. Its function and, where it needs one, its secret must be there. For changes of a table the
/// outbox is put into its database, unless that is done by hand; when that fails, nothing is made.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/sources", params(("ns" = NamespaceName, Path)),
    request_body = NewSource, responses((status = 201, body = SourceView)))]
pub(super) async fn create(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(new): Json<NewSource>,
) -> Answer<impl IntoResponse> {
    new.spec.check()?;
    let id = SourceId::new();
    let view = match &new.spec {
        SourceSpec::Postgres(spec) if !spec.manual => {
            let outbox = Outbox::new(id, &namespace, &new.name, spec);
            let installing = install(&state, &namespace, spec, &outbox).await?;
            keep(&changes, id, &namespace, &new, installing).await?
        }
        _ => changes.create_source_as(id, &namespace, &new).await?,
    };
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// The outbox, in a transaction of its database that still is to be committed.
async fn install(
    state: &ApiState,
    namespace: &NamespaceName,
    spec: &PostgresSource,
    outbox: &Outbox,
) -> Result<Installing, ApiError> {
    let address = address(state, namespace, spec).await?;
    let installing = Session::install(&address, &state.settings.outbound, outbox);
    let installed = timeout(PATIENCE, installing).await.unwrap_or_else(|_| Err(late()));
    installed.map_err(|trouble| match trouble {
        Trouble::Rights(why) => ApiError::new(
            ErrorCode::Unprocessable,
            format!(
                "secret: the database user lacks a right: {why}; give it, or make the source with manual = true and let \
                 somebody who may run what davit source sql prints"
            ),
        ),
        other => refused(other),
    })
}

/// davit's own row first, theirs last: should this end in between, there is a source that says what it lacks, and not an
/// outbox that nobody empties.
async fn keep(
    changes: &Audited,
    id: SourceId,
    namespace: &NamespaceName,
    new: &NewSource,
    installing: Installing,
) -> Result<SourceView, ApiError> {
    let late = |_| ApiError::new(ErrorCode::Unavailable, "the registry does not answer in time");
    let view = timeout(ROW, changes.create_source_as(id, namespace, new)).await.map_err(late)??;
    if let Err(trouble) = installing.commit().await {
        changes.remove_source(namespace, &new.name).await?;
        return Err(refused(trouble));
    }
    Ok(view)
}

async fn address(
    state: &ApiState,
    namespace: &NamespaceName,
    spec: &PostgresSource,
) -> Result<Address, ApiError> {
    let name = &spec.secret;
    let value = state.registry.secret(namespace, name, &state.master_key).await?;
    let missing = || {
        ApiError::field(
            "secret",
            format!("there is none named {name}; set it first: davit secret set {name}"),
        )
    };
    Address::parse(&value.ok_or_else(missing)?).map_err(refused)
}

/// What is wrong with somebody's database, for whoever asked.
fn refused(trouble: Trouble) -> ApiError {
    let code = match &trouble {
        Trouble::Address(_) | Trouble::Table(_) | Trouble::Columns(_) | Trouble::Order(_) => {
            ErrorCode::InvalidRequest
        }
        Trouble::Busy(_) => ErrorCode::Conflict,
        Trouble::Unreachable(_)
        | Trouble::Refused(_)
        | Trouble::Rights(_)
        | Trouble::Missing(_)
        | Trouble::Database(_) => ErrorCode::Unprocessable,
    };
    ApiError::new(code, format!("{}: {trouble}", trouble.field()))
}

fn late() -> Trouble {
    Trouble::Unreachable(format!("it took longer than {} s", PATIENCE.as_secs()))
}

/// The statements with which a source's outbox is put into its database and taken away, for whoever looks after it.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/sources/{source}/sql",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path)), responses((status = 200, body = SourceSql)))]
pub(super) async fn sql(
    State(state): State<ApiState>,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
) -> Answer<axum::Json<SourceSql>> {
    let view = state.registry.source(&namespace, &source).await?;
    let SourceSpec::Postgres(spec) = &view.spec else {
        let text = format!("source: {source} is a {}, and has nothing in a database", view.spec.kind());
        return Err(ApiError::new(ErrorCode::InvalidRequest, text).into());
    };
    let outbox = Outbox::new(view.id, &namespace, &view.name, spec);
    let sql = SourceSql { install: outbox.install_script(), remove: outbox.remove_script() };
    Ok(axum::Json(sql))
}

/// One event source.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/sources/{source}",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path)), responses((status = 200, body = SourceView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
) -> Answer<axum::Json<SourceView>> {
    Ok(axum::Json(state.registry.source(&namespace, &source).await?))
}

/// What is to become of a source's outbox.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Removal {
    /// It stays in its database, and so does its trigger: for one that cannot be reached any more, or where somebody
    /// else removes it.
    #[serde(default)]
    leave_outbox: bool,
}

/// Removes an event source. What it has delivered is carried out. The outbox of a table's changes is taken out of its
/// database first, with what was not delivered; when that fails, nothing is removed.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/sources/{source}",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path), Removal), responses((status = 204)))]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
    Query(removal): Query<Removal>,
) -> Answer<StatusCode> {
    let view = state.registry.source(&namespace, &source).await?;
    if let SourceSpec::Postgres(spec) = &view.spec
        && !spec.manual
        && !removal.leave_outbox
    {
        let outbox = Outbox::new(view.id, &namespace, &view.name, spec);
        uninstall(&state, &namespace, spec, &outbox).await.map_err(|error| {
            let text = format!(
                "{}; the source is still there. Its trigger would go on writing to a table that nobody empties: let somebody \
                 run what davit source sql {source} --remove prints, and delete the source with leave_outbox=true",
                error.message
            );
            ApiError::new(error.code, text)
        })?;
    }
    changes.remove_source(&namespace, &source).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn uninstall(
    state: &ApiState,
    namespace: &NamespaceName,
    spec: &PostgresSource,
    outbox: &Outbox,
) -> Result<(), ApiError> {
    let address = address(state, namespace, spec).await?;
    let removing = Session::remove(&address, &state.settings.outbound, outbox);
    timeout(PATIENCE, removing).await.unwrap_or_else(|_| Err(late())).map_err(refused)
}

/// Takes nothing until it is resumed; senders are told to try again later.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/sources/{source}/pause",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path)), responses((status = 200, body = SourceView)))]
pub(super) async fn pause(
    Changes(changes): Changes,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
) -> Answer<axum::Json<SourceView>> {
    Ok(axum::Json(changes.pause_source(&namespace, &source, true).await?))
}

/// Takes events again.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/sources/{source}/resume",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path)), responses((status = 200, body = SourceView)))]
pub(super) async fn resume(
    Changes(changes): Changes,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
) -> Answer<axum::Json<SourceView>> {
    Ok(axum::Json(changes.pause_source(&namespace, &source, false).await?))
}
