//! Event sources: who from outside reaches which function. Gateways carry them out.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{NamespaceName, NewSource, SourceName, SourceView};
use http::StatusCode;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path};

/// A namespace's event sources.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/sources", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<SourceView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<SourceView>>> {
    Ok(axum::Json(state.registry.list_sources(&namespace).await?))
}

/// Makes an event source. Its function and, where it needs one, its secret must be there.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/sources", params(("ns" = NamespaceName, Path)),
    request_body = NewSource, responses((status = 201, body = SourceView)))]
pub(super) async fn create(
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(new): Json<NewSource>,
) -> Answer<impl IntoResponse> {
    new.spec.check()?;
    Ok((StatusCode::CREATED, axum::Json(changes.create_source(&namespace, &new).await?)))
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

/// Removes an event source. What it has delivered is carried out.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/sources/{source}",
    params(("ns" = NamespaceName, Path), ("source" = SourceName, Path)), responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, source)): Path<(NamespaceName, SourceName)>,
) -> Answer<StatusCode> {
    changes.remove_source(&namespace, &source).await?;
    Ok(StatusCode::NO_CONTENT)
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
