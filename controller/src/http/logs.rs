//! What functions printed.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use davit_api::{FunctionName, InvocationId, LogLine, NamespaceName};
use davit_registry::LogFilter;
use serde::Deserialize;

use super::error::{Answer, Failure};
use super::extract::{Path, Query, page};
use super::{ApiState, poll};

/// Which lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only lines after this cursor; without it, the last ones.
    after: Option<i64>,
    /// At most this many, 1 to 5,000; 1,000 without it.
    limit: Option<u32>,
    /// Seconds to wait for the first line, at most 30.
    wait: Option<u32>,
    /// Only lines of this invocation.
    invocation_id: Option<InvocationId>,
    /// Only lines of this version.
    version: Option<u32>,
    /// Only lines from this time on.
    since: Option<DateTime<Utc>>,
}

/// A function's output in order.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/logs",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), Wanted), responses((status = 200, body = Vec<LogLine>)))]
pub(super) async fn read(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Query(wanted): Query<Wanted>,
) -> Answer<Json<Vec<LogLine>>> {
    let limit = page(wanted.limit, 1_000, 5_000)?;
    if wanted.version.is_some_and(|v| i32::try_from(v).is_err()) {
        return Err(Failure::invalid("version: there is no such number"));
    }
    let filter =
        LogFilter { invocation_id: wanted.invocation_id, version: wanted.version, since: wanted.since };
    let (state, namespace, function, filter) = (&state, &namespace, &function, &filter);
    let lines = poll::until(state, None, wanted.wait, || async move {
        let lines = state.registry.read_logs(namespace, function, wanted.after, limit, filter).await?;
        let enough = !lines.is_empty();
        Ok((lines, enough))
    });
    Ok(Json(lines.await?))
}
