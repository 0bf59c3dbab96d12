//! What functions ask for: requests that come from an instance instead of going to it.
//!
//! The link's reader keeps the table; whoever answers has an [`AnswerTo`]. Small bodies come right behind their heads,
//! long ones when they are wanted, so that an instance can make the gateway hold only so much by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{LinkError, join};
use crate::frame::{Frame, FrameKind, body_frames};
use crate::message::{ASK_AHEAD, ASKS, AnswerHead, AskHead, PAYLOAD_BYTES};
use crate::socket::Outbox;

/// Something that the function asks for.
#[derive(Debug)]
pub struct Ask {
    /// What it asks for.
    pub head: AskHead,
    /// Its bytes.
    pub body: AskBody,
    /// Where the answer goes to.
    pub to: AnswerTo,
}

/// The body of something that the function asks for.
pub struct AskBody {
    stream: u32,
    size: u64,
    outbox: Outbox,
    whole: oneshot::Receiver<Bytes>,
}

impl std::fmt::Debug for AskBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AskBody").field("size", &self.size).finish_non_exhaustive()
    }
}

impl AskBody {
    /// All of it, as many bytes as the head says; none when who asked has gone. A long one begins to come by this, so
    /// there must be room for it.
    pub async fn whole(self) -> Option<Bytes> {
        if self.size > ASK_AHEAD {
            let all = u32::try_from(self.size).unwrap_or(u32::MAX).to_le_bytes();
            let body = Bytes::copy_from_slice(&all);
            self.outbox.send([Frame { kind: FrameKind::Credit, stream: self.stream, body }]);
        }
        self.whole.await.ok()
    }
}

/// The way back to who asked. Dropped without an answer, it refuses.
pub struct AnswerTo {
    stream: u32,
    outbox: Outbox,
    gone: oneshot::Receiver<()>,
    table: Table,
    answered: bool,
}

impl std::fmt::Debug for AnswerTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerTo").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl AnswerTo {
    /// Ends when nobody waits for the answer any more.
    pub async fn gone(&mut self) {
        // Nothing is ever sent: the sender's end is the word.
        let _ = (&mut self.gone).await;
    }

    /// Answers.
    pub fn send(mut self, head: &AnswerHead, body: Bytes) {
        self.answered = true;
        // Before the agent can know of it, and ask for something else in its place.
        lock(&self.table).remove(&self.stream);
        let head = serde_json::to_vec(head).unwrap_or_default();
        let head = Frame { kind: FrameKind::Answer, stream: self.stream, body: head.into() };
        self.outbox.send(std::iter::once(head).chain(body_frames(self.stream, body)));
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        if !self.answered && lock(&self.table).remove(&self.stream).is_some() {
            self.outbox.send([Frame::empty(FrameKind::Cancel, self.stream)]);
        }
    }
}

/// What is asked for and has neither been answered nor taken back, by its stream.
type Table = Arc<Mutex<HashMap<u32, Open>>>;

/// An ask as the reader knows it.
struct Open {
    size: u64,
    /// What has come of its body.
    parts: Vec<Bytes>,
    here: u64,
    /// Where the body goes; none when it has.
    body: Option<oneshot::Sender<Bytes>>,
    /// Dropped when who asked has gone.
    _gone: oneshot::Sender<()>,
}

fn lock(table: &Table) -> MutexGuard<'_, HashMap<u32, Open>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reader's end of everything that is asked for on one link.
pub(super) struct Asks {
    outbox: Outbox,
    table: Table,
}

impl Asks {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self { outbox, table: Table::default() }
    }

    /// The link has ended, and all who asked with it.
    pub(super) fn close(self) {
        lock(&self.table).clear();
    }

    /// Takes a frame of the agent's streams in. An error is the agent's fault and ends the link.
    pub(super) fn take(&self, frame: Frame) -> Result<Option<Ask>, LinkError> {
        let broken = |what: &str| Err(LinkError::Protocol(what.to_owned()));
        if frame.kind == FrameKind::Ask {
            return self.begin(&frame).map(Some);
        }
        let mut table = lock(&self.table);
        // One that was answered meanwhile: who answered did not want to hear more.
        let Some(open) = table.get_mut(&frame.stream) else { return Ok(None) };
        match frame.kind {
            FrameKind::Data => {
                open.here += frame.body.len() as u64;
                if open.here > open.size {
                    return broken("an ask has more bytes than its head says");
                }
                open.parts.push(frame.body);
            }
            FrameKind::End => {
                let Some(body) = open.body.take() else { return broken("an ask ended twice") };
                if open.here != open.size {
                    return broken("an ask has fewer bytes than its head says");
                }
                // Who answers may not have wanted it.
                let _ = body.send(join(std::mem::take(&mut open.parts)));
            }
            FrameKind::Cancel => drop(table.remove(&frame.stream)),
            other => return Err(LinkError::Protocol(format!("{other:?} of an ask"))),
        }
        Ok(None)
    }

    fn begin(&self, frame: &Frame) -> Result<Ask, LinkError> {
        let stream = frame.stream;
        let head: AskHead =
            serde_json::from_slice(&frame.body).map_err(|e| LinkError::Protocol(format!("ask: {e}")))?;
        let size = head.size;
        let mut table = lock(&self.table);
        if size > PAYLOAD_BYTES as u64 || table.len() >= ASKS {
            return Err(LinkError::Protocol("more is asked for than may be".into()));
        }
        let (body_sender, whole) = oneshot::channel();
        let (gone_sender, gone) = oneshot::channel();
        let open = Open { size, parts: Vec::new(), here: 0, body: Some(body_sender), _gone: gone_sender };
        if table.insert(stream, open).is_some() {
            return Err(LinkError::Protocol("an ask's stream is in use".into()));
        }
        let (outbox, table) = (self.outbox.clone(), self.table.clone());
        let body = AskBody { stream, size, outbox: outbox.clone(), whole };
        Ok(Ask { head, body, to: AnswerTo { stream, outbox, gone, table, answered: false } })
    }
}
