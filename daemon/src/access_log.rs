//! One log line a request. The cause of an error rides here as an extension of the answer, so that the
//! client sees a plain sentence and the operator the reason.

use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

/// Put into a response's extensions: why the request failed, for the log only.
#[derive(Debug, Clone)]
pub struct Cause(pub String);

/// Put into a response's extensions: the id under which this request can be found.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// An axum middleware: `axum::middleware::from_fn(access_log::log)`. Faults of the platform are warnings,
/// everything else is visible at `debug`.
pub async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The path only: a query may carry secrets.
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let cause = response.extensions().get::<Cause>().map(|c| c.0.as_str()).unwrap_or_default();
    let id = response.extensions().get::<RequestId>().map(|r| r.0.as_str()).unwrap_or_default();
    if status >= 500 {
        tracing::warn!(%method, path, status, ms, request_id = id, cause, "request");
    } else {
        tracing::debug!(%method, path, status, ms, request_id = id, cause, "request");
    }
    response
}
