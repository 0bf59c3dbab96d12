//! What only the platform reaches, on a listener of its own: alive, ready, metrics, status.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use davit_daemon::Readiness;
use http::{StatusCode, header};
use serde_json::{Map, Value};

type Metrics = Box<dyn Fn() -> String + Send + Sync>;
type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// What a process shows about itself. Each role adds its own metrics and status.
#[derive(Default)]
pub struct Admin {
    readiness: Option<Readiness>,
    metrics: Vec<Metrics>,
    status: Vec<(&'static str, Status)>,
}

impl Admin {
    /// Shows whether these latches are open.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness: Some(readiness), ..Self::default() }
    }
    /// Adds lines in the Prometheus text format.
    #[must_use]
    pub fn metrics(mut self, lines: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics.push(Box::new(lines));
        self
    }
    /// Adds a part's typed status under a name.
    #[must_use]
    pub fn status(mut self, name: &'static str, status: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        self.status.push((name, Box::new(status)));
        self
    }
}

/// The admin routes. They are not authenticated: bind them where only the platform reaches.
pub fn admin_router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(super::error::unknown_path)
        .method_not_allowed_fallback(super::error::unknown_method)
        .with_state(Arc::new(admin))
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let waiting = admin.readiness.as_ref().map(Readiness::waiting).unwrap_or_default();
    if waiting.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", ")))
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let text: String = admin.metrics.iter().map(|lines| lines()).collect();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let parts: Map<String, Value> =
        admin.status.iter().map(|(name, status)| ((*name).to_owned(), status())).collect();
    Json(Value::Object(parts))
}
