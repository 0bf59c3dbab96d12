//! The HTTP accept loop. `axum::serve` sets no timer, so a client that never finishes its headers would
//! hold a connection for ever; this loop bounds headers, their time, the connections, and the shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Bounds of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. One more gets a prompt 503 and is closed.
    pub max_connections: usize,
    /// Time for a request's headers to arrive whole, from the connection's start or the previous answer; so
    /// it is also the longest an idle connection is kept.
    pub header_timeout: Duration,
    /// Bytes of a request's headers, its first line included. More is answered with 431.
    pub max_header_bytes: usize,
    /// Header lines of a request.
    pub max_headers: usize,
    /// After shutdown: how long open requests may take before their connections are cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            header_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_headers: 100,
            drain: Duration::from_secs(20),
        }
    }
}

/// Connections that are being told "no" at a time; beyond it they are dropped unanswered.
const REFUSALS: usize = 64;
const FULL: &str = r#"{"code":"unavailable","message":"too many connections; try again","source":"platform","retryable":true}"#;
const PANICKED: &str = r#"{"code":"internal","message":"davit failed on this request; its log says why","source":"platform","retryable":false}"#;

/// Serves `app` until `shutdown`, then drains. Returns the number of connections that had to be cut.
/// Handlers find the peer in `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, shutdown: CancellationToken) -> usize {
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => { after_accept_error(&error).await; continue }
            },
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            if let Ok(permit) = refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(1), refuse(stream)).await;
                    drop(permit);
                });
            }
            continue;
        };
        let connection = serve_connection(stream, peer, app.clone(), limits.clone(), shutdown.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(limits.drain, connections.wait()).await;
    let left = connections.len();
    cut.cancel();
    connections.wait().await;
    left
}

/// Out of file descriptors is the one accept error that repeats at once: wait for some to be closed.
async fn after_accept_error(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Answers 503 and reads what the client sends for a moment: closing with unread bytes would reset the
/// connection, and the answer might never be seen.
async fn refuse(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{FULL}",
        FULL.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut sink = [0; 1024];
        while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {}
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    // Small answers on a kept connection would otherwise wait for the peer's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| answer(app.clone(), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        // The buffer must hold the headers and hyper refuses less than 8 KiB.
        .max_buf_size(limits.max_header_bytes.max(8 * 1024) + 64 * 1024)
        .max_headers(limits.max_headers)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%peer, %error, "connection ended");
    }
}

/// One request. A panic in a handler is answered like any other failure; the panic hook has logged it.
async fn answer(
    app: Router,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    let answered = AssertUnwindSafe(app.oneshot(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        let mut response = Response::new(Body::from(PANICKED));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        Ok(response)
    })
}

#[cfg(test)]
mod tests;
