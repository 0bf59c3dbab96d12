//! The one body type of the data plane: nothing, bytes we hold, a stream that passes through, or a handler's result.
//!
//! A streaming body may carry a guard: the instance's slot and the upstream connection live exactly as long as
//! the body, so a client that goes away frees both by the mere drop.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use davit_daemon::courtesy;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::http::stall::Answer;
use crate::invoke::CallError;
use crate::policy::Encoder;
use crate::stream::Passing;

/// What a streaming body holds on to; dropped with the body in any case.
pub trait Guard: Send + Sync {
    /// Moves the connection that the stream comes over; called before each look at the stream.
    fn drive(&mut self, cx: &mut Context<'_>);
    /// The stream was read to its end without an error.
    fn completed(&mut self);
}

/// Request or response body.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    guard: Option<Box<dyn Guard>>,
    /// Where it is told when a part was asked for and handed out.
    watched: Option<Answer>,
    /// Whether trailers are passed on. Where they are not, what they name could contradict headers that were already
    /// acted on; gRPC cannot do without.
    trailers: bool,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Incoming),
    Result(Box<Passing>),
    /// One that ends with an error when it is longer than it may be.
    Limited(Box<Limited>),
    /// One that is coded as it passes.
    Encoded(Box<Encoder>),
}

/// A body with a bound.
struct Limited {
    body: Body,
    most: u64,
    passed: u64,
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it came over did.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The function that wrote it failed in the middle.
    #[error("{}", .0.error)]
    Function(Box<CallError>),
    /// It was longer than so many bytes, which is the most that the address takes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// It could not be coded.
    #[error(transparent)]
    Coding(#[from] std::io::Error),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }
    /// Bytes that are already here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), ..Self::default() }
    }
    /// A body that is still being received.
    pub fn stream(incoming: Incoming) -> Self {
        Self { kind: Kind::Stream(incoming), ..Self::default() }
    }
    /// A body that is still being received, whose trailers are passed on.
    pub fn stream_with_trailers(incoming: Incoming) -> Self {
        Self { trailers: true, ..Self::stream(incoming) }
    }
    /// What a handler streams.
    pub(crate) fn result(passing: Passing) -> Self {
        Self { kind: Kind::Result(Box::new(passing)), ..Self::default() }
    }
    /// The same, cut with an error after so many bytes.
    #[must_use]
    pub(super) fn limited(self, most: u64) -> Self {
        Self { kind: Kind::Limited(Box::new(Limited { body: self, most, passed: 0 })), ..Self::default() }
    }
    /// One that is coded as it passes.
    pub(crate) fn encoded(encoder: Encoder) -> Self {
        Self { kind: Kind::Encoded(Box::new(encoder)), ..Self::default() }
    }
    /// Keeps `guard` until the body is gone, and tells it when the body was read to its end.
    #[must_use]
    pub fn guarded(mut self, mut guard: Box<dyn Guard>) -> Self {
        if self.is_end_stream() {
            guard.completed();
            return self;
        }
        self.guard = Some(guard);
        self
    }
    /// Tells `answer` of each part that is asked for and handed out.
    #[must_use]
    pub(super) fn watched(mut self, answer: Answer) -> Self {
        self.watched = Some(answer);
        self
    }
    /// The same, which stay.
    pub(crate) fn held(&self) -> Bytes {
        match &self.kind {
            Kind::Full(bytes) => bytes.clone(),
            Kind::Empty | Kind::Stream(_) | Kind::Result(_) | Kind::Limited(_) | Kind::Encoded(_) => {
                Bytes::new()
            }
        }
    }
    /// The bytes that are already here; of a stream, none.
    pub(super) fn into_bytes(self) -> Bytes {
        match self.kind {
            Kind::Full(bytes) => bytes,
            Kind::Empty | Kind::Stream(_) | Kind::Result(_) | Kind::Limited(_) | Kind::Encoded(_) => {
                Bytes::new()
            }
        }
    }
    fn ended(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.completed();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(answer) = &this.watched {
            answer.asked();
        }
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Kind::Stream(incoming) => {
                if let Some(guard) = &mut this.guard {
                    guard.drive(cx);
                }
                match std::task::ready!(Pin::new(incoming).poll_frame(cx)) {
                    Some(Ok(frame)) if frame.is_trailers() && !this.trailers => None,
                    other => other.map(|frame| frame.map_err(BodyError::from)),
                }
            }
            Kind::Result(passing) => std::task::ready!(passing.poll_next(cx))
                .map(|next| next.map(Frame::data).map_err(|error| BodyError::Function(Box::new(error)))),
            Kind::Limited(limited) => std::task::ready!(limited.poll_next(cx)),
            Kind::Encoded(encoder) => std::task::ready!(encoder.poll_next(cx)),
        };
        match &frame {
            None => this.ended(),
            Some(Err(_)) => this.guard = None,
            // The length is known: the last byte has been handed out, the slot need not wait for one more poll.
            Some(Ok(_)) if this.is_end_stream() => this.ended(),
            Some(Ok(_)) => {
                if let Some(answer) = &this.watched {
                    answer.handed();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Stream(incoming) => incoming.is_end_stream(),
            Kind::Result(_) => false,
            Kind::Limited(limited) => limited.body.is_end_stream(),
            Kind::Encoded(encoder) => encoder.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(incoming) => incoming.size_hint(),
            Kind::Result(_) | Kind::Encoded(_) => SizeHint::default(),
            Kind::Limited(limited) => limited.body.size_hint(),
        }
    }
}

impl Limited {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.passed > self.most {
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.most))));
            }
        }
        Poll::Ready(frame)
    }
}

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// More bytes than allowed.
    #[error("larger than the limit of {0} bytes")]
    TooLarge(usize),
    /// The sender stopped, or what it sent was no HTTP.
    #[error("{0}")]
    Broken(#[from] BodyError),
}

/// Reads a whole body of at most `limit` bytes.
pub async fn collect(mut body: Body, limit: usize) -> Result<Bytes, CollectError> {
    gather(&mut body, limit).await
}

/// As [`collect`], for what a client sends: when it is too large, some of the rest is still taken and thrown
/// away, so that the client sees the answer that says why.
pub async fn receive(mut body: Body, limit: usize) -> Result<Bytes, CollectError> {
    let received = gather(&mut body, limit).await;
    if matches!(received, Err(CollectError::TooLarge(_))) {
        courtesy::hear_out(&mut body, COURTESY_BYTES).await;
    }
    received
}

/// How much of a body that is refused anyway is still taken, in bytes.
pub(super) const COURTESY_BYTES: u64 = 16 * 1024 * 1024;

async fn gather(body: &mut Body, limit: usize) -> Result<Bytes, CollectError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(CollectError::TooLarge(limit));
    }
    // One frame is the common case: hand its bytes on without a copy.
    let mut first: Option<Bytes> = None;
    let mut rest: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len).max(rest.len());
        if so_far + data.len() > limit {
            return Err(CollectError::TooLarge(limit));
        }
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(head) => {
                rest.reserve(head.len() + data.len());
                rest.extend_from_slice(&head);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.into()))
}
