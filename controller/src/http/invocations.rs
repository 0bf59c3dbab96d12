//! Accepted invocations: what became of them, their end, and once more.

use axum::extract::State;
use axum::response::IntoResponse;
use davit_api::{
    EnqueueAccepted, FunctionName, InvocationId, InvocationSource, InvocationState, InvocationView,
    NamespaceName, Page, QueueView,
};
use davit_registry::InvocationFilter;
use http::StatusCode;
use serde::Deserialize;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Path, Query, page};

/// Which ones, and how many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// At most this many, 1 to 1,000; 100 without it.
    limit: Option<u32>,
    /// Only those in this state. `dead` are the dead letters.
    state: Option<InvocationState>,
    /// Only those from this door.
    source: Option<InvocationSource>,
    /// Only those that come after this one in the list: the `next` of the page before.
    after: Option<InvocationId>,
}

async fn listed(
    state: &ApiState,
    namespace: &NamespaceName,
    function: Option<FunctionName>,
    which: Which,
) -> Answer<axum::Json<Page<InvocationView>>> {
    let limit = page(which.limit, 100, 1_000)?;
    let before = match which.after {
        Some(id) => Some((state.registry.invocation(namespace, id).await?.accepted_at, id)),
        None => None,
    };
    let filter = InvocationFilter { function, state: which.state, source: which.source, before };
    let views = state.registry.list_invocations(namespace, &filter, limit + 1).await?;
    Ok(axum::Json(Page::cut(views, limit, |view| view.id.to_string())))
}

/// A function's accepted invocations, newest first, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/functions/{fn}/invocations",
    params(("ns" = NamespaceName, Path), ("fn" = FunctionName, Path), Which),
    responses((status = 200, body = Page<InvocationView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path((namespace, function)): Path<(NamespaceName, FunctionName)>,
    Query(which): Query<Which>,
) -> Answer<axum::Json<Page<InvocationView>>> {
    listed(&state, &namespace, Some(function), which).await
}

/// A namespace's accepted invocations, newest first, in pages.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/invocations",
    params(("ns" = NamespaceName, Path), Which), responses((status = 200, body = Page<InvocationView>)))]
pub(super) async fn list_all(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
    Query(which): Query<Which>,
) -> Answer<axum::Json<Page<InvocationView>>> {
    listed(&state, &namespace, None, which).await
}

/// What of a namespace's asynchronous work has not ended, and how many dead letters there are, by function.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/queue", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<QueueView>)))]
pub(super) async fn queue(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<QueueView>>> {
    state.registry.namespace_id(&namespace).await?;
    Ok(axum::Json(state.registry.queue(&namespace).await?))
}

/// One accepted invocation.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/invocations/{id}",
    params(("ns" = NamespaceName, Path), ("id" = InvocationId, Path)), responses((status = 200, body = InvocationView)))]
pub(super) async fn get(
    State(state): State<ApiState>,
    Path((namespace, id)): Path<(NamespaceName, InvocationId)>,
) -> Answer<axum::Json<InvocationView>> {
    Ok(axum::Json(state.registry.invocation(&namespace, id).await?))
}

/// Ends an invocation: at once while it waits, as soon as its gateway has heard of it while it runs. What the function
/// has done until then stays done.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/invocations/{id}/cancel",
    params(("ns" = NamespaceName, Path), ("id" = InvocationId, Path)), responses((status = 202, body = InvocationView)))]
pub(super) async fn cancel(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, id)): Path<(NamespaceName, InvocationId)>,
) -> Answer<impl IntoResponse> {
    changes.cancel_invocation(&namespace, id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(state.registry.invocation(&namespace, id).await?)))
}

/// Accepts an ended invocation's event again, as a new invocation.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/invocations/{id}/replay",
    params(("ns" = NamespaceName, Path), ("id" = InvocationId, Path)), responses((status = 202, body = EnqueueAccepted)))]
pub(super) async fn replay(
    Changes(changes): Changes,
    Path((namespace, id)): Path<(NamespaceName, InvocationId)>,
) -> Answer<impl IntoResponse> {
    let invocation_id = changes.replay_invocation(&namespace, id).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(EnqueueAccepted { invocation_id })))
}
