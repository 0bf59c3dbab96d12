//! The port that only gateways speak on: takes calls that others pass on, and says what became of them. Whoever cannot prove
//! itself gets nothing from it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{ApiError, ErrorCode, GatewayId, Lineage, limits};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::words::{Bad, Facts, Failure, NOTE, Note, PROOF, Refusal, Seal, TICKET, Ticket};
use crate::http::{Body, collect};
use crate::instances::LogTail;
use crate::invoke::{Answer, Call, CallError, Cause, Corridor, Outcome, Payload, Target};
use crate::lanes::Lanes;
use crate::routes::{Pins, Routes};
use crate::version::LiveVersion;

/// Connections at a time.
const CONNECTIONS: usize = 8_192;
/// How long a connection may lie idle: longer than the other side keeps it.
const IDLE: Duration = Duration::from_secs(60);
/// Header lines: those of a client, and ours.
const HEADERS: usize = 128;
/// For how long calls that others had sent before they heard of the end are still told no.
const LAST: Duration = Duration::from_secs(2);
/// How long others may take to close what they keep open. Were it closed here, a call could be on its way.
const CLOSING: Duration = Duration::from_secs(8);

/// What answers on the port.
pub struct Inner {
    me: GatewayId,
    seal: Seal,
    routes: Routes,
    pins: Pins,
    corridor: Corridor,
    /// This gateway takes no more calls.
    leaving: CancellationToken,
}

impl Inner {
    /// `key`: what all gateways of the installation prove themselves by.
    pub fn new(
        me: GatewayId,
        key: [u8; 32],
        routes: Routes,
        pins: Pins,
        corridor: Corridor,
        leaving: CancellationToken,
    ) -> Self {
        Self { me, seal: Seal::new(key), routes, pins, corridor, leaving }
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let ticket = match self.seal.open(&parts, self.me, super::unix_seconds()) {
            Ok(ticket) => ticket,
            Err(bad) => {
                tracing::warn!(?bad, "a call on the gateways' port was refused");
                let mut refused = Response::new(Body::empty());
                // One that was meant for the gateway that had this address before is told where it stands.
                *refused.status_mut() = match bad {
                    Bad::NotForUs => StatusCode::MISDIRECTED_REQUEST,
                    Bad::Missing | Bad::Proof | Bad::Time => StatusCode::FORBIDDEN,
                };
                return refused;
            }
        };
        parts.headers.remove(TICKET);
        parts.headers.remove(PROOF);
        if self.leaving.is_cancelled() {
            return last(refused(Refusal::Leaving));
        }
        let Some(version) = self.version(&ticket).await else { return refused(Refusal::Unknown) };
        let place = self.corridor.instances().place(&version);
        if !ticket.waits && !place.free && !place.room {
            return refused(Refusal::Full);
        }
        let until = Instant::now() + Duration::from_millis(ticket.left_ms);
        let payload = if ticket.event {
            match tokio::time::timeout_at(until.into(), collect(Body::stream(body), limits::PAYLOAD_BYTES))
                .await
            {
                Ok(Ok(event)) => Payload::Event(event),
                Ok(Err(_)) | Err(_) => return failed(&gone(), &ticket, Facts::default()),
            }
        } else {
            Payload::Http(Box::new(Request::from_parts(parts, Body::stream(body))))
        };
        let tail = ticket.tail.then(Arc::<LogTail>::default);
        let call = call(&ticket, payload, until, tail.clone());
        let outcome = self.corridor.carry_out_here(Target { version }, call).await;
        let response = answer(outcome, &ticket, tail.as_deref());
        let closing = self.leaving.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if closing { last(response) } else { response }
    }

    async fn version(&self, ticket: &Ticket) -> Option<Arc<LiveVersion>> {
        let live = {
            let table = self.routes.load();
            if let Some(version) = table.version(ticket.function, ticket.version) {
                return Some(version.clone());
            }
            table.function_by_id(ticket.function).cloned()
        }?;
        let found = self.pins.find(&live, ticket.number).await.ok()?;
        (found.version_id == ticket.version).then_some(found)
    }
}

