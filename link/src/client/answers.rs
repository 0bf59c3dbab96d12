//! The table of callers that wait, and the task that reads the link and answers them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::asks::Asks;
use super::stream::{Begun, Feed};
use super::{InvokeResult, LinkError, LinkEvent, join, lock};
use crate::frame::{FIRST_ASK, Frame, FrameKind};
use crate::message::{Failure, InitDone, Limits, LogEntry, PAYLOAD_BYTES, ResultHead, Stream};
use crate::socket::{Inbox, Outbox};

/// A good answer.
#[derive(Debug)]
pub(super) enum Answer {
    InitDone(InitDone),
    Result(InvokeResult),
    Streaming(Begun),
    Opened(OwnedFd),
    Acknowledged,
    /// What it may use, if it says so.
    Pong(Option<Limits>),
}

impl Answer {
    pub(super) fn unexpected<T>(self) -> Result<T, LinkError> {
        Err(LinkError::Protocol(format!("an answer to something else: {self:?}")))
    }
}

/// One caller, and what has arrived for it.
pub(super) enum Waiter {
    /// Its answer is given whole.
    Waiting(Whole),
    /// It has the head of a streamed result.
    Streaming(Feed),
}

/// An answer of which parts may be here.
pub(super) struct Whole {
    sender: oneshot::Sender<Result<Answer, LinkError>>,
    content_type: Option<String>,
    parts: Vec<Bytes>,
    size: usize,
}

impl Waiter {
    pub(super) fn new(sender: oneshot::Sender<Result<Answer, LinkError>>) -> Self {
        Self::Waiting(Whole { sender, content_type: None, parts: Vec::new(), size: 0 })
    }

    fn settle(self, answer: Result<Answer, LinkError>) {
        match (self, answer) {
            // The caller may have gone a moment ago.
            (Self::Waiting(whole), answer) => _ = whole.sender.send(answer),
            (Self::Streaming(feed), Err(error)) => feed.fail(error),
            (Self::Streaming(feed), Ok(_)) => {
                feed.fail(LinkError::Protocol("a result was followed by another answer".into()));
            }
        }
    }

    /// The result's head. A streamed one is handed out, and its bytes will follow.
    fn begin(self, head: ResultHead) -> Option<Self> {
        match self {
            Self::Waiting(whole) if head.streamed => {
                let (feed, begun) = Feed::begin(head.content_type);
                let _ = whole.sender.send(Ok(Answer::Streaming(begun)));
                Some(Self::Streaming(feed))
            }
            Self::Waiting(whole) => {
                Some(Self::Waiting(Whole { content_type: Some(head.content_type), ..whole }))
            }
            Self::Streaming(_) => None,
        }
    }

    fn data(&mut self, frame: Frame) -> Result<(), LinkError> {
        match self {
            Self::Waiting(whole) => {
                whole.size += frame.body.len();
                if whole.size > PAYLOAD_BYTES {
                    return Err(LinkError::Protocol("a result is over the payload limit".into()));
                }
                whole.parts.push(frame.body);
                Ok(())
            }
            Self::Streaming(feed) => feed.data(frame),
        }
    }

    fn end(self) -> Result<(), LinkError> {
        match self {
            Self::Waiting(mut whole) => {
                let Some(content_type) = whole.content_type.take() else {
                    return Err(LinkError::Protocol("a result ended before it began".into()));
                };
                let body = join(std::mem::take(&mut whole.parts));
                let _ = whole.sender.send(Ok(Answer::Result(InvokeResult { content_type, body })));
            }
            Self::Streaming(feed) => feed.end(),
        }
        Ok(())
    }
}

/// Who waits on which stream.
#[derive(Default)]
pub(super) struct Answers {
    waiting: HashMap<u32, Waiter>,
    closed: Option<LinkError>,
    leaving: bool,
}

impl Answers {
    pub(super) fn insert(&mut self, stream: u32, waiter: Waiter) {
        match &self.closed {
            Some(error) => waiter.settle(Err(error.clone())),
            None => _ = self.waiting.insert(stream, waiter),
        }
    }

