//! One HTTP exchange with a server function: request in, response out, both streaming; WebSockets too.
//!
//! Which headers cross is decided in `forward/headers.rs`. The slot and the connection travel inside the response's body, so
//! however the exchange ends, both are given back by a drop.

mod debugger;
mod grpc;
mod headers;
pub(crate) mod upgrade;

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use davit_api::{ApiError, ErrorCode};
use http::{HeaderValue, Request, Response, StatusCode, header};
use tokio_util::task::TaskTracker;

use crate::http::{Body, BodyError, CollectError, Guard, collect};
use crate::instances::{Attached, Instance, OpenError, Slot, Upstream, open};
use crate::invoke::{Answer, Call, CallError, lost, timed_out};
use crate::metrics::Metrics;
use crate::outcome;
use crate::version::LiveVersion;

pub use headers::{Origin, prepare};
pub(crate) use headers::{clean_response, clean_upgraded, is_hop, is_ours, strip_ours};

/// Where a server function gets events from queue, schedule and invoke API.
const EVENTS_PATH: &str = "/events";

/// Sends requests to server functions.
pub struct Exchange {
    /// Upgraded connections, which outlive their exchange.
    upgrades: TaskTracker,
    stop: tokio_util::sync::CancellationToken,
    metrics: Arc<Metrics>,
}

/// Why there is no response.
pub enum Failed {
    /// No byte was sent: the request is whole and another instance may have it.
    Unsent(Box<Request<Body>>, CallError),
    /// It may have been started.
    Final(CallError),
}

impl Exchange {
    /// `stop` ends upgraded connections.
    pub fn new(metrics: Arc<Metrics>, stop: tokio_util::sync::CancellationToken) -> Self {
        Self { upgrades: TaskTracker::new(), stop, metrics }
    }

    /// Sends a request whose headers are prepared, and waits for the response's head until `deadline`.
    pub async fn send(
        &self,
        mut slot: Slot,
        mut request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<Body>, Failed> {
        let instance = slot.instance().clone();
        let Some(version) = instance.version().cloned() else {
            return Err(Failed::Unsent(Box::new(request), lost()));
        };
        if request.version() == http::Version::HTTP_2 {
            return grpc::send(slot, instance, &version, request, deadline).await;
        }
        let wants_upgrade = headers::wants_websocket(request.method(), request.headers());
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        let mut fresh = false;
        loop {
            let mut upstream = match connect(&instance, fresh, deadline).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    slot.set_spoiled(spoils(&error));
                    return Err(match not_connected(error, &version) {
                        Refused::Unsent(error) => Failed::Unsent(Box::new(request), error),
                        Refused::Final(error) => Failed::Final(error),
                    });
                }
            };
            let sent = tokio::time::timeout_at(deadline.into(), upstream.exchange(request)).await;
            let Ok(sent) = sent else { return Err(Failed::Final(timed_out(&version))) };
            match sent {
                Ok(response) => return self.answer(slot, instance, upstream, response, client),
                Err(mut error) => match error.take_message() {
                    // The server closed an idle connection in the moment we took it; nothing was written.
                    Some(back) if upstream.reused => {
                        request = back;
                        fresh = true;
                    }
                    Some(back) => {
                        return Err(Failed::Unsent(
                            Box::new(back),
                            bad_response("the server closed the connection at once"),
                        ));
                    }
                    None => {
                        let error = error.into_error();
                        tracing::debug!(instance = %instance.id, %error, "exchange failed");
                        return Err(Failed::Final(failed_exchange(&error, &instance)));
                    }
                },
            }
        }
    }

    fn answer(
        &self,
        slot: Slot,
        instance: Arc<Instance>,
        upstream: Upstream,
        mut response: Response<hyper::body::Incoming>,
        client: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Response<Body>, Failed> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client.filter(|_| headers::is_websocket(response.headers())) else {
                return Err(Failed::Final(bad_response(
                    "the server switched protocols without being asked to",
                )));
            };
            let server = hyper::upgrade::on(&mut response);
            let open =
                upgrade::Open { slot, instance, send: upstream.detach(), metrics: self.metrics.clone() };
            self.upgrades.spawn(upgrade::pass(open, client, server, self.stop.clone()));
            let (mut parts, _) = response.into_parts();
            headers::clean_upgraded(&mut parts.headers);
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let (mut parts, body) = response.into_parts();
        headers::clean_response(&mut parts.headers);
        let held = Held { slot: Some(slot), instance, upstream: Some(upstream) };
        Ok(Response::from_parts(parts, Body::stream(body).guarded(Box::new(held))))
    }

    /// Joins a client whose request was answered with 101 to a debugger.
    pub fn debug(&self, attached: Attached, client: hyper::upgrade::OnUpgrade) {
        let passed = debugger::pass(attached, client, self.metrics.clone(), self.stop.clone());
        self.upgrades.spawn(passed);
    }

    /// Waits until upgraded connections have ended; `stop` makes them.
    pub async fn drained(&self) {
        self.upgrades.close();
        self.upgrades.wait().await;
    }
}

