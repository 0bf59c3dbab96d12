//! Shutdown as an ordered list with one deadline: what one step uses up, the later ones do not have.

use std::time::Duration;

use tokio::time::Instant;

/// A shutdown under way.
///
/// ```no_run
/// # async fn example() {
/// let mut drain = davit_daemon::Drain::within(std::time::Duration::from_secs(20));
/// drain.step("stop accepting", async {}).await;
/// drain.step("close the pool", async {}).await;
/// assert!(drain.finish());
/// # }
/// ```
pub struct Drain {
    deadline: Instant,
    late: Vec<&'static str>,
}

impl Drain {
    /// Starts the clock.
    pub fn within(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, late: Vec::new() }
    }

    /// What is left of the deadline.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs one step, at most until the deadline. A step that comes after the deadline still gets a moment,
    /// so that the last ones (closing the pool, stopping Postgres) are at least begun.
    pub async fn step<T>(&mut self, name: &'static str, work: impl Future<Output = T>) -> Option<T> {
        let started = Instant::now();
        let limit = self.left().max(Duration::from_millis(250));
        match tokio::time::timeout(limit, work).await {
            Ok(value) => {
                tracing::debug!(step = name, ms = started.elapsed().as_millis() as u64, "drain step done");
                Some(value)
            }
            Err(_) => {
                tracing::warn!(step = name, "drain step did not finish in time");
                self.late.push(name);
                None
            }
        }
    }

    /// Whether every step finished in time.
    pub fn finish(self) -> bool {
        self.late.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_deadline_for_all_steps() {
        let mut drain = Drain::within(Duration::from_secs(10));
        assert!(drain.step("a", tokio::time::sleep(Duration::from_secs(6))).await.is_some());
        assert!(drain.step("b", tokio::time::sleep(Duration::from_secs(6))).await.is_none());
        assert!(drain.step("c", async {}).await.is_some());
        assert!(!drain.finish());
    }
}
