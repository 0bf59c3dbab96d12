//! The gateway's end of the link.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::frame::{FIRST_ASK, Frame, FrameKind, MAX_BODY_BYTES, body_frames};
use crate::message::{
    Failure, FailureKind, Hello, InitDone, InitRequest, InvokeHead, Limits, LogEntry, PROTOCOL, RESULT_WINDOW,
};
use crate::place::Place;
use crate::proof::Purpose;
use crate::secret_file;
use crate::socket::{self, Inbox, Outbox, Wire};

mod answers;
mod asks;
mod builder;
mod handover;
mod reach;
mod stream;

use answers::{Answer, Answers, Waiter};
pub use asks::{AnswerTo, Ask, AskBody};
pub use builder::Builder;
pub use stream::{Reply, ResultStream};

/// Batches of log lines that may wait for their reader; more are dropped and counted.
const EVENTS_WAITING: usize = 1024;
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the agent of one instance. Cheap to clone; dropping the last clone closes it, and the
/// agent then ends the instance.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    outbox: Outbox,
    answers: Arc<Mutex<Answers>>,
    next_stream: AtomicU32,
    runtime: String,
    takes_mounted_code: bool,
    takes_secret_files: bool,
    takes_debugger: bool,
    place: Place,
}

impl Shared {
    fn next_stream(&self) -> u32 {
        self.next_stream.fetch_add(1, Ordering::Relaxed) % FIRST_ASK
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// What an instance says without being asked.
#[derive(Debug)]
pub enum LinkEvent {
    /// Lines of output.
    Log(Vec<LogEntry>),
    /// The function asks for something. Dropping it refuses.
    Asked(Ask),
    /// Its machine wants it gone: it should get no more calls.
    Leaving,
    /// The instance is spent.
    Exited(Failure),
    /// The connection is gone. Always the last event.
    Closed,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvokeResult {
    /// Content type that the runtime named.
    pub content_type: String,
    /// The bytes, as the function gave them.
    pub body: Bytes,
}

/// Why something on the link failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The function, or its start, failed.
    #[error("{0}")]
    Failure(Failure),
    /// The connection is gone.
    #[error("the link to the instance is closed")]
    Closed,
    /// No answer in time. The instance should be given up.
    #[error("the instance did not answer in time")]
    Deadline,
    /// The agent said something that it should not.
    #[error("the instance broke the link's protocol: {0}")]
    Protocol(String),
}

impl Link {
    /// Connects to an agent, waiting for somebody to listen there until the deadline.
    pub async fn connect(
        place: &Place,
        deadline: Instant,
    ) -> Result<(Self, mpsc::Receiver<LinkEvent>), LinkError> {
        within(deadline, async { Self::greet(reach::link(place).await?, place).await }).await
    }

    async fn greet(wire: Wire, place: &Place) -> Result<(Self, mpsc::Receiver<LinkEvent>), LinkError> {
        let (outbox, mut inbox) = socket::split(wire);
        let hello = hello(&mut inbox).await?;
        let answers = Arc::new(Mutex::new(Answers::default()));
        let (events, receiver) = mpsc::channel(EVENTS_WAITING);
        tokio::spawn(outbox.clone().drive());
        tokio::spawn(answers::read_all(inbox, outbox.clone(), answers.clone(), events));
        let shared = Shared {
            outbox,
            answers,
            next_stream: AtomicU32::new(1),
            runtime: hello.runtime,
            takes_mounted_code: hello.takes_mounted_code,
            takes_secret_files: hello.takes_secret_files,
            takes_debugger: hello.takes_debugger,
            place: place.clone(),
        };
        Ok((Self { shared: Arc::new(shared) }, receiver))
    }

    /// Name of the warm runtime behind this link, empty when there is none.
    pub fn runtime(&self) -> &str {
        &self.shared.runtime
    }

    /// Whether the agent takes code that was mounted for it.
    pub fn takes_mounted_code(&self) -> bool {
        self.shared.takes_mounted_code
    }

    /// Hands over secrets that become files: names and contents. Has to come before the init, whose answer says whether they could
    /// be written. An agent that is too old for it is a failed start.
    pub fn give_secret_files<'f>(
        &self,
        files: impl IntoIterator<Item = (&'f str, &'f str)>,
    ) -> Result<(), LinkError> {
        for (name, contents) in files {
            if !self.shared.takes_secret_files {
                return Err(LinkError::Failure(Failure {
                    kind: FailureKind::InitFailed,
                    message: "the function has secret files, which its runtime image is too old for; make it anew with scripts/images.sh".into(),
                    error: None,
                    exit_code: None,
                    signal: None,
                }));
            }
            let body =
                secret_file::encode(name, contents.as_bytes()).filter(|body| body.len() <= MAX_BODY_BYTES);
            let body = body.ok_or_else(|| LinkError::Protocol(format!("secret file {name}: too long")))?;
            if !self.shared.outbox.send([Frame { kind: FrameKind::SecretFile, stream: 0, body }]) {
                return Err(self.closed());
            }
        }
        Ok(())
    }

    /// Whether the agent opens a runtime's debugger.
    pub fn takes_debugger(&self) -> bool {
        self.shared.takes_debugger
    }

    /// Makes the instance one version of one function. Works once.
    pub async fn init(
        &self,
        request: InitRequest,
        bundle: std::fs::File,
        deadline: Instant,
    ) -> Result<InitDone, LinkError> {
        let body = json_body(&request)?;
        let (waiting, answer) = self.register(true);
        let stream = waiting.stream;
        let frame = Frame { kind: FrameKind::Init, stream, body };
        let outbox = &self.shared.outbox;
        if outbox.carries_descriptors() {
            if !outbox.send_with_descriptor(frame, OwnedFd::from(bundle)) {
                return Err(self.closed());
            }
        } else {
            if !outbox.send([frame]) {
                return Err(self.closed());
            }
            // Ends early with the link.
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.send_file(stream, bundle).await });
        }
        match within(deadline, answer_of(answer)).await? {
            Answer::InitDone(done) => waiting.done(done),
            other => other.unexpected(),
        }
    }

    /// Runs one call and waits for its whole result. Dropping the future cancels it, which spends the instance.
    pub async fn invoke(
        &self,
        head: InvokeHead,
        event: Bytes,
        deadline: Instant,
    ) -> Result<InvokeResult, LinkError> {
        match self.start(InvokeHead { result_window: 0, ..head }, event, deadline).await? {
            (waiting, Answer::Result(result)) => waiting.done(result),
            (_, other) => other.unexpected(),
        }
    }

    /// As [`Link::invoke`], but a result that the runtime streams is given as soon as its first bytes are here.
    /// `deadline` is that of the beginning; who reads the stream minds the rest.
    pub async fn call(&self, head: InvokeHead, event: Bytes, deadline: Instant) -> Result<Reply, LinkError> {
        match self.start(InvokeHead { result_window: RESULT_WINDOW, ..head }, event, deadline).await? {
            (waiting, Answer::Result(result)) => waiting.done(Reply::Whole(result)),
            (waiting, Answer::Streaming(begun)) => Ok(Reply::Streamed(ResultStream::new(waiting, begun))),
            (_, other) => other.unexpected(),
        }
    }

    async fn start(
        &self,
        head: InvokeHead,
        event: Bytes,
        deadline: Instant,
    ) -> Result<(Waiting, Answer), LinkError> {
        let body = json_body(&head)?;
        let (waiting, answer) = self.register(true);
        let stream = waiting.stream;
        let head = Frame { kind: FrameKind::Invoke, stream, body };
        if !self.shared.outbox.send(std::iter::once(head).chain(body_frames(stream, event))) {
            return Err(self.closed());
        }
        let answer = within(deadline, answer_of(answer)).await?;
        Ok((waiting, answer))
    }

    /// A socket that is connected to the server inside the instance, set to non-blocking.
    pub async fn open(&self, deadline: Instant) -> Result<std::net::TcpStream, LinkError> {
        self.opened(FrameKind::Open, deadline).await
    }

    /// A socket that is connected to the debugger inside the instance, set to non-blocking. Only for agents that
    /// [take it](Self::takes_debugger); one whose function has no debugger says so.
    pub async fn open_debugger(&self, deadline: Instant) -> Result<std::net::TcpStream, LinkError> {
        self.opened(FrameKind::OpenDebugger, deadline).await
    }

    async fn opened(&self, kind: FrameKind, deadline: Instant) -> Result<std::net::TcpStream, LinkError> {
        if let Place::Tcp { address, secret } = &self.shared.place {
            let purpose = if kind == FrameKind::OpenDebugger { Purpose::Debugger } else { Purpose::Server };
            return within(deadline, reach::inside(*address, secret, purpose)).await;
        }
        match self.ask(kind, deadline).await? {
            Answer::Opened(descriptor) => handover::checked(descriptor),
            other => other.unexpected(),
        }
    }

    /// Stops every process of the instance; returns when they are stopped.
    pub async fn freeze(&self) -> Result<(), LinkError> {
        self.acknowledged(FrameKind::Freeze, Instant::now() + CONTROL_TIMEOUT).await
    }

    /// Lets the processes continue. Does not wait for the agent: what is sent next comes after it.
    pub async fn thaw(&self) -> Result<(), LinkError> {
        let stream = self.shared.next_stream();
        if self.shared.outbox.send([Frame::empty(FrameKind::Thaw, stream)]) {
            Ok(())
        } else {
            Err(self.closed())
        }
    }

    /// Asks whether the agent is there.
    pub async fn ping(&self, deadline: Instant) -> Result<(), LinkError> {
        self.limits(deadline).await.map(drop)
    }

    /// What the instance may use now; older agents do not say.
    pub async fn limits(&self, deadline: Instant) -> Result<Option<Limits>, LinkError> {
        match self.ask(FrameKind::Ping, deadline).await? {
            Answer::Pong(limits) => Ok(limits),
            other => other.unexpected(),
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.answers).is_closed() || self.shared.outbox.is_closed()
    }

    /// Whether the agent has said that its machine wants it gone ([`LinkEvent::Leaving`]), for who does not listen to its events.
    pub fn is_leaving(&self) -> bool {
        lock(&self.shared.answers).is_leaving()
    }

    async fn acknowledged(&self, kind: FrameKind, deadline: Instant) -> Result<(), LinkError> {
        match self.ask(kind, deadline).await? {
            Answer::Acknowledged => Ok(()),
            other => other.unexpected(),
        }
    }

    async fn ask(&self, kind: FrameKind, deadline: Instant) -> Result<Answer, LinkError> {
        let (waiting, answer) = self.register(false);
        if !self.shared.outbox.send([Frame::empty(kind, waiting.stream)]) {
            return Err(self.closed());
        }
        within(deadline, answer_of(answer)).await
    }

    fn register(&self, cancel_on_drop: bool) -> (Waiting, oneshot::Receiver<Result<Answer, LinkError>>) {
        let stream = self.shared.next_stream();
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.answers).insert(stream, Waiter::new(sender));
        (Waiting { shared: self.shared.clone(), stream, cancel_on_drop }, receiver)
    }

    /// The reason, when the agent gave one before it closed.
    fn closed(&self) -> LinkError {
        lock(&self.shared.answers).closing_error()
    }
}

