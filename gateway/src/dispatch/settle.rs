//! Recording how attempts ended: those that end at the same time share a statement and its commit.

use std::time::Duration;

use davit_daemon::Backoff;
use davit_registry::{Registry, RegistryError, Settled};
use tokio::sync::{mpsc, oneshot};

/// Of one statement.
const MOST: usize = 128;
/// Bytes of results in one statement; a result may be as large by itself.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Where jobs hand in their ends; cheap to clone. Ends with its last clone.
#[derive(Clone)]
pub(super) struct Settler {
    line: mpsc::Sender<(Settled, oneshot::Sender<bool>)>,
}

impl Settler {
    /// Starts to record, for at most so many jobs at a time.
    pub(super) fn spawn(registry: Registry, jobs: usize) -> Self {
        let (line, waiting) = mpsc::channel(jobs);
        tokio::spawn(write(registry, waiting));
        Self { line }
    }

    /// Records an end. While the registry is away this waits, with the job's slot: the attempt has run, and
    /// forgetting its outcome would run it again. `false`: the receipt is no longer good, or was refused.
    pub(super) async fn settle(&self, settled: Settled) -> bool {
        let (sender, answer) = oneshot::channel();
        if self.line.send((settled, sender)).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

async fn write(registry: Registry, mut waiting: mpsc::Receiver<(Settled, oneshot::Sender<bool>)>) {
    while let Some(first) = waiting.recv().await {
        let mut bytes = size(&first.0);
        let mut batch = vec![first];
        while batch.len() < MOST && bytes < MOST_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += size(&next.0);
            batch.push(next);
        }
        let (settled, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let recorded = record(&registry, settled).await;
        for (sender, good) in senders.into_iter().zip(recorded) {
            let _ = sender.send(good);
        }
    }
}

fn size(settled: &Settled) -> usize {
    match &settled.settlement {
        davit_registry::Settlement::Succeeded { result } => result.len(),
        _ => 0,
    }
}

/// Records a batch; answers for each whether it counts.
async fn record(registry: &Registry, batch: Vec<Settled>) -> Vec<bool> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match registry.settle_all(batch.clone()).await {
            Ok(recorded) => return batch.iter().map(|one| recorded.contains(&one.id)).collect(),
            Err(RegistryError::Unavailable(error)) => {
                tracing::debug!(%error, jobs = batch.len(), "cannot settle yet");
                backoff.wait().await;
            }
            // One of them cannot be stored; the others must not suffer.
            Err(_) if batch.len() > 1 => {
                let mut recorded = Vec::with_capacity(batch.len());
                for one in batch {
                    recorded.extend(Box::pin(record(registry, vec![one])).await);
                }
                return recorded;
            }
            Err(error) => {
                tracing::error!(%error, "an outcome was refused; the lease will lapse");
                return vec![false; batch.len()];
            }
        }
    }
}
