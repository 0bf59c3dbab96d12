//! A build's lines on their way to the registry: batched, bounded, with the last ones kept for the message
//! of a failure.

use std::collections::VecDeque;
use std::time::Duration;

use davit_api::VersionId;
use davit_registry::Registry;
use tokio::sync::mpsc;

const BATCH: usize = 200;
const EVERY: Duration = Duration::from_millis(150);
const MOST_LINES: usize = 20_000;
const KEPT: usize = 15;

/// Takes lines; cheap to clone.
#[derive(Clone)]
pub(super) struct BuildLog(mpsc::Sender<String>);

impl BuildLog {
    /// Starts the task that writes. It ends, and gives the last lines, when every sender is dropped.
    pub(super) fn start(
        registry: Registry,
        version: VersionId,
    ) -> (Self, tokio::task::JoinHandle<VecDeque<String>>) {
        let (sender, receiver) = mpsc::channel(1_000);
        (Self(sender), tokio::spawn(write(registry, version, receiver)))
    }
    /// Adds a line of davit's own.
    pub(super) async fn say(&self, line: impl Into<String>) {
        let _ = self.0.send(line.into()).await;
    }
    /// Where a builder's lines go.
    pub(super) fn sender(&self) -> mpsc::Sender<String> {
        self.0.clone()
    }
}

async fn write(
    registry: Registry,
    version: VersionId,
    mut lines: mpsc::Receiver<String>,
) -> VecDeque<String> {
    let mut last = VecDeque::new();
    let mut written = 0;
    loop {
        let mut batch = Vec::new();
        if lines.recv_many(&mut batch, BATCH).await == 0 {
            return last;
        }
        for line in &batch {
            last.push_back(line.clone());
            if last.len() > KEPT {
                last.pop_front();
            }
        }
        if written < MOST_LINES {
            written += batch.len();
            if written >= MOST_LINES {
                batch.push("… output goes on, but is no longer kept".into());
            }
            // Lines are for people: a registry that is away costs them, not the build.
            if let Err(error) = registry.append_build_log(version, &batch).await {
                tracing::warn!(%error, "cannot keep a build's output");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
