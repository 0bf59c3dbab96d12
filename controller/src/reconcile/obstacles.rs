//! Why instances cannot be started, kept in the registry for the calls that wait for them. Written when it changes, and
//! again while it lasts: a note that nobody repeats is taken for old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_api::PoolKey;
use davit_registry::Registry;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backend::{Backend, ContainerId, Life};

/// A note is written again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// A start that waits for so long has something in its way.
const SLOW: Duration = Duration::from_secs(3);
/// Kinds that are remembered.
const KINDS: usize = 1_000;

/// What is noted now: the reason and when it was written, or nothing.
type Noted = Option<(String, Instant)>;

/// Notes obstacles; clones share what they know.
#[derive(Clone)]
pub(super) struct Obstacles {
    registry: Registry,
    /// A kind that is not in it may have a note from an earlier controller.
    noted: Arc<Mutex<HashMap<PoolKey, Noted>>>,
}

impl Obstacles {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, noted: Arc::default() }
    }

    /// Instances of this kind cannot be started, for this reason.
    pub(super) async fn note(&self, key: &PoolKey, reason: &str) {
        if !is_news(self.noted.lock().get(key), reason, Instant::now()) {
            return;
        }
        match self.registry.note_obstacle(key, reason).await {
            Ok(()) => self.remember(key, Some((reason.to_owned(), Instant::now()))),
            Err(error) => tracing::debug!(%error, "cannot note why instances do not start"),
        }
    }

    /// One of this kind has started.
    pub(super) async fn clear(&self, key: &PoolKey) {
        if matches!(self.noted.lock().get(key), Some(None)) {
            return;
        }
        match self.registry.clear_obstacle(key).await {
            Ok(()) => self.remember(key, None),
            Err(error) => tracing::debug!(%error, "cannot take back why instances do not start"),
        }
    }

    /// Notes what a start waits for, for as long as it is polled.
    pub(super) async fn watch(&self, backend: &dyn Backend, key: &PoolKey, container: &ContainerId) {
        loop {
            tokio::time::sleep(SLOW).await;
            if let Ok(Life::Waiting(why)) = backend.life(container).await {
                self.note(key, &format!("a start waits: {why}")).await;
            }
        }
    }

    fn remember(&self, key: &PoolKey, noted: Noted) {
        let mut all = self.noted.lock();
        if all.len() >= KINDS {
            all.clear();
        }
        all.insert(key.clone(), noted);
    }
}

/// Pure: whether a reason is to be written.
fn is_news(noted: Option<&Noted>, reason: &str, now: Instant) -> bool {
    match noted {
        Some(Some((before, at))) => before != reason || now - *at >= AGAIN,
        Some(None) | None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_written_when_it_changes_and_while_it_lasts() {
        let now = Instant::now();
        assert!(is_news(None, "a", now) && is_news(Some(&None), "a", now));
        let noted = Some(("a".to_owned(), now));
        assert!(!is_news(Some(&noted), "a", now) && is_news(Some(&noted), "b", now));
        assert!(is_news(Some(&noted), "a", now + AGAIN));
    }
}
