//! Frames over a connected socket, and descriptors where it is a Unix socket. Gateway and agent both use this.
//!
//! Sending never waits: frames go into an [`Outbox`], which writes what the kernel takes at once and leaves
//! the rest to its task. So a caller that is dropped half way cannot cut a frame in two.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, sockopt,
};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use crate::frame::{Decoder, Frame, FrameError, FrameKind, MAX_BODY_BYTES};

const READ_BYTES: usize = 64 * 1024;
/// Bytes of a file that may wait for the peer.
const FILE_AHEAD: usize = 1024 * 1024;
const CHUNKS_PER_WRITE: usize = 32;
/// Descriptors that have arrived before their frames; more is a fault of the peer.
const DESCRIPTORS_WAITING: usize = 8;

/// The connection is useless.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer sent no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer broke another rule.
    #[error("{0}")]
    Protocol(&'static str),
}

/// A connected socket.
pub enum Wire {
    /// On one machine: carries descriptors.
    Unix(UnixStream),
    /// Between machines: what would be a descriptor follows as data frames, or has a connection of its own.
    Tcp(TcpStream),
}

impl Wire {
    /// Whether descriptors can be sent over it.
    pub fn carries_descriptors(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.writable().await,
            Self::Tcp(stream) => stream.writable().await,
        }
    }
    fn try_io<R>(&self, interest: Interest, work: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Unix(stream) => stream.try_io(interest, work),
            Self::Tcp(stream) => stream.try_io(interest, work),
        }
    }
    async fn async_io<R>(&self, interest: Interest, work: impl FnMut() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Unix(stream) => stream.async_io(interest, work).await,
            Self::Tcp(stream) => stream.async_io(interest, work).await,
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// For connections between machines: small frames leave at once, and a peer whose machine is gone is noticed within half a minute.
pub fn mind(stream: &TcpStream) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(10);
    const INTERVAL: Duration = Duration::from_secs(5);
    const PROBES: u32 = 3;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    // The same for what was sent and is not acknowledged, which keep-alives do not watch.
    sockopt::set_tcp_user_timeout(stream, (IDLE + INTERVAL * PROBES).as_millis() as u32)?;
    Ok(())
}

/// Bytes that nobody can guess.
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// Splits a connected socket into its two ends.
pub fn split(wire: Wire) -> (Outbox, Inbox) {
    let stream = Arc::new(wire);
    let outbox = Outbox {
        inner: Arc::new(OutboxInner { stream: stream.clone(), queue: Mutex::default(), wake: Notify::new() }),
    };
    let inbox = Inbox {
        stream,
        decoder: Decoder::default(),
        descriptors: VecDeque::new(),
        scratch: vec![0; READ_BYTES].into_boxed_slice(),
    };
    (outbox, inbox)
}

/// Where frames go out. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<OutboxInner>,
}

struct OutboxInner {
    stream: Arc<Wire>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    pending: usize,
    closed: bool,
}

struct Chunk {
    bytes: Bytes,
    /// Travels with the first byte.
    descriptor: Option<OwnedFd>,
}

impl Outbox {
    /// Queues frames and writes what the kernel takes. False when the connection is closed.
    pub fn send(&self, frames: impl IntoIterator<Item = Frame>) -> bool {
        self.push(frames.into_iter().map(|frame| (frame, None)))
    }

    /// Queues one frame with a descriptor.
    pub fn send_with_descriptor(&self, frame: Frame, descriptor: OwnedFd) -> bool {
        debug_assert!(frame.kind.carries_descriptor());
        self.push([(frame, Some(descriptor))])
    }

