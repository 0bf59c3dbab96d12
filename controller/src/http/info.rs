//! What this installation is.

use axum::extract::State;
use axum::{Extension, Json};
use davit_api::Info;

use super::ApiState;
use crate::auth::Caller;

/// Version, gateway address, and the token's namespace.
#[utoipa::path(get, path = "/v1/info", responses((status = 200, body = Info)))]
pub(super) async fn show(State(state): State<ApiState>, Extension(caller): Extension<Caller>) -> Json<Info> {
    Json(Info {
        version: state.settings.version.clone(),
        gateway_url: state.settings.gateway_url.clone(),
        namespace: caller.namespace,
    })
}
