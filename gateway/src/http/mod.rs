//! The public door: function addresses, custom routes, and the invoke API. Nothing internal is served here.

mod accept;
mod address;
mod auth;
mod body;
mod check;
mod error;
mod invocations;
mod reply;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use davit_api::{ApiError, ErrorCode};
use davit_registry::Registry;
use http::{HeaderValue, Request, Response, header};

use crate::admit::Parked;
use crate::invoke::Corridor;
use crate::metrics::Metrics;
use crate::routes::Routes;

pub use accept::serve;
pub use body::{Body, CollectError, OnEnd, collect};
pub(crate) use check::Host;

/// Everything a public request needs. One per gateway.
pub struct Public {
    routes: Routes,
    corridor: Corridor,
    /// Only for what has to be durable: accepting asynchronous calls, and showing them.
    registry: Registry,
    metrics: Arc<Metrics>,
    parked: Parked,
    /// The port that functions are told.
    port: u16,
}

/// A request that has been checked, with what was learnt on the way.
struct Arrived {
    request: Request<Body>,
    host: Host,
    peer: SocketAddr,
    at: Instant,
}

impl Public {
    /// The door to `corridor`.
    pub fn new(routes: Routes, corridor: Corridor, registry: Registry, metrics: Arc<Metrics>, parked_bytes: usize, port: u16) -> Self {
        Self { routes, corridor, registry, metrics, parked: Parked::new(parked_bytes), port }
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let at = Instant::now();
        self.metrics.requests.add(1);
        let host = match check::request(&request) {
            Ok(host) => host,
            // What was wrong with it may have been its framing: the connection is not used again.
            Err(error) => return closing(error::refuse(&error)),
        };
        let path = request.uri().path();
        if path == "/healthz" {
            return Response::new(Body::full("ok\n"));
        }
        let own = path == "/v1" || path.starts_with("/v1/");
        let arrived = Arrived { request, host, peer, at };
        let answered = if own { self.api(arrived).await } else { self.address(arrived).await };
        answered.unwrap_or_else(|error| error::refuse(&error))
    }
}

fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no function at this address")
}
