//! Accepted invocations and what became of them.

use axum::Json;
use axum::extract::State;
use davit_api::{FunctionName, InvocationId, InvocationView, NamespaceName};
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Path, Query, page};

/// How many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Limit {
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
}

/// A function's accepted invocations, newest first.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/invocations",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), Limit),
    responses((status = 200, body = Vec<InvocationView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Query(Limit { limit }): Query<Limit>,
) -> Answer<Json<Vec<InvocationView>>> {
    Ok(Json(state.registry.list_invocations(&namespace, &function, page(limit, 100, 1_000)?).await?))
}

/// One accepted invocation.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/invocations/{id}",
    params(("ns" = NamespaceName, Path), ("id" = InvocationId, Path)), responses((status = 200, body = InvocationView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, id)): Path<(NamespaceName, InvocationId)>,
) -> Answer<Json<InvocationView>> {
    Ok(Json(state.registry.invocation(&namespace, id).await?))
}
