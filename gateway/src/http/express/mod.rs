//! The express way: plain requests to server functions, without building and taking apart a request and a response.
//!
//! A request is read, checked, written on and answered in one loop over two sockets and three buffers that last as long
//! as the connection. It enters the same corridor as every other call: its account, its slot, its budget. Whatever is
//! not plain (see [`order`]) goes the usual way, with all that has been read of it, and its connection stays there.

mod answer;
mod chunked;
mod exchange;
mod order;

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use davit_api::ApiError;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use self::answer::Framing;
use self::exchange::Answering;
use self::order::{Order, Verdict};
use crate::config::HttpLimits;
use crate::http::accept::stopped;
use crate::http::{Body, Door, Peer, Public, error, stall};
use crate::instances::Underway;

/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;
/// What a client may send ahead while its request is being answered.
const AHEAD_BYTES: usize = 64 * 1024;

/// How a connection goes on.
enum Next {
    /// With another request.
    Request,
    /// The usual way.
    Usual,
    /// Not at all.
    Close,
}

/// One connection on the express way.
struct Express<'a> {
    client: TcpStream,
    public: &'a Public,
    peer: &'a Peer,
    limits: HttpLimits,
    stop: &'a CancellationToken,
    /// It has brought a request.
    begun: bool,
    /// What has come from the client and is not used yet.
    input: BytesMut,
    /// What goes to the function.
    request: Vec<u8>,
    /// What has come from the function.
    received: BytesMut,
    /// What goes to the client.
    out: Vec<u8>,
}

/// Serves a connection as far as it is plain. Then gives it back with what has been read, or nothing when it is over.
pub(super) async fn serve(client: TcpStream, door: &Door, peer: &Peer) -> Option<(TcpStream, Bytes)> {
    let Door { public, limits, stop, .. } = door;
    let (input, received) = (BytesMut::with_capacity(READ_BYTES), BytesMut::new());
    let (request, out) = (Vec::new(), Vec::new());
    let mut this =
        Express { client, public, peer, limits: *limits, stop, begun: false, input, request, received, out };
    loop {
        match this.next().await {
            Ok(Next::Request) => {}
            Ok(Next::Usual) => return Some((this.client, this.input.freeze())),
            Ok(Next::Close) => {
                let _ = this.client.shutdown().await;
                return None;
            }
            // The client is gone, or the rest of an answer is: the connection's end says so.
            Err(_) => return None,
        }
    }
}

