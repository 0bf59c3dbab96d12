//! The management API over a real Postgres: who may do what, taken from the route table, and bad input.

mod aliases;
mod bad_input;
mod matrix;
mod refused;
mod story;
mod table_changes;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use davit_api::{ErrorBody, NamespaceName, NewToken, Role};
use davit_registry::testing::TestDatabase;
use davit_registry::{Changes, MasterKey, Registry};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{ApiSettings, ApiState, management_router};
use crate::source::ArchiveLimits;

/// A management API on a fresh database with the namespaces `own` and `other`.
struct Api {
    router: Router,
    registry: Registry,
    _database: TestDatabase,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }
    fn error(&self) -> ErrorBody {
        let body: ErrorBody = serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} is no error body: {e}", String::from_utf8_lossy(&self.body)));
        assert_eq!(body.code.status(), self.status.as_u16());
        assert!(body.request_id.is_some());
        body
    }
}

impl Api {
    async fn start() -> Self {
        let database = TestDatabase::new().await;
        let registry = database.registry().clone();
        for name in ["own", "other"] {
            registry.as_davit("test").ensure_namespace(&name.parse().unwrap()).await.unwrap();
        }
        let settings = ApiSettings {
            outbound: "127.0.0.1, ::1".parse().unwrap(),
            archive: ArchiveLimits { entries: 50, unpacked: 1 << 20, ratio: 200, ratio_from: 64 * 1024 },
            ..ApiSettings::new("http://127.0.0.1:7480")
        };
        let key = Arc::new(MasterKey::from_bytes([7; 32]));
        let changes = Changes::listen(&registry).await.unwrap();
        let state = ApiState::new(registry.clone(), changes, key, settings, CancellationToken::new());
        Self { router: management_router(state), registry, _database: database }
    }

    async fn token(&self, role: Role, namespace: Option<&str>) -> String {
        let namespace: Option<NamespaceName> = namespace.map(|n| n.parse().unwrap());
        let new =
            NewToken { description: format!("{role} of {namespace:?}"), namespace, role, expires_at: None };
        self.registry.as_davit("test").create_token(new).await.unwrap().token
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        Answer { status, body }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request(Some(token), method, path, body)).await
    }

    async fn json(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        self.call(token, method, path, body.to_string()).await
    }
}

fn request(token: Option<&str>, method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap())
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(body.into()).unwrap()
}

/// A gzip-compressed tar with one file, and its digest.
fn archive(name: &str) -> (Vec<u8>, String) {
    use sha2::Digest as _;
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &b"x = 1\n"[..]).unwrap();
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    let digest = davit_api::Digest::from_bytes(sha2::Sha256::digest(&bytes).into());
    (bytes, digest.to_string())
}
