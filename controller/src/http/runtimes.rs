//! Runtimes: which images they have, whose functions are behind, and moving one of them on.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{
    FunctionBehind, FunctionName, NamespaceName, Page, Rollout, RuntimeName, RuntimeUpgrade, RuntimeView,
    VersionAccepted,
};
use http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path, Query, page};

/// The runtimes that there are, and how many functions of the namespace run in the image that each has now.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/runtimes", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<RuntimeView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<RuntimeView>>> {
    Ok(axum::Json(state.registry.runtimes(&namespace).await?))
}

/// Which of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Behind {
    /// Only those of this runtime.
    runtime: Option<RuntimeName>,
    /// The `next` of the page before.
    after: Option<FunctionName>,
    /// At most this many, 1 to 1,000; 200 without it.
    limit: Option<u32>,
}

/// Functions whose live version runs in an earlier image of its runtime, by name, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/runtimes/behind", params(("ns" = NamespaceName, Path), Behind),
    responses((status = 200, body = Page<FunctionBehind>)))]
pub(super) async fn behind(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
    Query(Behind { runtime, after, limit }): Query<Behind>,
) -> Answer<axum::Json<Page<FunctionBehind>>> {
    let limit = page(limit, 200, 1_000)?;
    let found = state.registry.functions_behind(&namespace, runtime.as_ref(), after.as_ref(), limit).await?;
    Ok(axum::Json(found))
}

/// Builds the function's live version again, in the image that its runtime has now. `unchanged` when it runs in that
/// one, or when such a version was there.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/upgrade",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = RuntimeUpgrade,
    responses((status = 201, body = VersionAccepted), (status = 200, body = VersionAccepted)))]
pub(super) async fn upgrade(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(RuntimeUpgrade { rollout }): Json<RuntimeUpgrade>,
) -> Answer<impl IntoResponse> {
    rollout.as_ref().map_or(Ok(()), Rollout::check)?;
    let accepted = changes.upgrade_runtime(&namespace, &function, rollout).await?;
    let status = if accepted.unchanged { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, axum::Json(accepted)))
}
