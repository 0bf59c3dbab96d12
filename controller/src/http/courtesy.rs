//! Takes and throws away some of a body that was refused before it had arrived. A client whose connection is reset
//! while it sends sees the reset, and not the answer that says why.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use davit_api::limits;
use davit_daemon::courtesy;
use http::header;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

/// How much is still taken, in bytes: an archive of twice the size that is allowed is heard out.
const BYTES: u64 = 2 * limits::SOURCE_BYTES as u64;

/// Around every handler, and around what refuses a request before there is one.
pub(super) async fn hear_out(request: Request, next: Next) -> Response {
    // Such a client waits to be told to send; not being told is its answer.
    if request.headers().contains_key(header::EXPECT) || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let mut lent = Lent(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(parts, Body::new(lent.clone()))).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        courtesy::hear_out(&mut lent, BYTES).await;
    }
    response
}

/// A body that can be read on after its reader has let go of it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}
