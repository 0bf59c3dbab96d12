//! Clients that take nothing of what is written to them. TCP lets them do so for ever, and an answer that is not taken
//! holds a place in an instance.
//!
//! Two things can stand still: a connection, whose buffers are full ([`Bounded`]), and on HTTP/2 a single answer, whose
//! window the client does not open ([`Answers`]). However slowly bytes are taken, it is not standing still.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::metrics::Metrics;

/// The error of a connection that stood still for too long; counts it.
pub(super) fn stalled(metrics: &Metrics) -> io::Error {
    metrics.clients_stalled.add(1);
    io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is written to it")
}

/// A connection whose writes fail when none of them gets on for so long.
pub(super) struct Bounded<S> {
    stream: S,
    limit: Duration,
    metrics: Arc<Metrics>,
    /// Runs while a write waits; most connections never need it.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Bounded<S> {
    /// Bounds a connection.
    pub(super) fn new(stream: S, limit: Duration, metrics: Arc<Metrics>) -> Self {
        Self { stream, limit, metrics, waiting: None }
    }

    /// What became of a write, unless it has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.waiting = None;
            return wrote;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(stalled(&self.metrics)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, wrote)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, shut)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, wrote)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The answers on one HTTP/2 connection of which a part was handed out, and since when no more has been asked for. A
/// part is asked for when the client has room for it.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Handed>>);

#[derive(Default)]
struct Handed {
    next: u64,
    since: HashMap<u64, Instant>,
}

/// One answer among [`Answers`].
pub(super) struct Answer {
    answers: Answers,
    number: u64,
}

impl Answers {
    /// Another answer on the connection.
    pub(super) fn another(&self) -> Answer {
        let mut handed = self.0.lock();
        handed.next += 1;
        Answer { answers: self.clone(), number: handed.next }
    }

    /// Ends when the client of one of them has had no room for the next part for so long.
    pub(super) async fn stall(&self, limit: Duration) {
        loop {
            let oldest = self.0.lock().since.values().min().copied();
            // One that is handed out while this sleeps is at most that much older when it is seen.
            let until = oldest.unwrap_or_else(Instant::now) + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}

impl Answer {
    /// The client has room for more.
    pub(super) fn asked(&self) {
        self.answers.0.lock().since.remove(&self.number);
    }

    /// It got another part.
    pub(super) fn handed(&self) {
        self.answers.0.lock().since.insert(self.number, Instant::now());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.asked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMIT: Duration = Duration::from_millis(400);

    #[tokio::test]
    async fn a_write_that_gets_on_has_all_the_time_it_needs_and_one_that_does_not_fails() {
        let (ours, mut theirs) = tokio::io::duplex(1_000);
        let mut ours = Bounded::new(ours, LIMIT, Arc::default());
        let reading = tokio::spawn(async move {
            let mut buffer = [0; 1_000];
            for _ in 0..10 {
                tokio::time::sleep(LIMIT / 4).await;
                theirs.read_exact(&mut buffer).await.unwrap();
            }
            theirs
        });
        ours.write_all(&[0; 10_000]).await.unwrap();
        let theirs = reading.await.unwrap();
        assert_eq!(ours.write_all(&[0; 2_000]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test]
    async fn only_an_answer_that_is_not_asked_for_stands_still() {
        let limit = Duration::from_millis(20);
        let answers = Answers::default();
        let (one, other) = (answers.another(), answers.another());
        one.handed();
        other.handed();
        other.asked();
        answers.stall(limit).await;
        drop(one);
        assert!(answers.0.lock().since.is_empty(), "what is gone is not waited for");
        tokio::select! {
            () = answers.stall(limit) => panic!("nothing stands still"),
            () = tokio::time::sleep(limit * 5) => {}
        }
    }
}
