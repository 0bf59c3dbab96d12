//! Instances, for operators: those in a pool belong to no namespace.

use axum::Json;
use axum::extract::State;
use davit_api::InstanceView;

use super::ApiState;
use super::error::Answer;

/// Every instance that is not gone.
#[utoipa::path(get, path = "/v1/instances", responses((status = 200, body = Vec<InstanceView>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Answer<Json<Vec<InstanceView>>> {
    let rows = state.registry.live_instances().await?;
    let view = |row: davit_registry::InstanceRow| InstanceView {
        id: row.id,
        gateway: row.gateway,
        pool: row.key,
        state: row.state,
        version_id: row.version_id,
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}
