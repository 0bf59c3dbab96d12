//! What is deployed, as an OpenAPI document.

use axum::extract::State;
use davit_api::{ApiError, ErrorCode, FunctionName, NamespaceName};
use davit_openapi::{Deployed, Wanted, export};
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Path, Query};

/// Functions that one document shows.
const FUNCTIONS: u32 = 1_000;
/// Bytes of operations and schemas that one document is made of.
const BYTES: usize = 16 * 1024 * 1024;

/// What is wanted of it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only this function.
    function: Option<FunctionName>,
    /// Only what is reached by this host.
    host: Option<String>,
}

/// The addresses of a namespace's live functions as an OpenAPI 3.1 document: each route and path address that somebody can
/// call, with the operation that it is, where the function was deployed with a document.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/openapi.json", params(("ns" = NamespaceName, Path), Which),
    responses((status = 200, body = Object)))]
pub(super) async fn show(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
    Query(Which { function, host }): Query<Which>,
) -> Answer<axum::Json<serde_json::Value>> {
    let too_much = || {
        ApiError::new(ErrorCode::TooLarge, "too much for one document; ask for one function (?function=NAME)")
    };
    let found = state.registry.live_specs(&namespace, function.as_ref(), FUNCTIONS + 1).await?;
    if found.len() > FUNCTIONS as usize {
        return Err(too_much().into());
    }
    let functions: Vec<Deployed> =
        found.into_iter().map(|(function, version, spec)| Deployed { function, version, spec }).collect();
    let server = state.settings.gateway_url.clone();
    let host = host.map(|host| host.to_ascii_lowercase());
    // Documents may be large, and then this takes a while.
    let made = tokio::task::spawn_blocking(move || {
        let documents = functions.iter().filter_map(|function| function.spec.openapi.as_ref());
        let bytes: usize = documents.map(|document| document.value().to_string().len()).sum();
        let wanted = Wanted { host: host.as_deref(), server: Some(&server) };
        (bytes <= BYTES).then(|| export(&namespace, &functions, wanted))
    });
    let made =
        made.await.map_err(|e| ApiError::new(ErrorCode::Internal, format!("the export ended: {e}")))?;
    Ok(axum::Json(made.ok_or_else(too_much)?))
}
