//! Functions.

use axum::Json;
use axum::extract::State;
use davit_api::{FunctionDetail, FunctionName, FunctionSummary, NamespaceName};
use http::StatusCode;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Path};

/// A namespace's functions with their instances and counters.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<FunctionSummary>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<Json<Vec<FunctionSummary>>> {
    Ok(Json(state.registry.list_functions(&namespace).await?))
}

/// Everything about one function.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)), responses((status = 200, body = FunctionDetail)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<Json<FunctionDetail>> {
    Ok(Json(state.registry.function_detail(&namespace, &function).await?))
}

/// Deletes a function with its versions, routes and schedules. Its instances end, its name is free again.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/functions/{fn}",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)), responses((status = 204)))]
pub(super) async fn delete(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
) -> Answer<StatusCode> {
    changes.delete_function(&namespace, &function).await?;
    Ok(StatusCode::NO_CONTENT)
}
