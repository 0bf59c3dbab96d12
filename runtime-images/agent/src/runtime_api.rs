//! The Lambda Runtime API, spoken to the language runtime in this container. What functions ask of the platform comes
//! to the same address, so that a container has one listener; `asks.rs` takes that.
//!
//! Bodies, codes and headers follow AWS's own emulator. Clients are strict about some: Python's and Node's
//! crash without a content type on an event, Go's wants exactly 202 for an answer.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use davit_link::{Failure, FailureKind, PAYLOAD_BYTES, STREAM_BYTES};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::RUNTIME_API;
use crate::agent::{Agent, StartEvent};
use crate::asks;
use crate::calls::{Call, Next};
use crate::failure;
use crate::stream::{self, Passed};

/// Error causes for tracing travel in a header of up to 1 MiB.
const HEADER_BYTES: usize = 1536 * 1024;
const VERSION: &str = "/2018-06-01/runtime/";
const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
/// A connection breaks because its process ended, and that is learnt a moment later.
const EXPLANATION: Duration = Duration::from_millis(100);
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";

pub(crate) type Answer = Response<Full<Bytes>>;

/// Binds the address and serves it for the agent's life.
pub(crate) async fn listen(agent: &Rc<Agent>) -> std::io::Result<()> {
    let listener = TcpListener::bind(RUNTIME_API).await?;
    let agent = agent.clone();
    tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => _ = tokio::task::spawn_local(serve(agent.clone(), stream)),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    Ok(())
}

async fn serve(agent: Rc<Agent>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let agent = agent.clone();
        async move { Ok::<_, Infallible>(answer(&agent, request).await) }
    });
    // No header timeout: a frozen runtime may be in the middle of sending one.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEADER_BYTES)
        // Shell bootstraps look for the headers as AWS writes them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

async fn answer(agent: &Rc<Agent>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    match (method, path.as_str()) {
        (Method::GET, "/davit/init") => return init(agent).await,
        (Method::GET, "/ping" | "/2018-06-01/ping") => return text(StatusCode::OK, "pong"),
        _ => {}
    }
    let Some(rest) = path.strip_prefix(VERSION) else {
        return if asks::is_one(&path) { asks::ask(agent, request).await } else { not_found() };
    };
    let parts: Vec<&str> = rest.split('/').collect();
    match (request.method().as_str(), parts.as_slice()) {
        ("GET", ["invocation", "next"]) => next(agent).await,
        ("POST", ["invocation", id, "response"]) => response(agent, id, request).await,
        ("POST", ["invocation", id, "error"]) => error(agent, id, request).await,
        ("POST", ["init", "error"]) => init_error(agent, request).await,
        _ => not_found(),
    }
}

/// The warm runtime asks what it is to become, and waits for the answer. One asks, once.
async fn init(agent: &Rc<Agent>) -> Answer {
    if !agent.is_warm_runtime.get() {
        return refused(StatusCode::FORBIDDEN, "InvalidStateTransition", "there is nothing to become");
    }
    agent.warm.notify_one();
    let mut offer = agent.offer.subscribe();
    let there = offer.wait_for(Option::is_some).await.is_ok();
    let description = agent.offer.send_replace(None).filter(|_| there);
    agent.is_warm_runtime.set(false);
    match description {
        Some(description) => json(StatusCode::OK, description),
        None => refused(StatusCode::FORBIDDEN, "InvalidStateTransition", "it has been told already"),
    }
}

async fn next(agent: &Rc<Agent>) -> Answer {
    let starting = agent.starting.borrow_mut().take();
    if let Some(starting) = starting {
        let _ = starting.send(StartEvent::Ready);
    }
    let found = agent.calls.borrow_mut().poll();
    let call = match found {
        Next::Now(call) => call,
        Next::Later(promise) => match promise.await {
            Ok(call) => call,
            Err(_) => {
                return refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "shutting down");
            }
        },
    };
    event(*call)
}

fn event(call: Call) -> Answer {
    let head = call.head;
    let mut answer = json(StatusCode::OK, call.event);
    let deadline = head.deadline_unix_ms.to_string();
    let fields = [
        ("lambda-runtime-aws-request-id", head.request_id.as_str()),
        ("lambda-runtime-deadline-ms", &deadline),
        ("lambda-runtime-invoked-function-arn", &head.arn),
        ("lambda-runtime-trace-id", &head.trace_id),
        ("lambda-runtime-client-context", head.client_context.as_deref().unwrap_or_default()),
    ];
    for (name, value) in fields {
        // Bytes, because a client context may hold any text.
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value.as_bytes())) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}

