//! Readiness: ready when every latch has been opened. There is no flag that somebody could forget to set,
//! because a part that is not ready yet holds its latch.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// What a process still waits for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    held: Arc<watch::Sender<BTreeMap<u64, &'static str>>>,
}

impl Readiness {
    /// Ready, until somebody takes a latch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a latch. The process is not ready until it is dropped or opened.
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut key = 0;
        self.held.send_modify(|held| {
            key = held.last_key_value().map_or(0, |(last, _)| last + 1);
            held.insert(key, name);
        });
        Latch { key, held: self.held.clone() }
    }

    /// Whether every latch is open.
    pub fn is_ready(&self) -> bool {
        self.held.borrow().is_empty()
    }

    /// What is still being waited for.
    pub fn waiting(&self) -> Vec<&'static str> {
        self.held.borrow().values().copied().collect()
    }

    /// Waits until every latch is open.
    pub async fn ready(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.held.subscribe().wait_for(BTreeMap::is_empty).await;
    }
}

/// Keeps the process unready as long as it lives.
pub struct Latch {
    key: u64,
    held: Arc<watch::Sender<BTreeMap<u64, &'static str>>>,
}

impl Latch {
    /// Opens it; the same as dropping it, said aloud.
    pub fn open(self) {}
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.held.send_modify(|held| {
            held.remove(&self.key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_the_last_latch_opens() {
        let readiness = Readiness::new();
        let (a, b) = (readiness.latch("routes"), readiness.latch("pool"));
        a.open();
        assert_eq!(readiness.waiting(), ["pool"]);
        drop(b);
        readiness.ready().await;
        assert!(readiness.is_ready());
    }
}
