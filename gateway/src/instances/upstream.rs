//! Connections to a server function inside one instance.
//!
//! The agent opens them and hands the connected sockets over, so there is no address that could later belong to
//! somebody else. A few idle ones are kept for a moment: longer than that, and the server's own keep-alive could
//! end while a request is on its way.

use std::time::{Duration, Instant};

use davit_link::{Link, LinkError};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use crate::http::Body;

/// Below the shortest keep-alive that common servers use (gunicorn: 2 s).
const IDLE: Duration = Duration::from_millis(1_500);
/// Idle connections kept.
const KEPT: usize = 32;

/// A connection that can take one request.
pub struct Upstream {
    /// Takes the request.
    pub send: SendRequest<Body>,
    /// Whether it has carried one before, and may therefore be closed by the server at any moment.
    pub reused: bool,
}

/// The idle connections of one instance.
#[derive(Default)]
pub struct Upstreams {
    idle: Mutex<Vec<(SendRequest<Body>, Instant)>>,
}

impl Upstreams {
    /// An idle connection that is still good.
    pub fn take(&self) -> Option<Upstream> {
        let mut idle = self.idle.lock();
        idle.retain(|(send, since)| !send.is_closed() && since.elapsed() < IDLE);
        // The newest first, so that the others grow old. One whose last response ended this very moment may not
        // be ready yet; it stays for later.
        let at = idle.iter().rposition(|(send, _)| send.is_ready())?;
        let (send, _) = idle.remove(at);
        Some(Upstream { send, reused: true })
    }

    /// Gives a connection back whose response has been read to its end.
    pub fn give(&self, send: SendRequest<Body>) {
        if send.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= KEPT {
            idle.remove(0);
        }
        idle.push((send, Instant::now()));
    }

    /// Closes what is idle.
    pub fn clear(&self) {
        self.idle.lock().clear();
    }
}

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The agent said so, or is gone.
    #[error("{0}")]
    Link(#[from] LinkError),
    /// The socket it handed over cannot be used.
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    /// The connection ended before it could be used.
    #[error("http: {0}")]
    Http(#[from] hyper::Error),
}

/// Opens a new connection through the agent.
pub async fn open(link: &Link, deadline: Instant) -> Result<Upstream, OpenError> {
    let socket = link.open(deadline).await?;
    socket.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(socket)?;
    let _ = stream.set_nodelay(true);
    let (send, connection) =
        http1::Builder::new().max_buf_size(256 * 1024).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Ends by itself when the sender is dropped or the server closes; its errors surface at the sender.
        let _ = connection.with_upgrades().await;
    });
    Ok(Upstream { send, reused: false })
}