/// An agent's first frame.
async fn hello(inbox: &mut Inbox) -> Result<Hello, LinkError> {
    let first = inbox.next().await.map_err(|e| LinkError::Protocol(e.to_string()))?;
    let (frame, _) = first.ok_or(LinkError::Closed)?;
    if frame.kind != FrameKind::Hello {
        return Err(LinkError::Protocol(format!("the first frame is {:?}", frame.kind)));
    }
    let hello: Hello =
        serde_json::from_slice(&frame.body).map_err(|e| LinkError::Protocol(format!("hello: {e}")))?;
    if hello.protocol != PROTOCOL {
        return Err(LinkError::Protocol(format!("the agent speaks protocol {}", hello.protocol)));
    }
    Ok(hello)
}

/// Takes the stream out of the table when the caller stops waiting, for whatever reason.
struct Waiting {
    shared: Arc<Shared>,
    stream: u32,
    cancel_on_drop: bool,
}

impl Waiting {
    fn done<T>(self, value: T) -> Result<T, LinkError> {
        Ok(value)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Still in the table: no answer has come, so the agent is still at it.
        if lock(&self.shared.answers).remove(self.stream) && self.cancel_on_drop {
            self.shared.outbox.send([Frame::empty(FrameKind::Cancel, self.stream)]);
        }
    }
}

fn lock(answers: &Mutex<Answers>) -> MutexGuard<'_, Answers> {
    answers.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json_body(value: &impl Serialize) -> Result<Bytes, LinkError> {
    let body = serde_json::to_vec(value).map_err(|e| LinkError::Protocol(e.to_string()))?;
    if body.len() > MAX_BODY_BYTES {
        return Err(LinkError::Protocol(format!("a head of {} bytes is over the limit", body.len())));
    }
    Ok(body.into())
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}

async fn answer_of(receiver: oneshot::Receiver<Result<Answer, LinkError>>) -> Result<Answer, LinkError> {
    receiver.await.unwrap_or(Err(LinkError::Closed))
}

async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(LinkError::Deadline))
}
