//! API tokens. An admin that is bound to a namespace manages that namespace's tokens and no others.

use axum::Extension;
use axum::extract::State;
use axum::response::IntoResponse;
use chrono::Utc;
use davit_api::{ApiError, ErrorCode, NewToken, TokenCreated, TokenId, TokenView};
use http::StatusCode;

use super::ApiState;
use super::error::{Answer, Failure};
use super::extract::{Changes, Json, Path};
use crate::auth::Caller;

/// The tokens that the caller may manage; never their secrets.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn list(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Answer<axum::Json<Vec<TokenView>>> {
    Ok(axum::Json(state.registry.list_tokens(caller.namespace.as_ref()).await?))
}

/// Makes a token. The answer is the only place where its secret ever appears.
#[utoipa::path(post, path = "/v1/tokens", request_body = NewToken, responses((status = 201, body = TokenCreated)))]
pub(super) async fn create(
    Changes(changes): Changes,
    Extension(caller): Extension<Caller>,
    Json(new): Json<NewToken>,
) -> Answer<impl IntoResponse> {
    if caller.namespace.is_some() && caller.namespace != new.namespace {
        return Err(Failure::new(
            ErrorCode::Forbidden,
            "a token that is bound to a namespace makes tokens for it only",
        ));
    }
    if !(1..=100).contains(&new.description.chars().count()) || new.description.contains(char::is_control) {
        return Err(
            ApiError::field("description", "1 to 100 characters, none of them control characters").into()
        );
    }
    if new.expires_at.is_some_and(|at| at <= Utc::now()) {
        return Err(ApiError::field("expires_at", "is in the past").into());
    }
    let created: TokenCreated = changes.create_token(new).await?;
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Revokes a token; it stops working at once here, and within a second at gateways.
#[utoipa::path(delete, path = "/v1/tokens/{id}", params(("id" = TokenId, Path)), responses((status = 204)))]
pub(super) async fn revoke(
    Changes(changes): Changes,
    Extension(caller): Extension<Caller>,
    Path(id): Path<TokenId>,
) -> Answer<StatusCode> {
    changes.revoke_token(id, caller.namespace.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
