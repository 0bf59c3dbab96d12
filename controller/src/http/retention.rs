//! How many of a function's versions are kept.

use axum::extract::State;
use davit_api::{FunctionName, NamespaceName, RetentionPolicy, RetentionView};

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path};

/// What is kept in a namespace, of functions that say nothing themselves.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/retention", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = RetentionView)))]
pub(super) async fn of_namespace(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<RetentionView>> {
    Ok(axum::Json(state.registry.namespace_retention(&namespace).await?))
}

/// Says what is kept in a namespace, of functions that say nothing themselves.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/retention", params(("ns" = NamespaceName, Path)),
    request_body = RetentionPolicy, responses((status = 200, body = RetentionView)))]
pub(super) async fn set_of_namespace(
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(policy): Json<RetentionPolicy>,
) -> Answer<axum::Json<RetentionView>> {
    Ok(axum::Json(changes.set_namespace_retention(&namespace, policy).await?))
}

/// What is kept of a function's versions.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/retention",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    responses((status = 200, body = RetentionView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<axum::Json<RetentionView>> {
    Ok(axum::Json(state.registry.function_retention(&namespace, &function).await?))
}

/// Says what is kept of a function's versions.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/functions/{fn}/retention",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = RetentionPolicy, responses((status = 200, body = RetentionView)))]
pub(super) async fn set(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(policy): Json<RetentionPolicy>,
) -> Answer<axum::Json<RetentionView>> {
    Ok(axum::Json(changes.set_function_retention(&namespace, &function, policy).await?))
}