    pub(super) fn remove(&mut self, stream: u32) -> bool {
        self.waiting.remove(&stream).is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    pub(super) fn closing_error(&self) -> LinkError {
        self.closed.clone().unwrap_or(LinkError::Closed)
    }

    fn settle(&mut self, stream: u32, answer: Result<Answer, LinkError>) {
        if let Some(waiter) = self.waiting.remove(&stream) {
            waiter.settle(answer);
        }
    }

    /// Ends the table: everybody gets the error, now and from now on. The first reason stays.
    fn close(&mut self, error: LinkError) {
        let error = self.closed.get_or_insert(error).clone();
        for (_, waiter) in self.waiting.drain() {
            waiter.settle(Err(error.clone()));
        }
    }

    /// Carries one frame to whom it concerns. An error ends the link.
    fn take(&mut self, frame: Frame, descriptor: Option<OwnedFd>) -> Result<(), LinkError> {
        let stream = frame.stream;
        match frame.kind {
            FrameKind::InitDone => {
                let done = parse(&frame)?;
                self.settle(stream, Ok(Answer::InitDone(done)));
            }
            FrameKind::InitFailed | FrameKind::Failed => {
                let failure: Failure = parse(&frame)?;
                self.settle(stream, Err(LinkError::Failure(failure)));
            }
            FrameKind::Result => {
                let head: ResultHead = parse(&frame)?;
                if let Some(waiter) = self.waiting.remove(&stream) {
                    let twice = || LinkError::Protocol("a result began twice".into());
                    self.waiting.insert(stream, waiter.begin(head).ok_or_else(twice)?);
                }
            }
            FrameKind::Data => {
                if let Some(waiter) = self.waiting.get_mut(&stream) {
                    waiter.data(frame)?;
                }
            }
            FrameKind::End => {
                if let Some(waiter) = self.waiting.remove(&stream) {
                    waiter.end()?;
                }
            }
            FrameKind::Opened => {
                let descriptor = descriptor.ok_or_else(|| LinkError::Protocol("no descriptor".into()))?;
                self.settle(stream, Ok(Answer::Opened(descriptor)));
            }
            FrameKind::Frozen | FrameKind::Thawed => self.settle(stream, Ok(Answer::Acknowledged)),
            FrameKind::Pong => {
                let said = (!frame.body.is_empty()).then(|| parse(&frame)).transpose()?;
                self.settle(stream, Ok(Answer::Pong(said)));
            }
            other => return Err(LinkError::Protocol(format!("an agent does not send {other:?}"))),
        }
        Ok(())
    }
}

/// Reads until the connection ends, then tells everybody.
pub(super) async fn read_all(
    mut inbox: Inbox,
    outbox: Outbox,
    answers: Arc<Mutex<Answers>>,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut dropped = 0;
    let asks = Asks::new(outbox.clone());
    let end = loop {
        let (frame, descriptor) = match inbox.next().await {
            Ok(Some(next)) => next,
            Ok(None) => break LinkError::Closed,
            Err(error) => break LinkError::Protocol(error.to_string()),
        };
        match frame.kind {
            FrameKind::Ask | FrameKind::Data | FrameKind::End | FrameKind::Cancel
                if frame.stream >= FIRST_ASK =>
            {
                match asks.take(frame) {
                    Ok(Some(ask)) => {
                        // With no room for it among the events, dropping it refuses.
                        let _ = events.try_send(LinkEvent::Asked(ask));
                    }
                    Ok(None) => {}
                    Err(error) => break error,
                }
            }
            FrameKind::Log => match parse(&frame) {
                Ok(lines) => forward(&events, lines, &mut dropped),
                Err(error) => break error,
            },
            FrameKind::Leaving => {
                lock(&answers).leaving = true;
                let _ = events.send(LinkEvent::Leaving).await;
            }
            FrameKind::Exited => match parse::<Failure>(&frame) {
                Ok(failure) => {
                    lock(&answers).close(LinkError::Failure(failure.clone()));
                    let _ = events.send(LinkEvent::Exited(failure)).await;
                }
                Err(error) => break error,
            },
            _ => {
                if let Err(error) = lock(&answers).take(frame, descriptor) {
                    break error;
                }
            }
        }
    };
    lock(&answers).close(end);
    asks.close();
    outbox.close();
    let _ = events.send(LinkEvent::Closed).await;
}

/// Hands lines on without ever waiting: a slow reader of logs must not hold up results.
fn forward(events: &mpsc::Sender<LinkEvent>, mut lines: Vec<LogEntry>, dropped: &mut usize) {
    let count = lines.len();
    if *dropped > 0
        && let Some(first) = lines.first()
    {
        let line = format!("davit: {dropped} lines were dropped here");
        let note = LogEntry {
            stream: Stream::Stderr,
            request_id: None,
            line,
            at_unix_us: first.at_unix_us,
            truncated: false,
        };
        lines.insert(0, note);
    }
    match events.try_send(LinkEvent::Log(lines)) {
        Ok(()) => *dropped = 0,
        Err(_) => *dropped += count,
    }
}

fn parse<T: DeserializeOwned>(frame: &Frame) -> Result<T, LinkError> {
    serde_json::from_slice(&frame.body)
        .map_err(|error| LinkError::Protocol(format!("{:?}: {error}", frame.kind)))
}
