//! A result that comes piece by piece, as [`Link::call`](super::Link::call) gives it.
//!
//! The link's reader never waits for a stream's reader: it puts pieces into a queue whose length the agent keeps
//! within the window, because it sends no more than it has credit for, and gets credit for what was taken. So a
//! slow reader holds up the runtime that writes its result, and nobody else on the same link.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{InvokeResult, LinkError, Waiting};
use crate::frame::{Frame, FrameKind, HEADER_BYTES};
use crate::message::{RESULT_WINDOW, STREAM_BYTES};

/// Credit is given back in portions of this size, not with each piece.
const PORTION: usize = RESULT_WINDOW as usize / 2;

/// How a call is answered.
#[derive(Debug)]
pub enum Reply {
    /// By a result that is complete.
    Whole(InvokeResult),
    /// By one of which more will come.
    Streamed(ResultStream),
}

/// A result whose bytes come as the function writes them. Dropping it before its end cancels the call, which spends
/// the instance.
pub struct ResultStream {
    content_type: String,
    pieces: mpsc::UnboundedReceiver<Piece>,
    window: Arc<Window>,
    /// Cost of what was taken since credit was last given.
    taken: usize,
    ended: bool,
    waiting: Waiting,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    End,
    Failed(LinkError),
}

/// Cost of the frames that have arrived and have not been credited.
#[derive(Debug, Default)]
struct Window(AtomicUsize);

/// What a caller needs to make its [`ResultStream`].
#[derive(Debug)]
pub(super) struct Begun {
    content_type: String,
    pieces: mpsc::UnboundedReceiver<Piece>,
    window: Arc<Window>,
}

/// The reader's end of a stream.
pub(super) struct Feed {
    pieces: mpsc::UnboundedSender<Piece>,
    window: Arc<Window>,
    size: u64,
}

impl Feed {
    pub(super) fn begin(content_type: String) -> (Self, Begun) {
        // Without a bound of its own: `data` holds it to the window.
        let (sender, pieces) = mpsc::unbounded_channel();
        let window = Arc::new(Window::default());
        (Self { pieces: sender, window: window.clone(), size: 0 }, Begun { content_type, pieces, window })
    }

    /// Takes a data frame in. An error is the agent's fault and ends the link.
    pub(super) fn data(&mut self, frame: Frame) -> Result<(), LinkError> {
        let cost = frame.cost();
        if self.window.0.fetch_add(cost, Ordering::Relaxed) + cost > RESULT_WINDOW as usize {
            return Err(LinkError::Protocol("a streamed result ran over its window".into()));
        }
        self.size += frame.body.len() as u64;
        if self.size > STREAM_BYTES {
            return Err(LinkError::Protocol("a streamed result is over its limit".into()));
        }
        self.put(Piece::Data(frame.body));
        Ok(())
    }

    pub(super) fn end(self) {
        self.put(Piece::End);
    }

    pub(super) fn fail(self, error: LinkError) {
        self.put(Piece::Failed(error));
    }

    fn put(&self, piece: Piece) {
        // Its reader may have gone a moment ago.
        let _ = self.pieces.send(piece);
    }
}

impl std::fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultStream").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

impl ResultStream {
    pub(super) fn new(waiting: Waiting, begun: Begun) -> Self {
        let Begun { content_type, pieces, window } = begun;
        Self { content_type, pieces, window, taken: 0, ended: false, waiting }
    }

    /// Content type that the runtime named.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The next bytes; `None` when the result is complete, and after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, LinkError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`ResultStream::next`], for who polls.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LinkError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx)).unwrap_or(Piece::Failed(LinkError::Closed));
        Poll::Ready(match piece {
            Piece::Data(bytes) => {
                self.credit(HEADER_BYTES + bytes.len());
                Some(Ok(bytes))
            }
            Piece::End => {
                self.ended = true;
                None
            }
            Piece::Failed(error) => {
                self.ended = true;
                Some(Err(error))
            }
        })
    }

    fn credit(&mut self, cost: usize) {
        self.taken += cost;
        if self.taken < PORTION {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        // Before the agent can know of it.
        self.window.0.fetch_sub(taken, Ordering::Relaxed);
        let body = Bytes::copy_from_slice(&u32::try_from(taken).unwrap_or(u32::MAX).to_le_bytes());
        self.waiting.shared.outbox.send([Frame {
            kind: FrameKind::Credit,
            stream: self.waiting.stream,
            body,
        }]);
    }
}
