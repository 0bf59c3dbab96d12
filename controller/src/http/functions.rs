//! Functions.

use axum::Json;
use axum::extract::State;
use davit_api::{FunctionDetail, FunctionName, FunctionSummary, NamePart, NamespaceName, Page, RuntimeName};
use davit_registry::FunctionFilter;
use http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Path, Query, page};

/// Which functions, and from where on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<FunctionName>,
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
    /// Only those with this somewhere in their names: lower-case letters, digits and hyphens.
    #[param(value_type = Option<String>)]
    search: Option<NamePart>,
    /// Only those whose live version has this runtime.
    #[param(value_type = Option<String>)]
    runtime: Option<RuntimeName>,
}

/// A namespace's functions by name, with their instances and counters, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions", params(("ns" = NamespaceName, Path), Filter),
    responses((status = 200, body = Page<FunctionSummary>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
    Query(Filter { after, limit, search, runtime }): Query<Filter>,
) -> Answer<Json<Page<FunctionSummary>>> {
    let limit = page(limit, 100, 1_000)?;
    let filter = FunctionFilter { after, search, runtime };
    Ok(Json(state.registry.list_functions(&namespace, &filter, limit).await?))
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
