//! The audit log.

use axum::extract::State;
use axum::{Extension, Json};
use davit_api::AuditView;
use davit_registry::AuditRow;
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
    let rows = state.registry.list_audit(caller.namespace.as_ref(), before, page(limit, 100, 1_000)?).await?;
    Ok(Json(rows.into_iter().map(view).collect()))
}

fn view(AuditRow { id, at, entry }: AuditRow) -> AuditView {
    AuditView {
        cursor: id,
        at,
        request_id: entry.request_id,
        token_id: entry.token_id,
        actor: entry.actor,
        namespace: entry.namespace,
        action: entry.action,
        object: entry.object,
        outcome: entry.outcome,
    }
}
