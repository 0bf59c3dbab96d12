//! A build's lines on their way to the registry: batched, bounded, with the last ones kept for the message
//! of a failure.

use std::collections::VecDeque;
use std::time::Duration;

use davit_api::VersionId;
use davit_registry::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

const BATCH: usize = 200;
const EVERY: Duration = Duration::from_millis(150);
const MOST_LINES: usize = 20_000;
const KEPT: usize = 15;

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct BuildLog {
    lines: mpsc::Sender<String>,
    flush: mpsc::Sender<oneshot::Sender<()>>,
}

impl BuildLog {
    /// Starts the task that writes. It ends, and gives the last lines, when every sender is dropped.
    pub(super) fn start(
        registry: Registry,
        version: VersionId,
    ) -> (Self, tokio::task::JoinHandle<VecDeque<String>>) {
        let (lines, to_write) = mpsc::channel(1_000);
        let (flush, flushes) = mpsc::channel(1);
        (Self { lines, flush }, tokio::spawn(write(registry, version, Inbox { lines: to_write, flushes })))
    }
    /// Adds a line of davit's own.
    pub(super) async fn say(&self, line: impl Into<String>) {
        let _ = self.lines.send(line.into()).await;
    }
    /// Returns when what was said so far is kept: a change of state should not overtake the lines before it.
    pub(super) async fn flush(&self) {
        let (done, kept) = oneshot::channel();
        if self.flush.send(done).await.is_ok() {
            let _ = kept.await;
        }
    }
    /// Where a builder's lines go.
    pub(super) fn sender(&self) -> mpsc::Sender<String> {
        self.lines.clone()
    }
}

struct Inbox {
    lines: mpsc::Receiver<String>,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Lines to write together.
#[derive(Default)]
struct Batch {
    lines: Vec<String>,
    /// Who waits until they are written.
    flush: Option<oneshot::Sender<()>>,
    /// There will be no others.
    last: bool,
}

async fn write(registry: Registry, version: VersionId, mut inbox: Inbox) -> VecDeque<String> {
    let mut last = VecDeque::new();
    let mut written = 0;
    loop {
        let mut batch = inbox.collect().await;
        for line in &batch.lines {
            last.push_back(line.clone());
            if last.len() > KEPT {
                last.pop_front();
            }
        }
        if !batch.lines.is_empty() && written < MOST_LINES {
            written += batch.lines.len();
            if written >= MOST_LINES {
                batch.lines.push("… output goes on, but is no longer kept".into());
            }
            // Lines are for people: a registry that is away costs them, not the build.
            if let Err(error) = registry.append_build_log(version, &batch.lines).await {
                tracing::warn!(%error, "cannot keep a build's output");
            }
        }
        if let Some(flush) = batch.flush {
            let _ = flush.send(());
        }
        if batch.last {
            return last;
        }
    }
}

impl Inbox {
    /// The lines of a moment. The last ones are not kept waiting, nor those that somebody waits for.
    async fn collect(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut end = None;
        while batch.lines.len() < BATCH {
            let moment = end.unwrap_or_else(|| Instant::now() + EVERY);
            tokio::select! {
                biased;
                line = self.lines.recv() => match line {
                    Some(line) => {
                        end = Some(moment);
                        batch.lines.push(line);
                    }
                    None => {
                        batch.last = true;
                        break;
                    }
                },
                Some(flush) = self.flushes.recv() => {
                    batch.flush = Some(flush);
                    break;
                }
                () = tokio::time::sleep_until(moment), if end.is_some() => break,
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> (mpsc::Sender<String>, mpsc::Sender<oneshot::Sender<()>>, Inbox) {
        let ((lines, to_write), (flush, flushes)) = (mpsc::channel(1_000), mpsc::channel(1));
        (lines, flush, Inbox { lines: to_write, flushes })
    }

    #[tokio::test]
    async fn lines_are_batched_and_the_last_ones_come_at_once() {
        let (lines, _flush, mut inbox) = inbox();
        for n in 0..BATCH + 2 {
            lines.send(n.to_string()).await.unwrap();
        }
        assert_eq!(inbox.collect().await.lines.len(), BATCH);
        drop(lines);
        let batch = inbox.collect().await;
        assert_eq!((batch.lines.len(), batch.last), (2, true));
    }

    #[tokio::test]
    async fn a_flush_comes_after_the_lines_before_it() {
        let (lines, flush, mut inbox) = inbox();
        lines.send("a".into()).await.unwrap();
        let (done, _kept) = oneshot::channel();
        flush.send(done).await.unwrap();
        let batch = inbox.collect().await;
        assert_eq!((batch.lines, batch.flush.is_some()), (vec!["a".to_owned()], true));
        lines.send("b".into()).await.unwrap();
        let batch = inbox.collect().await;
        assert_eq!((batch.lines, batch.last), (vec!["b".to_owned()], false));
    }
}
