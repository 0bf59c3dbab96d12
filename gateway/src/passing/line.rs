//! Connections to other gateways, each with one call at a time; idle ones are kept for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::http::{Body, Guard};

/// Shorter than the other side waits for the next call.
const IDLE: Duration = Duration::from_secs(15);
/// Idle connections that are kept to one gateway.
const KEPT: usize = 256;
/// A gateway is near; one that cannot be reached in this time is taken for away.
const CONNECT: Duration = Duration::from_millis(500);

/// A connection.
pub(super) struct Line {
    to: SocketAddr,
    send: SendRequest<Body>,
}

/// Idle connections; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Idle>>);

/// Lines that nobody uses, by whose they are, with since when.
type Idle = HashMap<SocketAddr, Vec<(Line, Instant)>>;

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing was sent.
    Unsent,
    /// The call may have begun.
    Broken(hyper::Error),
}

impl Lines {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        &self,
        to: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<(Line, Response<Incoming>), Failed> {
        loop {
            let (mut line, reused) = match self.idle(to) {
                Some(line) => (line, true),
                None => (open(to).await?, false),
            };
            // One that was closed meanwhile says so here, and is not counted as a try.
            if line.send.ready().await.is_err() {
                if reused {
                    continue;
                }
                return Err(Failed::Unsent);
            }
            match line.send.try_send_request(request).await {
                Ok(response) => return Ok((line, response)),
                Err(mut error) => match error.take_message() {
                    Some(back) if reused => request = back,
                    Some(_) => return Err(Failed::Unsent),
                    None => return Err(Failed::Broken(error.into_error())),
                },
            }
        }
    }

    fn idle(&self, to: SocketAddr) -> Option<Line> {
        let mut all = self.0.lock();
        let idle = all.get_mut(&to)?;
        while let Some((line, since)) = idle.pop() {
            if since.elapsed() < IDLE && !line.send.is_closed() {
                return Some(line);
            }
        }
        None
    }

    /// Closes idle ones to all others than these. The side that sends does it, so that no call is on its way to the one that closes.
    pub(super) fn keep_to(&self, wanted: impl Fn(&SocketAddr) -> bool) {
        self.0.lock().retain(|to, _| wanted(to));
    }

    fn give(&self, line: Line) {
        if line.send.is_closed() {
            return;
        }
        let mut all = self.0.lock();
        // Of a gateway that is gone they grow old here, until another call is passed on.
        all.retain(|_, idle| {
            idle.retain(|(line, since)| since.elapsed() < IDLE && !line.send.is_closed());
            !idle.is_empty()
        });
        let idle = all.entry(line.to).or_default();
        if idle.len() < KEPT {
            idle.push((line, Instant::now()));
        }
    }
}

async fn open(to: SocketAddr) -> Result<Line, Failed> {
    let opened = async {
        let stream = TcpStream::connect(to).await.ok()?;
        let _ = stream.set_nodelay(true);
        let (send, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection.with_upgrades());
        Some(Line { to, send })
    };
    tokio::time::timeout(CONNECT, opened).await.ok().flatten().ok_or(Failed::Unsent)
}

/// What an answer's body holds on to: its connection, which is good for another call once the body has been read.
pub(super) struct Returned {
    lines: Lines,
    line: Option<Line>,
}

impl Returned {
    pub(super) fn new(lines: Lines, line: Line) -> Self {
        Self { lines, line: Some(line) }
    }
}

impl Guard for Returned {
    /// Its own task does.
    fn drive(&mut self, _: &mut Context<'_>) {}

    fn completed(&mut self) {
        if let Some(line) = self.line.take() {
            self.lines.give(line);
        }
    }
}
