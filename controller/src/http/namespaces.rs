//! Namespaces.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{NamespaceName, NewNamespace};
use http::StatusCode;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json};
use crate::auth::Caller;

/// The namespaces that the token may see.
#[utoipa::path(get, path = "/v1/namespaces", responses((status = 200, body = Vec<NamespaceName>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Answer<axum::Json<Vec<NamespaceName>>> {
    let mut all = state.registry.list_namespaces().await?;
    if let Some(own) = caller.namespace {
        all.retain(|name| *name == own);
    }
    Ok(axum::Json(all))
}

/// Makes a namespace; one that exists is fine.
#[utoipa::path(post, path = "/v1/namespaces", request_body = NewNamespace, responses((status = 201, body = NewNamespace)))]
pub(super) async fn create(
    Changes(changes): Changes,
    Json(new): Json<NewNamespace>,
) -> Answer<impl IntoResponse> {
    changes.ensure_namespace(&new.name).await?;
    Ok((StatusCode::CREATED, axum::Json(new)))
}
