//! The one way out for errors: every answer that is not a success is an [`ErrorBody`], and carries its
//! [`ApiError`] along so that the access log and the audit entry can name it.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use davit_api::{ApiError, ErrorBody, ErrorCode};
use davit_registry::RegistryError;
use http::{HeaderValue, StatusCode, header};

/// What a handler returns.
pub(crate) type Answer<T> = Result<T, Failure>;

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) ApiError);

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(ApiError::new(code, message))
    }
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Refused(error) => Self(error),
            other => {
                tracing::warn!(error = %other, "the registry could not serve a management request");
                Self(other.into_api())
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = render(&self.0.body());
        response.extensions_mut().insert(self.0);
        response
    }
}

fn render(body: &ErrorBody) -> Response {
    let status = StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    match body.code {
        ErrorCode::Unauthenticated => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorCode::Unavailable | ErrorCode::TooManyRequests => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// Writes the request's id into an error answer, so that a user can quote it.
pub(crate) fn with_request_id(response: Response, request_id: &str) -> Response {
    let Some(error) = response.extensions().get::<ApiError>().cloned() else { return response };
    let mut rendered = render(&ErrorBody { request_id: Some(request_id.to_owned()), ..error.body() });
    for (name, value) in response.headers() {
        if !rendered.headers().contains_key(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered.extensions_mut().insert(error);
    rendered
}

/// The answer to a path that is nothing here.
pub(crate) async fn unknown_path(request: Request<Body>) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    Failure::new(ErrorCode::NotFound, format!("there is nothing at {path}; the management API is under /v1"))
}

/// The answer to a method that a known path does not have.
pub(crate) async fn unknown_method(request: Request<Body>) -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, format!("{} is not possible here", request.method()))
}