fn call(ticket: &Ticket, payload: Payload, deadline: Instant, log_tail: Option<Arc<LogTail>>) -> Call {
    let now = Instant::now();
    let cause = ticket.hops.map(|hops| {
        Arc::new(Cause { lineage: Lineage { hops, caller: ticket.caller.clone() }, waiting: None })
    });
    Call {
        payload,
        arrived: now.checked_sub(Duration::from_millis(ticket.spent_ms)).unwrap_or(now),
        deadline,
        request_id: ticket.request_id,
        source: ticket.source,
        trace_id: ticket.trace_id.as_deref().map(Arc::from),
        client_context: ticket.client_context.clone(),
        cause,
        log_tail,
    }
}

fn answer(outcome: Outcome, ticket: &Ticket, tail: Option<&LogTail>) -> Response<Body> {
    let Outcome { result, cold, timings, .. } = outcome;
    let facts = Facts { cold, timings, tail: tail.map(LogTail::text).unwrap_or_default() };
    match result {
        Ok(Answer::Http(response)) => noted(*response, Note::Http(facts)),
        Ok(Answer::Event { content_type, body }) => {
            let mut response = Response::new(Body::full(body));
            if let Ok(value) = HeaderValue::from_str(&content_type) {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            noted(response, Note::Event(facts))
        }
        Err(error) => failed(&error, ticket, facts),
    }
}

fn failed(error: &CallError, ticket: &Ticket, facts: Facts) -> Response<Body> {
    let failure = Failure { error: error.body(ticket.request_id), started: error.started };
    noted(Response::new(Body::full(serde_json::to_vec(&failure).unwrap_or_default())), Note::Failed(facts))
}

fn refused(refusal: Refusal) -> Response<Body> {
    noted(Response::new(Body::empty()), Note::Refused(refusal))
}

fn last(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn noted(mut response: Response<Body>, note: Note) -> Response<Body> {
    response.headers_mut().insert(NOTE, note.header());
    response
}

/// The other gateway broke off, or its client did.
fn gone() -> CallError {
    CallError::refused(ApiError::new(ErrorCode::InvalidRequest, "the body ended early or is not well-formed"))
}

/// Accepts until `stop` fires; returns when every connection has ended or `hard` fires.
pub async fn serve(
    listener: TcpListener,
    inner: Inner,
    lanes: Arc<Lanes>,
    stop: CancellationToken,
    hard: CancellationToken,
) {
    let inner = Arc::new(inner);
    let (connections, room) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    let end = CancellationToken::new();
    let carry = |stream: std::net::TcpStream, permit| {
        let _ = stream.set_nodelay(true);
        let (inner, end, hard) = (inner.clone(), end.clone(), hard.clone());
        lanes.carry(connections.track_future(async move {
            tokio::select! {
                () = hard.cancelled() => {}
                () = connection(stream, &inner, &end) => {}
            }
            drop(permit);
        }));
    };
    let accepting = async {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => carry(stream, permit),
                Err(error) => {
                    tracing::warn!(%error, "accept failed on the gateways' port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    // Others hear of the end a moment after it.
    let stopping = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        () = stopping => {}
        () = hard.cancelled() => {}
        () = accepting => {}
    }
    connections.close();
    let ending = async {
        if tokio::time::timeout(CLOSING, connections.wait()).await.is_err() {
            end.cancel();
            connections.wait().await;
        }
    };
    tokio::select! {
        () = ending => {}
        () = hard.cancelled() => {}
    }
}

async fn connection(stream: std::net::TcpStream, inner: &Inner, end: &CancellationToken) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let service = service_fn(move |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(inner.handle(request).await)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(HEADERS)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a gateway's connection ended early");
    }
}
