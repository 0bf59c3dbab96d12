//! What only the platform reaches, on a listener of its own: alive, ready, metrics, status.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use davit_api::ErrorCode;
use davit_daemon::Readiness;
use davit_registry::hash_token;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

type Metrics = Box<dyn Fn() -> String + Send + Sync>;
type Status = Box<dyn Fn() -> Value + Send + Sync>;

/// What a process shows about itself. Each role adds its own metrics and status.
#[derive(Default)]
pub struct Admin {
    readiness: Option<Readiness>,
    metrics: Vec<Metrics>,
    status: Vec<(&'static str, Status)>,
    /// Hash of what a reader on another machine has to show.
    token: Option<[u8; 32]>,
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
    /// Lets whoever shows the token with this hash read metrics and status from another machine, too.
    #[must_use]
    pub fn readers(mut self, token: Option<[u8; 32]>) -> Self {
        self.token = token;
        self
    }

    fn may_read(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
        // Whoever forwards a port of a pod comes from there, too.
        if peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
            return true;
        }
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        // What the time of this comparison tells is about a hash, from which nobody finds a token.
        self.token.is_some() && shown.map(hash_token) == self.token
    }
}

/// The admin routes. Anybody may ask whether the process is alive and ready, as Kubernetes does; metrics and status are for
/// this machine, and for who has the token for them.
pub fn admin_router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route_layer(from_fn_with_state(admin.clone(), readers_only))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .fallback(super::error::unknown_path)
        .method_not_allowed_fallback(super::error::unknown_method)
        .with_state(admin)
}

async fn readers_only(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0);
    if admin.may_read(peer, request.headers()) {
        return next.run(request).await;
    }
    let told = "metrics and status are read on davit's own machine, or with the token of DAVIT_METRICS_TOKEN_FILE as a bearer token";
    super::error::Failure::new(ErrorCode::Unauthenticated, told).into_response()
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    async fn asked(path: &str, peer: &str, token: Option<&str>) -> u16 {
        let admin = Admin::default().readers(Some(hash_token("a-token-of-a-scraper")));
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        admin_router(admin).oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn other_machines_read_with_the_token_alone_and_health_without() {
        for path in ["/metrics", "/status"] {
            assert_eq!(asked(path, "127.0.0.1:4000", None).await, 200);
            assert_eq!(asked(path, "[::ffff:127.0.0.1]:4000", None).await, 200);
            assert_eq!(asked(path, "10.1.2.3:4000", None).await, 401);
            assert_eq!(asked(path, "10.1.2.3:4000", Some("another-token")).await, 401);
            assert_eq!(asked(path, "10.1.2.3:4000", Some("a-token-of-a-scraper")).await, 200);
        }
        for path in ["/healthz", "/readyz"] {
            assert_eq!(asked(path, "10.1.2.3:4000", None).await, 200);
        }
    }

    #[test]
    fn without_a_token_nothing_that_is_shown_is_one() {
        let mut headers = HeaderMap::new();
        assert!(!Admin::default().may_read(None, &headers));
        headers.insert(header::AUTHORIZATION, "Bearer ".parse().unwrap());
        assert!(!Admin::default().may_read("10.1.2.3:1".parse().ok(), &headers));
    }
}
