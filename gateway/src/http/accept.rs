//! The public listener's accept loop.
//!
//! Own, because a framework's default has no header timeout and no bound on connections. What HTTP itself allows
//! to be endless is bounded here: connections, header bytes, header count, the time to send a header.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpLimits;
use crate::http::rewound::Rewound;
use crate::http::stall::{Answers, Bounded};
use crate::http::{Body, Peer, Public, Tls, express};
use crate::lanes::Lanes;

/// What every connection needs.
pub struct Door {
    /// Who answers.
    pub public: Arc<Public>,
    /// Bounds.
    pub limits: HttpLimits,
    /// TLS, if it is spoken here.
    pub tls: Option<Tls>,
    /// Ends the door: no new connections, no new requests on those that are open.
    pub stop: CancellationToken,
    /// Ends what is still under way.
    pub hard: CancellationToken,
}

/// How long a connection that has brought nothing yet may take for its first request after `stop`: whoever opened it did so
/// before, and would take its end for a failed call.
const FIRST: Duration = Duration::from_secs(1);

/// Accepts until `stop` fires; returns when every connection has ended or `hard` fires.
pub async fn serve(listener: TcpListener, door: Door, lanes: Arc<Lanes>) {
    let door = Arc::new(door);
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(door.limits.connections));
    let carry = |stream: std::net::TcpStream, peer, permit| {
        let _ = stream.set_nodelay(true);
        let door = door.clone();
        lanes.carry(connections.track_future(async move {
            door.public.metrics().connections_open.add(1);
            tokio::select! {
                () = door.hard.cancelled() => {}
                () = connection(stream, peer, &door) => {}
            }
            door.public.metrics().connections_open.sub(1);
            drop(permit);
        }));
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.stop.cancelled() => break,
            accepted = accept_one(&listener, &room) => accepted,
        };
        if let Some((stream, peer, permit)) = accepted {
            carry(stream, peer, permit);
        }
    }
    // Those that the kernel has accepted are open to their clients.
    if let Ok(listener) = listener.into_std() {
        while let (Ok(permit), Ok((stream, peer))) = (room.clone().try_acquire_owned(), listener.accept()) {
            if stream.set_nonblocking(true).is_ok() {
                carry(stream, peer, permit);
            }
        }
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = door.hard.cancelled() => {}
    }
}

/// Returns when a connection is to bring no more requests: at the stop, or, as long as its first one has not `begun`, a little after.
pub(super) async fn stopped(stop: &CancellationToken, begun: impl Future<Output = ()>) {
    stop.cancelled().await;
    let _ = tokio::time::timeout(FIRST, begun).await;
}

/// A connection that no runtime watches yet: its lane's will.
async fn accept_one(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(std::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // Room first: connections over the cap wait in the kernel's queue instead of costing memory here.
    let permit = room.clone().acquire_owned().await.ok()?;
    let accepted = listener.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
    match accepted {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            // Out of descriptors or memory: do not spin, the cause passes when a connection ends.
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

/// One connection, whatever is spoken on it.
async fn connection(stream: std::net::TcpStream, peer: SocketAddr, door: &Door) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let from = &Arc::new(Peer::new(peer, door.tls.is_some()));
    let Some(tls) = &door.tls else {
        let Some((stream, read)) = express::serve(stream, door, from).await else { return };
        let h2 = read.starts_with(H2_BEGINS);
        return usual(Rewound { read, stream }, from, h2, door).await;
    };
    match tls.accept(stream).await {
        Ok((stream, h2)) => usual(stream, from, h2, door).await,
        Err(error) => tracing::debug!(%peer, %error, "handshake failed"),
    }
}

/// How the preface of HTTP/2 begins (RFC 9113, 3.4). No request does: the version in it does not exist.
const H2_BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n";
/// Requests at a time on one HTTP/2 connection.
const H2_STREAMS: u32 = 250;

/// The usual way: hyper reads and writes.
async fn usual<S>(stream: S, from: &Arc<Peer>, h2: bool, door: &Door)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let bounded = Bounded::new(stream, door.limits.write_timeout, door.public.metrics.clone());
    let ended = match h2 {
        true => http2(bounded, from, door).await,
        false => http1(bounded, from, door).await,
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %from.address, %error, "connection ended early");
    }
}

async fn http2<S>(stream: Bounded<S>, from: &Arc<Peer>, door: &Door) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Door { public, limits, stop, .. } = door;
    let answers = Answers::default();
    // Requests on a connection are tasks of their own.
    let (their, from, watch) = (public.clone(), from.clone(), answers.clone());
    let begun = CancellationToken::new();
    let noted = begun.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        noted.cancel();
        let (public, from, answer) = (their.clone(), from.clone(), watch.another());
        async move {
            let response = public.handle(request.map(Body::stream), &from).await;
            Ok::<Response<Body>, Infallible>(response.map(|body| body.watched(answer)))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        // A silent client is asked for a sign of life after as long as an idle HTTP/1.1 connection may take.
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let carried = async {
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(stop, begun.cancelled()) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    tokio::select! {
        ended = carried => ended,
        () = answers.stall(limits.write_timeout) => {
            // Hyper knows no way to end one answer from outside; the client may come again for the others.
            public.metrics.clients_stalled.add(1);
            Ok(())
        }
    }
}

async fn http1<S>(stream: Bounded<S>, from: &Arc<Peer>, door: &Door) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Door { public, limits, stop, .. } = door;
    let begun = &CancellationToken::new();
    let service = service_fn(move |request: Request<Incoming>| {
        begun.cancel();
        async move { Ok::<Response<Body>, Infallible>(public.handle(request.map(Body::stream), from).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(64 * 1024))
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stop, begun.cancelled()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
