//! Dead letters: invocations whose attempts or age were used up. They are listed among the others
//! (`?state=dead`), made again, or removed.

use axum::response::IntoResponse;
use davit_api::{BatchAccepted, DeadLetters, NamespaceName, Purged};
use http::StatusCode;

use super::error::Answer;
use super::extract::{Changes, Json, Path};

/// Accepts dead letters again that were not yet, the oldest first, at most a thousand a call: the answer is empty when
/// none is left.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/dead-letters/redrive", params(("ns" = NamespaceName, Path)),
    request_body = DeadLetters, responses((status = 202, body = BatchAccepted)))]
pub(super) async fn redrive(
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(which): Json<DeadLetters>,
) -> Answer<impl IntoResponse> {
    let invocation_ids = changes.redrive(&namespace, which.function.as_ref(), which.invocation).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(BatchAccepted { invocation_ids })))
}

/// Removes dead letters for good, at most a thousand a call.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/dead-letters/purge", params(("ns" = NamespaceName, Path)),
    request_body = DeadLetters, responses((status = 200, body = Purged)))]
pub(super) async fn purge(
    Changes(changes): Changes,
    Path(namespace): Path<NamespaceName>,
    Json(which): Json<DeadLetters>,
) -> Answer<axum::Json<Purged>> {
    let purged = changes.purge_dead(&namespace, which.function.as_ref(), which.invocation).await?;
    Ok(axum::Json(Purged { purged }))
}