    fn push(&self, frames: impl IntoIterator<Item = (Frame, Option<OwnedFd>)>) -> bool {
        let mut queue = self.queue();
        if queue.closed {
            return false;
        }
        let idle = queue.chunks.is_empty();
        for (frame, descriptor) in frames {
            queue.pending += crate::frame::HEADER_BYTES + frame.body.len();
            queue.chunks.push_back(Chunk { bytes: Bytes::copy_from_slice(&frame.header()), descriptor });
            if !frame.body.is_empty() {
                queue.chunks.push_back(Chunk { bytes: frame.body, descriptor: None });
            }
        }
        // Somebody else's rest is in front: its task writes ours, too.
        if idle {
            match self.flush(&mut queue) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.inner.wake.notify_one(),
                Err(_) => {
                    queue.closed = true;
                    self.inner.wake.notify_one();
                    return false;
                }
            }
        }
        true
    }

    /// Whether descriptors can be sent.
    pub fn carries_descriptors(&self) -> bool {
        self.inner.stream.carries_descriptors()
    }

    /// Bytes that wait for the peer to read.
    pub fn pending_bytes(&self) -> usize {
        self.queue().pending
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// Closes the connection in both directions. What is queued and unwritten is lost.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.chunks.clear();
        queue.pending = 0;
        let _ = rustix::net::shutdown(self.inner.stream.as_fd(), Shutdown::Both);
        self.inner.wake.notify_one();
    }

    /// Waits until everything queued is with the kernel, or the connection is closed.
    pub async fn flushed(&self) {
        while self.pending_bytes() > 0 && !self.is_closed() {
            let _ = self.inner.stream.writable().await;
            tokio::task::yield_now().await;
        }
    }

    /// Sends a file's bytes as data frames and the end frame, from its beginning and as fast as the peer takes them. False
    /// when the connection is closed, which it also is when the file cannot be read on: the peer has no whole one then.
    pub async fn send_file(&self, stream: u32, file: std::fs::File) -> bool {
        let file = Arc::new(file);
        let mut at = 0;
        loop {
            let from = file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut part = vec![0; MAX_BODY_BYTES];
                let read = from.read_at(&mut part, at)?;
                part.truncate(read);
                Ok::<_, io::Error>(part)
            });
            let Ok(Ok(part)) = read.await else {
                self.close();
                return false;
            };
            if part.is_empty() {
                return self.send([Frame::empty(FrameKind::End, stream)]);
            }
            at += part.len() as u64;
            if !self.send([Frame { kind: FrameKind::Data, stream, body: part.into() }]) {
                return false;
            }
            if self.pending_bytes() > FILE_AHEAD {
                self.flushed().await;
            }
        }
    }

    /// The task that writes what could not be written at once. Ends when the connection is closed.
    pub async fn drive(self) {
        loop {
            self.inner.wake.notified().await;
            loop {
                if self.is_closed() {
                    return;
                }
                if self.inner.stream.writable().await.is_err() {
                    return self.close();
                }
                let mut queue = self.queue();
                match self.flush(&mut queue) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        queue.closed = true;
                        return;
                    }
                }
            }
        }
    }

    fn flush(&self, queue: &mut Queue) -> io::Result<()> {
        while !queue.chunks.is_empty() {
            let sent = self
                .inner
                .stream
                .try_io(Interest::WRITABLE, || write_some(&self.inner.stream, &queue.chunks))?;
            queue.advance(sent);
        }
        Ok(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.inner.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn advance(&mut self, mut sent: usize) {
        self.pending = self.pending.saturating_sub(sent);
        while let Some(first) = self.chunks.front_mut() {
            if sent == 0 {
                return;
            }
            first.descriptor = None;
            if sent < first.bytes.len() {
                first.bytes.advance(sent);
                return;
            }
            sent -= first.bytes.len();
            self.chunks.pop_front();
        }
    }
}

fn write_some(stream: &Wire, chunks: &VecDeque<Chunk>) -> io::Result<usize> {
    // A descriptor belongs to the first byte of a write, so a chunk with one starts a write of its own.
    let run = chunks.iter().enumerate().take_while(|(i, chunk)| *i == 0 || chunk.descriptor.is_none());
    let slices: Vec<IoSlice<'_>> =
        run.take(CHUNKS_PER_WRITE).map(|(_, chunk)| IoSlice::new(&chunk.bytes)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptor = chunks.front().and_then(|chunk| chunk.descriptor.as_ref()).map(|fd| [fd.as_fd()]);
    if let Some(descriptor) = &descriptor
        && !control.push(SendAncillaryMessage::ScmRights(descriptor))
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(stream, &slices, &mut control, flags)?)
}

/// Where frames come in.
pub struct Inbox {
    stream: Arc<Wire>,
    decoder: Decoder,
    descriptors: VecDeque<OwnedFd>,
    scratch: Box<[u8]>,
}

impl Inbox {
    /// The next frame, with its descriptor if the kind and the socket carry one; `None` at the end of the connection.
    pub async fn next(&mut self) -> Result<Option<(Frame, Option<OwnedFd>)>, SocketError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                if !frame.kind.carries_descriptor() || !self.stream.carries_descriptors() {
                    return Ok(Some((frame, None)));
                }
                let descriptor = self.descriptors.pop_front();
                let descriptor =
                    descriptor.ok_or(SocketError::Protocol("a frame came without its descriptor"))?;
                return Ok(Some((frame, Some(descriptor))));
            }
            let Self { stream, descriptors, scratch, .. } = self;
            let read =
                stream.async_io(Interest::READABLE, || read_some(stream, scratch, descriptors)).await?;
            if read == 0 {
                if self.decoder.is_mid_frame() {
                    return Err(SocketError::Protocol("the connection ended inside a frame"));
                }
                return Ok(None);
            }
            if self.descriptors.len() > DESCRIPTORS_WAITING {
                return Err(SocketError::Protocol("descriptors came without frames"));
            }
            self.decoder.buffer().extend_from_slice(&self.scratch[..read]);
        }
    }
}

fn read_some(stream: &Wire, scratch: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(scratch)], &mut control, flags)?;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            descriptors.extend(received);
        }
    }
    Ok(message.bytes)
}
