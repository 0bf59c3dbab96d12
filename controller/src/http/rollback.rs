//! Going back to an earlier version.

use davit_api::{ErrorCode, FunctionName, NamespaceName, Rollback, VersionView};

use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path};

/// Lets an earlier ready version answer again, with its routes and schedules.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/functions/{fn}/rollback",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path)),
    request_body = Rollback, responses((status = 200, body = VersionView)))]
pub(super) async fn rollback(
    Changes(changes): Changes,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Json(Rollback { to }): Json<Rollback>,
) -> Answer<axum::Json<VersionView>> {
    if let Some(number) = to.filter(|n| i32::try_from(*n).is_err()) {
        return Err(Failure::new(ErrorCode::NotFound, format!("there is no version {number}")));
    }
    Ok(axum::Json(changes.rollback(&namespace, &function, to).await?))
}
