//! The audit log.

use axum::extract::State;
use axum::{Extension, Json};
use davit_api::AuditView;
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Query, page};
use crate::auth::Caller;

/// Where to go on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Before {
    /// Only entries before this cursor.
    before: Option<i64>,
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
}

/// Who tried to change what, newest first; an admin bound to a namespace sees that namespace's.
#[utoipa::path(get, path = "/v1/audit", params(Before), responses((status = 200, body = Vec<AuditView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(Before { before, limit }): Query<Before>,
) -> Answer<Json<Vec<AuditView>>> {
    let limit = page(limit, 100, 1_000)?;
    Ok(Json(state.registry.list_audit(caller.namespace.as_ref(), before, limit).await?))
}