/// What a streaming response holds on to.
struct Held {
    slot: Option<Slot>,
    instance: Arc<Instance>,
    upstream: Option<Upstream>,
}

impl Guard for Held {
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(upstream) = &mut self.upstream {
            upstream.drive(cx);
        }
    }

    fn completed(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.instance.upstreams.http.give(upstream);
        }
        self.slot = None;
    }
}

async fn connect(instance: &Arc<Instance>, fresh: bool, deadline: Instant) -> Result<Upstream, OpenError> {
    match instance.upstreams.http.take().filter(|_| !fresh) {
        Some(mut idle) => {
            idle.reused = true;
            Ok(idle)
        }
        None => open(&instance.link, deadline).await,
    }
}

/// Whether a failed connection says that the instance is of no use any more.
pub(crate) fn spoils(error: &OpenError) -> bool {
    match error {
        OpenError::Link(davit_link::LinkError::Failure(failure)) => outcome::spoils(failure.kind),
        OpenError::Link(davit_link::LinkError::Deadline) => false,
        OpenError::Link(_) | OpenError::Io(_) | OpenError::Http(_) => true,
    }
}

/// Why a server function could not be connected to.
pub(crate) enum Refused {
    /// Another instance may have the request.
    Unsent(CallError),
    /// The function or its time is at an end.
    Final(CallError),
}

/// What a failed connection means for the call.
pub(crate) fn not_connected(error: OpenError, version: &LiveVersion) -> Refused {
    match error {
        OpenError::Link(davit_link::LinkError::Failure(failure)) => {
            Refused::Final(outcome::call_failure(failure))
        }
        OpenError::Link(davit_link::LinkError::Deadline) => Refused::Final(timed_out(version)),
        OpenError::Link(_) | OpenError::Io(_) | OpenError::Http(_) => Refused::Unsent(lost()),
    }
}

/// The connection broke after bytes were written.
fn failed_exchange(error: &hyper::Error, instance: &Instance) -> CallError {
    if instance.link.is_closed() {
        return ended_in_request();
    }
    if let Some(limit) = too_large(error) {
        let error = ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {limit} bytes"));
        return CallError { error, function_error: None, started: true };
    }
    bad_response(if error.is_parse() {
        "the server's answer is not HTTP"
    } else {
        "the server closed the connection without an answer"
    })
}

/// The bound of a request's body that broke the connection by being longer.
fn too_large(error: &hyper::Error) -> Option<u64> {
    match std::error::Error::source(error)?.downcast_ref::<BodyError>()? {
        BodyError::TooLarge(limit) => Some(*limit),
        BodyError::Connection(_) | BodyError::Function(_) | BodyError::Coding(_) => None,
    }
}

/// The instance went away with the request.
pub(crate) fn ended_in_request() -> CallError {
    let error = ApiError::new(ErrorCode::FunctionExited, "the function's process ended during the request");
    CallError { error, function_error: None, started: true }
}

/// What came was no answer.
pub(crate) fn bad_response(why: &str) -> CallError {
    CallError {
        error: ApiError::new(ErrorCode::FunctionBadResponse, why),
        function_error: None,
        started: true,
    }
}

/// An event as a server function gets it.
pub(crate) fn event_request(event: Bytes, call: &Call) -> Request<Body> {
    let mut request = Request::new(Body::full(event));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(EVENTS_PATH);
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(headers::REQUEST_ID, headers::value(&call.request_id.to_string()));
    if let Some(trace_id) = &call.trace_id {
        headers.insert(headers::TRACE_ID, headers::value(trace_id));
    }
    if let Some(caller) = call.cause.as_ref().and_then(|cause| cause.lineage.caller.as_ref()) {
        headers.insert(headers::CALLER, headers::value(&caller.to_string()));
    }
    request
}

/// A server function's response as the result of an event: any 2xx is one.
pub(crate) async fn event_answer(
    response: Response<Body>,
    version: &LiveVersion,
    deadline: Instant,
) -> Result<Answer, CallError> {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    let collected = tokio::time::timeout_at(
        deadline.into(),
        collect(response.into_body(), davit_api::limits::PAYLOAD_BYTES),
    )
    .await;
    let body = match collected {
        Err(_) => return Err(timed_out(version)),
        Ok(Err(CollectError::TooLarge(limit))) => {
            let error = ApiError::new(
                ErrorCode::FunctionResponseTooLarge,
                format!("the result is larger than {limit} bytes"),
            );
            return Err(CallError { error, function_error: None, started: true });
        }
        Ok(Err(CollectError::Broken(_))) => return Err(bad_response("the server broke off its answer")),
        Ok(Ok(body)) => body,
    };
    if status.is_success() {
        return Ok(Answer::Event { content_type, body });
    }
    let error =
        ApiError::new(ErrorCode::FunctionError, format!("the server answered {EVENTS_PATH} with {status}"));
    Err(CallError { error, function_error: serde_json::from_slice(&body).ok(), started: true })
}