impl Express<'_> {
    /// One request from its first byte to the last of its answer.
    async fn next(&mut self) -> io::Result<Next> {
        let mut until = None;
        let mut order = loop {
            self.request.clear();
            match order::look(&self.input, self.public, self.peer, &mut self.request) {
                Verdict::Order(order) => break order,
                Verdict::Usual => return Ok(Next::Usual),
                Verdict::Incomplete if self.input.len() > self.limits.header_bytes => return Ok(Next::Usual),
                Verdict::Incomplete => {}
            }
            // For the whole head, however steadily it drips; a head that is here already asks no clock.
            let until = *until.get_or_insert_with(|| Instant::now() + self.limits.header_timeout);
            if !self.read_head(until).await? {
                return Ok(Next::Close);
            }
        };
        self.begun = true;
        order.last |= self.stop.is_cancelled();
        if let Some(next) = self.take_body(&order).await? {
            return Ok(next);
        }
        self.call(&order).await
    }

    /// More of a request's head; false when none comes until then.
    async fn read_head(&mut self, until: Instant) -> io::Result<bool> {
        self.input.reserve(READ_BYTES);
        let idle = self.input.is_empty();
        let begun = async || {
            if !self.begun {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            read = tokio::time::timeout_at(until.into(), self.client.read_buf(&mut self.input)) => {
                Ok(read.is_ok_and(|read| read.is_ok_and(|n| n > 0)))
            }
            () = stopped(self.stop, begun()), if idle => Ok(false),
        }
    }

    /// Moves the request's body behind its head in what goes to the function.
    async fn take_body(&mut self, order: &Order) -> io::Result<Option<Next>> {
        let whole = order.head + order.body;
        while self.input.len() < whole {
            self.input.reserve(READ_BYTES);
            let read =
                tokio::time::timeout_at(order.deadline.into(), self.client.read_buf(&mut self.input)).await;
            match read {
                Ok(Ok(n)) if n > 0 => {}
                Ok(_) => return Ok(Some(Next::Close)),
                Err(_) => {
                    self.refuse(&exchange::body_late(), true).await?;
                    return Ok(Some(Next::Close));
                }
            }
        }
        self.request.extend_from_slice(&self.input[order.head..whole]);
        self.input.advance(whole);
        Ok(None)
    }

    async fn call(&mut self, order: &Order) -> io::Result<Next> {
        let call = Underway { trace_id: order.trace_id.clone(), ..Underway::plain(order.id, order.deadline) };
        let mut account = self.public.corridor.account(&order.version, order.arrived, call);
        self.out.clear();
        let sending = exchange::send(&mut account, order, &self.request, &mut self.received, &mut self.out);
        let Some(sent) = while_there(&mut self.client, &mut self.input, sending).await else {
            // Dropping the account, the slot and the function's connection is how the function learns of it.
            return Ok(Next::Close);
        };
        match sent {
            Ok(answering) => {
                account.answered(answering.head.status);
                account.close(None);
                self.pass_body(order, answering).await?;
            }
            Err(failed) => {
                account.close(Some(failed.error.code));
                let response = error::respond(&failed.body(order.id));
                self.write_own(response, order.last).await?;
            }
        }
        Ok(if order.last { Next::Close } else { Next::Request })
    }

    /// Passes an answer's body on as it comes. What cannot be passed on to its end is cut, which the client sees.
    async fn pass_body(&mut self, order: &Order, answering: Answering) -> io::Result<()> {
        let mut from = answering;
        let mut body = Rest::of(from.head.framing);
        loop {
            let ended = body.pass(&mut self.received, &mut self.out).map_err(io::Error::other)?;
            if ended {
                // The instance is free for the next call before the client has taken the last bytes.
                if from.head.reusable && self.received.is_empty() {
                    from.instance.upstreams.raw.give(from.stream);
                }
                drop(from.slot);
                self.give().await?;
                self.shrink();
                return Ok(());
            }
            self.give().await?;
            self.out.clear();
            self.received.reserve(READ_BYTES);
            let reading = from.stream.read_buf(&mut self.received);
            let Some(read) = while_there(&mut self.client, &mut self.input, reading).await else {
                return Err(io::ErrorKind::ConnectionAborted.into());
            };
            if read? == 0 && !body.ends_here() {
                tracing::debug!(function = %order.version.function, "the server broke off its answer");
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Writes what is ready to the client, which may take its time over it as long as it takes something.
    async fn give(&self) -> io::Result<()> {
        let mut rest = &self.out[..];
        while !rest.is_empty() {
            match self.client.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let room = tokio::time::timeout(self.limits.write_timeout, self.client.writable());
                    room.await.map_err(|_| stall::stalled(&self.public.metrics))??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A large answer's buffers are not kept for the sake of small ones.
    fn shrink(&mut self) {
        self.out.clear();
        self.out.shrink_to(4 * READ_BYTES);
        self.request.shrink_to(4 * READ_BYTES);
        if self.received.capacity() > 4 * READ_BYTES {
            self.received = BytesMut::new();
        }
    }

    async fn refuse(&mut self, error: &ApiError, last: bool) -> io::Result<()> {
        self.write_own(error::refuse(error), last).await
    }

    /// Writes an answer of the gateway's own.
    async fn write_own(&mut self, response: Response<Body>, last: bool) -> io::Result<()> {
        let (parts, body) = response.into_parts();
        let body = body.into_bytes();
        self.out.clear();
        self.out.extend_from_slice(format!("HTTP/1.1 {}\r\n", parts.status).as_bytes());
        for (name, value) in &parts.headers {
            answer::line(&mut self.out, name.as_str(), value.as_bytes());
        }
        answer::line(&mut self.out, "content-length", body.len().to_string().as_bytes());
        if last {
            answer::line(&mut self.out, "connection", b"close");
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(&body);
        self.give().await
    }
}

/// What is still to come of a body.
enum Rest {
    Bytes(u64),
    Chunks(chunked::Chunks),
    /// Until the end of the connection; true once that was seen.
    UntilClose(bool),
}

impl Rest {
    fn of(framing: Framing) -> Self {
        match framing {
            Framing::Empty => Self::Bytes(0),
            Framing::Length(length) => Self::Bytes(length),
            Framing::Chunked => Self::Chunks(chunked::Chunks::default()),
            Framing::UntilClose => Self::UntilClose(false),
        }
    }

    /// Moves what has come; true when that was all.
    fn pass(&mut self, received: &mut BytesMut, out: &mut Vec<u8>) -> Result<bool, chunked::Malformed> {
        match self {
            Self::Bytes(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
                out.extend_from_slice(&received[..here]);
                received.advance(here);
                *left -= here as u64;
                Ok(*left == 0)
            }
            Self::Chunks(chunks) => chunks.pass(received, out),
            Self::UntilClose(ended) => {
                chunked::write(received, out);
                received.clear();
                if *ended {
                    out.extend_from_slice(chunked::END);
                }
                Ok(*ended)
            }
        }
    }

    /// The connection has ended: whether that ends the body as it should.
    fn ends_here(&mut self) -> bool {
        match self {
            Self::UntilClose(ended) => {
                *ended = true;
                true
            }
            Self::Bytes(_) | Self::Chunks(_) => false,
        }
    }
}

/// Does `work` unless the client goes away. What it sends meanwhile is kept, up to a bound; beyond that nobody looks.
async fn while_there<T>(
    client: &mut TcpStream,
    input: &mut BytesMut,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        while input.len() < AHEAD_BYTES {
            match client.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(())) => {}
            }
            input.reserve(1_024);
            match client.try_read_buf(input) {
                Ok(0) => return Poll::Ready(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    })
    .await
}
