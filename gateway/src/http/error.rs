//! From an error to the answer that clients get.

use davit_api::{ApiError, ErrorBody, ErrorCode};
use http::{HeaderValue, Response, StatusCode, header};

use crate::http::Body;
use crate::policy::Own;

/// The answer that carries an error body.
pub(super) fn respond(body: &ErrorBody) -> Response<Body> {
    let status = StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::full(json));
    *response.status_mut() = status;
    response.extensions_mut().insert(Own(body.code));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if body.retryable {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if body.code == ErrorCode::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(id) = body.request_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert("x-davit-invocation-id", id);
    }
    response
}

/// The answer for an error without an invocation.
pub(super) fn refuse(error: &ApiError) -> Response<Body> {
    respond(&error.body())
}

/// Shorthand for a refusal.
pub(super) fn refusal(code: ErrorCode, message: &str) -> Response<Body> {
    refuse(&ApiError::new(code, message))
}

/// The answer to one call too many, which may be repeated after that time.
pub(super) fn rate_limited(wait: std::time::Duration) -> Response<Body> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let mut response = refusal(
        ErrorCode::RateLimited,
        &format!("more calls than this address's rate limit allows; try again in {seconds} s"),
    );
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
