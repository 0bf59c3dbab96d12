//! Secrets: set and forgotten here; only instances see values.

use axum::extract::State;
use davit_api::{ErrorCode, NamespaceName, SecretComparison, SecretName, SecretValue, SecretView, limits};
use http::StatusCode;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path};

/// A namespace's secrets, without their values.
#[utoipa::path(get, path = "/v1/namespaces/{ns}/secrets", params(("ns" = NamespaceName, Path)),
    responses((status = 200, body = Vec<SecretView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(namespace): Path<NamespaceName>,
) -> Answer<axum::Json<Vec<SecretView>>> {
    let rows = state.registry.list_secrets(&namespace).await?;
    let view = |row: davit_registry::SecretRow| SecretView {
        name: row.name,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok(axum::Json(rows.into_iter().map(view).collect()))
}

/// Sets a secret; instances that start from now on see the new value.
#[utoipa::path(put, path = "/v1/namespaces/{ns}/secrets/{secret}",
    params(("ns" = NamespaceName, Path), ("secret" = SecretName, Path)),
    request_body = SecretValue, responses((status = 204)))]
pub(super) async fn set(
    State(state): State<ApiState>,
    Changes(changes): Changes,
    Path((namespace, secret)): Path<(NamespaceName, SecretName)>,
    Json(SecretValue { value }): Json<SecretValue>,
) -> Answer<StatusCode> {
    if value.len() > limits::SECRET_BYTES {
        return Err(Failure::new(ErrorCode::TooLarge, "value: a secret is at most 64 KiB"));
    }
    changes.set_secret(&namespace, &secret, &value, &state.master_key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says whether a secret has this value. It takes the role of those who can read values anyway, since what they deploy
/// gets them.
#[utoipa::path(post, path = "/v1/namespaces/{ns}/secrets/{secret}/compare",
    params(("ns" = NamespaceName, Path), ("secret" = SecretName, Path)),
    request_body = SecretValue, responses((status = 200, body = SecretComparison)))]
pub(super) async fn compare(
    State(state): State<ApiState>,
    Path((namespace, secret)): Path<(NamespaceName, SecretName)>,
    Json(SecretValue { value }): Json<SecretValue>,
) -> Answer<axum::Json<SecretComparison>> {
    let known = state.registry.secret(&namespace, &secret, &state.master_key).await?;
    Ok(axum::Json(SecretComparison { same: known.is_some_and(|known| known == value) }))
}

/// Removes a secret.
#[utoipa::path(delete, path = "/v1/namespaces/{ns}/secrets/{secret}",
    params(("ns" = NamespaceName, Path), ("secret" = SecretName, Path)), responses((status = 204)))]
pub(super) async fn remove(
    Changes(changes): Changes,
    Path((namespace, secret)): Path<(NamespaceName, SecretName)>,
) -> Answer<StatusCode> {
    changes.remove_secret(&namespace, &secret).await?;
    Ok(StatusCode::NO_CONTENT)
}
