//! Named background tasks. A task that panics takes the process with it: the state is in the registry, so
//! a restart is safe, while a process that has quietly lost its reconciler or its dispatcher is not.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks, tells them to stop, and knows which are still running. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    fault: watch::Sender<Option<String>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            running: Arc::default(),
            fault: watch::Sender::new(None),
        }
    }

    /// Cancelled when the tasks should end.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task that may end when its work is done.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.start(name, work, false);
    }

    /// Spawns a task that must run until [`stopping`](Self::stopping); if it ends earlier, that is a fault.
    pub fn spawn_loop(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.start(name, work, true);
    }

    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static, endless: bool) {
        *self.lock().entry(name).or_default() += 1;
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let fault = match AssertUnwindSafe(work).catch_unwind().await {
                Err(_) => Some(format!("task {name} panicked")),
                Ok(()) if endless && !tasks.stop.is_cancelled() => {
                    Some(format!("task {name} ended by itself"))
                }
                Ok(()) => None,
            };
            if let Some(fault) = fault {
                tracing::error!("{fault}");
                tasks.fault.send_if_modified(|first| {
                    first.is_none() && {
                        *first = Some(fault);
                        true
                    }
                });
            }
            let mut running = tasks.lock();
            if let Some(count) = running.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    running.remove(name);
                }
            }
        });
    }

    /// Waits for the first fault of any task and describes it. The process should then drain and exit with
    /// a failure.
    pub async fn fault(&self) -> String {
        let mut fault = self.fault.subscribe();
        let found = fault.wait_for(Option::is_some).await;
        found.ok().and_then(|text| text.clone()).unwrap_or_default()
    }

    /// The names of the tasks that run now.
    pub fn running(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    /// Tells every task to stop and waits for them. On time-out the error names those still running.
    pub async fn stop(&self, limit: Duration) -> Result<(), Vec<&'static str>> {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.running()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_early_end_are_faults() {
        let tasks = Tasks::new();
        tasks.spawn("short", async {});
        tasks.spawn_loop("loop", async {});
        assert_eq!(tasks.fault().await, "task loop ended by itself");
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        assert_eq!(tasks.fault().await, "task bad panicked");
    }

    #[tokio::test]
    async fn those_that_do_not_stop_are_named() {
        let tasks = Tasks::new();
        let stop = tasks.stopping();
        tasks.spawn_loop("good", async move { stop.cancelled().await });
        tasks.spawn("stuck", std::future::pending());
        assert_eq!(tasks.stop(Duration::from_millis(50)).await, Err(vec!["stuck"]));
    }
}
