//! Projects: the record of what each `davit apply` looks after.

use axum::extract::State;
use davit_api::{NamespaceName, ProjectName, ProjectRecord, ProjectView};
use http::StatusCode;

use super::ApiState;
use super::error::Answer;
use super::extract::{Changes, Json, Path};

/// A namespace's projects, by name.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/projects", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<ProjectView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<ProjectView>>> {
    Ok(axum::Json(state.registry.list_projects(&namespace).await?))
}

/// Writes down what a project looks after. It changes none of it; of two that write at once, one gets 409.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/projects/{project}",
    params(("ns" = NamespaceName, Path), ("project" = ProjectName, Path)),
    request_body = ProjectRecord, responses((status = 200, body = ProjectView)))]
pub(super) async fn put(
    Changes(changes): Changes,
    Path((namespace, project)): Path<(NamespaceName, ProjectName)>,
    Json(record): Json<ProjectRecord>,
) -> Answer<axum::Json<ProjectView>> {
    Ok(axum::Json(changes.put_project(&namespace, &project, &record).await?))
}

/// Forgets a project's record; what it looked after stays.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/projects/{project}",
    params(("ns" = NamespaceName, Path), ("project" = ProjectName, Path)), responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, project)): Path<(NamespaceName, ProjectName)>,
) -> Answer<StatusCode> {
    changes.remove_project(&namespace, &project).await?;
    Ok(StatusCode::NO_CONTENT)
}
