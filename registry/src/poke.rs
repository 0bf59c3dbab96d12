//! The task that turns many "something changed" into few notifications.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::Notify;

use crate::Topic;

/// Between two notifications: short against a job's start, long against a burst.
const PAUSE: Duration = Duration::from_millis(20);

struct Pending {
    topics: AtomicU16,
    wake: Notify,
}

/// Owned by the registry's clones together; ends with the last one.
pub(crate) struct Poker {
    pending: Arc<Pending>,
    task: tokio::task::JoinHandle<()>,
}

impl Poker {
    pub(crate) fn start(pool: PgPool) -> Self {
        let pending = Arc::new(Pending { topics: AtomicU16::new(0), wake: Notify::new() });
        let task = tokio::spawn(run(pool, pending.clone()));
        Self { pending, task }
    }

    pub(crate) fn poke(&self, topic: Topic) {
        self.pending.topics.fetch_or(1 << topic as u8, Ordering::AcqRel);
        self.pending.wake.notify_one();
    }
}

impl Drop for Poker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(pool: PgPool, pending: Arc<Pending>) {
    loop {
        pending.wake.notified().await;
        let topics = pending.topics.swap(0, Ordering::AcqRel);
        for topic in Topic::ALL.into_iter().filter(|t| topics & (1 << *t as u8) != 0) {
            // A lost hint costs a period of waiting, never a job: listeners also read on a timer.
            if let Err(error) =
                sqlx::query("select pg_notify('davit', $1)").bind(topic.as_str()).execute(&pool).await
            {
                tracing::debug!(%error, topic = topic.as_str(), "notification not sent");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
