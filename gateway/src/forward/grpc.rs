//! gRPC: HTTP/2 on both sides, because its status travels in trailers. The function listens on `$PORT` without TLS, as
//! gRPC servers behind a proxy do; one connection to an instance carries all of its calls.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Failed, Refused, bad_response, failed_exchange, headers, not_connected, spoils};
use crate::http::{Body, Guard};
use crate::instances::{Instance, OpenError, Slot, connect};
use crate::invoke::timed_out;
use crate::version::LiveVersion;

/// Whether a request's headers say that it is gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Sends a request whose headers are prepared, and waits for the response's head until `deadline`.
pub(super) async fn send(
    mut slot: Slot,
    instance: Arc<Instance>,
    version: &LiveVersion,
    mut request: Request<Body>,
    deadline: Instant,
) -> Result<Response<Body>, Failed> {
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    *request.uri_mut() = absolute(&request);
    let sending = async {
        let mut send = connection(&instance, deadline).await?;
        // A connection that has just been closed is replaced once; nothing has been written by then.
        if send.ready().await.is_err() {
            instance.upstreams.set_h2(None);
            send = connection(&instance, deadline).await?;
            send.ready().await?;
        }
        Ok::<_, OpenError>(send)
    };
    let mut send = match tokio::time::timeout_at(deadline.into(), sending).await {
        Ok(Ok(send)) => send,
        Ok(Err(error)) => {
            slot.set_spoiled(spoils(&error));
            return Err(match not_connected(error, version) {
                Refused::Unsent(error) => Failed::Unsent(Box::new(request), error),
                Refused::Final(error) => Failed::Final(error),
            });
        }
        Err(_) => return Err(Failed::Final(timed_out(version))),
    };
    match tokio::time::timeout_at(deadline.into(), send.send_request(request)).await {
        Ok(Ok(response)) => {
            let (mut parts, body) = response.into_parts();
            headers::clean_response(&mut parts.headers);
            Ok(Response::from_parts(
                parts,
                Body::stream_with_trailers(body).guarded(Box::new(Held(Some(slot)))),
            ))
        }
        Ok(Err(error)) if error.is_user() => {
            Err(Failed::Final(bad_response("the request is not valid HTTP/2")))
        }
        Ok(Err(error)) => Err(Failed::Final(failed_exchange(&error, &instance))),
        Err(_) => Err(Failed::Final(timed_out(version))),
    }
}

/// The instance's connection, made when there is none. Two calls that find none at once each make one; the later stays.
async fn connection(instance: &Instance, deadline: Instant) -> Result<SendRequest<Body>, OpenError> {
    if let Some(send) = instance.upstreams.h2() {
        return Ok(send);
    }
    let stream = connect(&instance.link, deadline).await?;
    let (send, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // Ends when the last call and the instance have let go of it.
    tokio::spawn(driver);
    instance.upstreams.set_h2(Some(send.clone()));
    Ok(send)
}

/// HTTP/2 names scheme and authority in the target.
fn absolute(request: &Request<Body>) -> Uri {
    let path = request.uri().path_and_query().map_or("/", |all| all.as_str());
    let host =
        request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("localhost");
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(path).build();
    uri.unwrap_or(Uri::from_static("http://localhost/"))
}

/// What a streaming response holds on to. The connection is driven by its own task: it belongs to many.
struct Held(Option<Slot>);

impl Guard for Held {
    fn drive(&mut self, _: &mut Context<'_>) {}
    fn completed(&mut self) {
        self.0 = None;
    }
}
