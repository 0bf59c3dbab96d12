//! The public door: function addresses, custom routes, and the invoke API. Nothing internal is served here.

mod accept;
mod address;
mod asks;
mod auth;
mod body;
mod check;
mod choose;
mod debugger;
mod error;
mod express;
mod fitting;
mod hook;
mod invocations;
mod later;
mod publish;
mod reply;
mod rewound;
mod stall;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use davit_api::{ApiError, ErrorCode, NamespaceName, Role, TokenId};
use davit_registry::Registry;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};

use crate::admit::Parked;
use crate::dispatch::Acceptor;
use crate::invoke::Corridor;
use crate::metrics::Metrics;
use crate::routes::{Pins, Routes, Table};
use crate::sources::Intake;

pub use accept::{Door, serve};
use body::COURTESY_BYTES;
pub use body::{Body, BodyError, CollectError, Guard, collect, receive};
pub(crate) use check::Host;
pub use tls::{Tls, TlsError, TlsFiles};

/// Everything a public request needs. One per gateway.
pub struct Public {
    routes: Routes,
    pins: Pins,
    corridor: Corridor,
    /// Only for showing what became of asynchronous calls.
    registry: Registry,
    acceptor: Acceptor,
    intake: Intake,
    metrics: Arc<Metrics>,
    parked: Parked,
    /// The port that functions are told.
    port: Port,
}

/// The gateway's port, as a number and as a header's value.
struct Port {
    number: u16,
    value: HeaderValue,
}

/// The other end of a connection. Made once for all its requests.
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The address without the port, as a header's value.
    ip: HeaderValue,
    /// Whether it speaks TLS.
    https: bool,
}

impl Peer {
    /// The client at this address.
    pub fn new(address: SocketAddr, https: bool) -> Self {
        let text = address.ip().to_string();
        Self { address, ip: HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("")), https }
    }

    /// The protocol it came by, as a header's value.
    fn proto(&self) -> HeaderValue {
        HeaderValue::from_static(if self.https { "https" } else { "http" })
    }
}

/// What a [`Public`] is made of.
pub struct Parts {
    /// Who answers for an address.
    pub routes: Routes,
    /// Versions that are asked for by number.
    pub pins: Pins,
    /// Where calls go.
    pub corridor: Corridor,
    /// Where asynchronous calls are looked up.
    pub registry: Registry,
    /// Where they are accepted.
    pub acceptor: Acceptor,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bytes of event bodies that may be held at a time.
    pub parked_bytes: usize,
    /// The port that functions are told.
    pub port: u16,
}

/// A request that has been checked, with what was learnt on the way.
struct Arrived<'a> {
    request: Request<Body>,
    host: Host,
    peer: &'a Peer,
    at: Instant,
}

impl Public {
    /// The door to a corridor.
    pub fn new(parts: Parts) -> Self {
        let Parts { routes, pins, corridor, registry, acceptor, metrics, parked_bytes, port } = parts;
        let port = Port { number: port, value: HeaderValue::from(port) };
        let intake = Intake::new(registry.clone(), acceptor.clone());
        let parked = Parked::new(parked_bytes);
        Self { routes, pins, corridor, registry, acceptor, intake, metrics, parked, port }
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request.
    pub async fn handle(&self, mut request: Request<Body>, peer: &Peer) -> Response<Body> {
        let at = Instant::now();
        self.metrics.requests.add(1);
        if request.version() == Version::HTTP_2 {
            check::like_http11(&mut request);
        }
        let host = match check::request(&request) {
            Ok(host) => host,
            // What was wrong with it may have been its framing: the connection is not used again.
            Err(error) => return closing(error::refuse(&error)),
        };
        // hyper takes a chunked body that came with a length as well, and forgets the length. Nothing of that
        // crosses to a function, but what follows on such a connection cannot be trusted (RFC 9112, 6.3).
        let last = request.headers().contains_key(header::TRANSFER_ENCODING);
        let response = self.route(request, host, peer, at).await;
        if last { closing(response) } else { response }
    }

    /// Lets a token's holder in, and notes that the token was used.
    fn let_in(
        &self,
        table: &Table,
        headers: &HeaderMap,
        namespace: &NamespaceName,
        role: Role,
    ) -> Result<TokenId, ApiError> {
        let token = auth::require(table, headers, namespace, role)?;
        self.corridor.instances().shared().recorder.token(token);
        Ok(token)
    }

    async fn route(&self, request: Request<Body>, host: Host, peer: &Peer, at: Instant) -> Response<Body> {
        let path = request.uri().path();
        if path == "/healthz" {
            return Response::new(Body::full("ok\n"));
        }
        // Or a client would be told that its function does not exist, or that its token is bad.
        if !self.routes.load().is_read() {
            return error::refuse(&ApiError::new(
                ErrorCode::Unavailable,
                "this gateway has not read its routes yet",
            ));
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
