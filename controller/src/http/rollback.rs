//! Going back to an earlier version.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{ErrorCode, FunctionName, NamespaceName, Rollback, VersionView};

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Json, Path};
use super::guard::Object;

/// Lets an earlier ready version answer again, with its routes and schedules.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/rollback",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = Rollback, responses((status = 200, body = VersionView)))]
pub(super) async fn rollback(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(Rollback { to }): Json<Rollback>,
) -> Answer<impl IntoResponse> {
    if let Some(number) = to.filter(|n| i32::try_from(*n).is_err()) {
        return Err(Failure::new(ErrorCode::NotFound, format!("there is no version {number}")));
    }
    let view = state.registry.rollback(&namespace, &function, to).await?;
    Ok((Object(format!("{function}/{}", view.number)), axum::Json(view)))
}
