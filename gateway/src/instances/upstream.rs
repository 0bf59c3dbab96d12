//! Connections to a server function inside one instance.
//!
//! The agent opens them and hands the connected sockets over, so there is no address that could later belong to
//! somebody else. A few idle ones are kept for a moment: longer than that, and the server's own keep-alive could
//! end while a request is on its way.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use davit_link::{Link, LinkError};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::http::Body;
use crate::lanes;

/// Below the shortest keep-alive that common servers use (gunicorn: 2 s).
const IDLE: Duration = Duration::from_millis(1_500);
/// Idle connections kept: one for each call that an instance can have at a time, at most.
const KEPT: usize = 1_000;

/// The half of a connection that reads and writes; hyper does not name its type.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send + Sync>>;

/// A connection that carries one exchange at a time.
///
/// It has no task of its own. Whoever uses it drives it, so a request is parsed, sent on and answered in the one
/// task of the client's connection: no wake-up from task to task, which costs more than the bytes do.
pub struct Upstream {
    send: SendRequest<Body>,
    /// `None` once it has ended.
    driver: Option<Driver>,
    /// Whether it has carried an exchange before, and may therefore be closed by the server at any moment.
    pub reused: bool,
}

impl Upstream {
    /// Sends a request and waits for the head of its answer. An error that has the request in it wrote no byte.
    pub async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = std::pin::pin!(self.send.try_send_request(request));
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            drive(driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Moves bytes for whoever waits for a body that comes or goes over this connection.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Drives what an upgraded exchange has left of the protocol in a task of its own: the handover of the bytes.
    pub fn detach(self) -> SendRequest<Body> {
        if let Some(driver) = self.driver {
            tokio::spawn(driver);
        }
        self.send
    }
}

impl Reusable for Upstream {
    fn is_good(&mut self) -> bool {
        // Nobody waits: the next user's own waker takes the place of this one.
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.send.is_ready()
    }
}

fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        && connection.as_mut().poll(cx).is_ready()
    {
        // How it ended is seen by the exchange that it carried.
        *driver = None;
    }
}

/// The idle connections of one instance.
#[derive(Default)]
pub struct Upstreams {
    /// Those that hyper speaks on.
    pub http: Shelves<Upstream>,
    /// Those of the express way, which speaks for itself.
    pub raw: Shelves<TcpStream>,
    /// The one that all gRPC calls share.
    h2: Mutex<Option<http2::SendRequest<Body>>>,
}

impl Upstreams {
    /// Closes what is idle.
    pub fn clear(&self) {
        self.http.clear();
        self.raw.clear();
        self.set_h2(None);
    }

    /// The HTTP/2 connection, while it is open.
    pub fn h2(&self) -> Option<http2::SendRequest<Body>> {
        self.h2.lock().as_ref().filter(|send| !send.is_closed()).cloned()
    }

    /// Takes the place of the HTTP/2 connection.
    pub fn set_h2(&self, send: Option<http2::SendRequest<Body>>) {
        let old = std::mem::replace(&mut *self.h2.lock(), send);
        drop(old);
    }
}

/// What can lie idle and be used again.
pub trait Reusable {
    /// Whether it can carry the next exchange. Looks, so a server that has closed its end is noticed.
    fn is_good(&mut self) -> bool;
}

impl Reusable for TcpStream {
    fn is_good(&mut self) -> bool {
        // An idle server has nothing to say: its end and a stray byte both make the connection useless.
        matches!(self.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// One shelf a lane; lanes beyond share them.
const SHELVES: usize = 8;

/// Idle connections, the oldest first, on a shelf for each lane: a connection is watched by the runtime that it was
/// opened on.
pub struct Shelves<T>([Mutex<VecDeque<(T, Instant)>>; SHELVES]);

impl<T> Default for Shelves<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl<T: Reusable> Shelves<T> {
    /// A connection that is still good. The newest first, so that the others grow old.
    pub fn take(&self) -> Option<T> {
        loop {
            let (mut one, since) = self.here().lock().pop_back()?;
            if since.elapsed() >= IDLE {
                // So are all the others.
                empty(self.here());
                return None;
            }
            if one.is_good() {
                return Some(one);
            }
        }
    }

    /// Gives a connection back whose answer has been read to its end. One that still has something to send is
    /// closed: nobody would drive it.
    pub fn give(&self, mut one: T) {
        if !one.is_good() {
            return;
        }
        let now = Instant::now();
        let mut old = Vec::new();
        let mut idle = self.here().lock();
        while let Some((_, since)) = idle.front()
            && (idle.len() >= KEPT || now.saturating_duration_since(*since) >= IDLE)
        {
            old.extend(idle.pop_front());
        }
        idle.push_back((one, now));
        drop(idle);
        // Closing sockets needs no lock.
        drop(old);
    }

    fn clear(&self) {
        self.0.iter().for_each(empty);
    }

    fn here(&self) -> &Mutex<VecDeque<(T, Instant)>> {
        &self.0[lanes::current() % SHELVES]
    }
}

/// Closes what lies on a shelf; sockets are not closed under its lock.
fn empty<T>(shelf: &Mutex<VecDeque<(T, Instant)>>) {
    let idle = std::mem::take(&mut *shelf.lock());
    drop(idle);
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

/// A new connection through the agent.
pub async fn connect(link: &Link, deadline: Instant) -> Result<TcpStream, OpenError> {
    let socket = link.open(deadline).await?;
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from_std(socket)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A new connection that hyper speaks on.
pub async fn open(link: &Link, deadline: Instant) -> Result<Upstream, OpenError> {
    let stream = connect(link, deadline).await?;
    let (send, connection) =
        http1::Builder::new().max_buf_size(256 * 1024).handshake(TokioIo::new(stream)).await?;
    Ok(Upstream { send, driver: Some(Box::pin(connection.with_upgrades())), reused: false })
}