async fn response(agent: &Rc<Agent>, id: &str, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    if !agent.calls.borrow().is_running(id) {
        discard(body).await;
        return unknown_id();
    }
    match head.headers.get(RESPONSE_MODE).map(HeaderValue::as_bytes) {
        None | Some(b"streaming") => {}
        Some(_) => {
            discard(body).await;
            return refused(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", "Invalid response mode");
        }
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/json");
    let streams = head.headers.contains_key(RESPONSE_MODE);
    let window = agent.calls.borrow().window(id).filter(|_| streams);
    if let Some((stream, window)) = window {
        let passed = stream::pass_on(agent, stream, &window, content_type, body).await;
        return streamed(agent, id, content_type, passed).await;
    }
    match collect(body, PAYLOAD_BYTES).await {
        Ok(body) => match body.trailers.get(ERROR_TYPE) {
            Some(error_type) => {
                accepted_if(agent.answer_with_failure(id, &in_trailers(error_type, &body.trailers)))
            }
            None => accepted_if(agent.answer(id, content_type.to_owned(), body.bytes)),
        },
        Err(Unread::Truncated) => truncated(agent, id).await,
        Err(Unread::TooLarge) => too_large(agent, id, PAYLOAD_BYTES as u64),
    }
}

/// Ends a call by how its streamed result ended.
async fn streamed(agent: &Rc<Agent>, id: &str, content_type: &str, passed: Passed) -> Answer {
    match passed {
        Passed::Whole { begun, trailers } => match trailers.get(ERROR_TYPE) {
            Some(error_type) => {
                accepted_if(agent.answer_with_failure(id, &in_trailers(error_type, &trailers)))
            }
            None => accepted_if(agent.end_stream(id, begun, content_type)),
        },
        Passed::Truncated => truncated(agent, id).await,
        Passed::TooLarge => too_large(agent, id, STREAM_BYTES),
        Passed::CallEnded => unknown_id(),
    }
}

fn in_trailers(error_type: &HeaderValue, trailers: &HeaderMap) -> Failure {
    let document = trailers.get(ERROR_BODY).map(HeaderValue::as_bytes).unwrap_or_default();
    failure::from_trailers(error_type.to_str().unwrap_or("Runtime.Unknown"), document)
}

async fn truncated(agent: &Rc<Agent>, id: &str) -> Answer {
    tokio::time::sleep(EXPLANATION).await;
    if agent.is_ending() {
        // Every caller will be told why.
        return unknown_id();
    }
    agent.answer_with_failure(id, &failure::bad_response("the response ended before it was complete"));
    refused(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "HTTP request truncated")
}

fn too_large(agent: &Rc<Agent>, id: &str, limit: u64) -> Answer {
    agent.answer_with_failure(id, &failure::too_large(limit));
    let text = format!("Exceeded maximum allowed payload size ({limit} bytes).");
    refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text)
}

async fn error(agent: &Rc<Agent>, id: &str, request: Request<Incoming>) -> Answer {
    if !agent.calls.borrow().is_running(id) {
        discard(request.into_body()).await;
        return unknown_id();
    }
    let (error_type, body) = match posted(request).await {
        Ok(posted) => posted,
        Err(refused) => return refused,
    };
    let failure = failure::posted(FailureKind::FunctionError, &error_type, &body);
    accepted_if(agent.answer_with_failure(id, &failure))
}

async fn init_error(agent: &Rc<Agent>, request: Request<Incoming>) -> Answer {
    let (error_type, body) = match posted(request).await {
        Ok(posted) => posted,
        Err(refused) => return refused,
    };
    let starting = agent.starting.borrow_mut().take();
    let Some(starting) = starting else {
        let text = "State transition from Ready to InitError failed for runtime. Error: State transition is not allowed";
        return refused(StatusCode::FORBIDDEN, "InvalidStateTransition", text);
    };
    let _ = starting.send(StartEvent::Failed(failure::posted(FailureKind::InitFailed, &error_type, &body)));
    accepted()
}

async fn posted(request: Request<Incoming>) -> Result<(String, Bytes), Answer> {
    let error_type = request.headers().get(ERROR_TYPE).and_then(|value| value.to_str().ok());
    let error_type = failure::known_type(error_type);
    match collect(request.into_body(), PAYLOAD_BYTES).await {
        Ok(body) => Ok((error_type, body.bytes)),
        Err(_) => Err(refused(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "HTTP request truncated")),
    }
}

pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    trailers: HeaderMap,
}

pub(crate) enum Unread {
    TooLarge,
    Truncated,
}

/// Reads a body to its end even when it is too large: clients write it all before they look at the answer.
pub(crate) async fn collect(mut body: Incoming, limit: usize) -> Result<Body, Unread> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut size = 0;
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unread::Truncated)?;
        match frame.into_data() {
            Ok(data) => {
                size += data.len();
                if size > limit {
                    rest = BytesMut::new();
                } else if first.is_empty() {
                    first = data;
                } else {
                    rest.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if size > limit {
        return Err(Unread::TooLarge);
    }
    let bytes = if rest.is_empty() {
        first
    } else {
        let mut whole = BytesMut::with_capacity(size);
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        whole.freeze()
    };
    Ok(Body { bytes, trailers })
}

/// An answer before the body's end would close the connection, and cost the runtime its next request.
async fn discard(body: Incoming) {
    let _ = collect(body, 0).await;
}

fn accepted() -> Answer {
    json(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n"))
}

fn accepted_if(known: bool) -> Answer {
    if known { accepted() } else { unknown_id() }
}

fn unknown_id() -> Answer {
    refused(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn refused(status: StatusCode, error_type: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errorMessage": message, "errorType": error_type });
    json(status, body.to_string().into())
}

fn json(status: StatusCode, body: Bytes) -> Answer {
    typed(status, "application/json", body)
}

fn text(status: StatusCode, body: &'static str) -> Answer {
    typed(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
