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
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpLimits;
use crate::http::rewound::Rewound;
use crate::http::{Body, Peer, Public, express};
use crate::lanes::Lanes;

/// Accepts until `stop` fires; returns when every connection has ended or `hard` fires.
pub async fn serve(
    listener: TcpListener,
    public: Arc<Public>,
    lanes: Arc<Lanes>,
    limits: HttpLimits,
    stop: CancellationToken,
    hard: CancellationToken,
) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept_one(&listener, &room) => accepted,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let (public, stop, hard) = (public.clone(), stop.clone(), hard.clone());
        lanes.carry(connections.track_future(async move {
            public.metrics().connections_open.add(1);
            tokio::select! {
                () = hard.cancelled() => {}
                () = connection(stream, peer, &public, limits, stop) => {}
            }
            public.metrics().connections_open.sub(1);
            drop(permit);
        }));
    }
    drop(listener);
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = hard.cancelled() => {}
    }
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
        Ok((stream, peer)) => {
            let _ = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            // Out of descriptors or memory: do not spin, the cause passes when a connection ends.
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(
    stream: std::net::TcpStream,
    peer: SocketAddr,
    public: &Arc<Public>,
    limits: HttpLimits,
    stop: CancellationToken,
) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let from = &Peer::new(peer);
    let Some((stream, read)) = express::serve(stream, public, from, limits, &stop).await else { return };
    let stream = Rewound { read, stream };
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<Response<Body>, Infallible>(public.handle(request.map(Body::stream), from).await)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(64 * 1024))
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended early");
    }
}
