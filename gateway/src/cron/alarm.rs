//! The alarm clock: tokio-cron-scheduler, used for one-shot alarms and nothing else.
//!
//! It forgets its jobs at a restart and can lose one under load, so it decides nothing: a ring only says
//! "look now", and whoever is woken reads the schedules and computes what is due. A lost ring costs the time
//! until the next read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Alarms are set this far ahead; later ones are set by a later read. That bounds the clock's list.
pub(super) const HORIZON: Duration = Duration::from_secs(15);
/// The most alarms at a time; beyond it the read alone sees to an instant.
const MOST: usize = 1_000;

/// The clock works in whole seconds and ticks twice in one, so it is asked so much early and the rest is waited for
/// exactly.
const EARLY: Duration = Duration::from_secs(1);

/// One alarm.
#[derive(Clone)]
struct Ring {
    pending: Arc<Mutex<BTreeSet<DateTime<Utc>>>>,
    rung: Arc<Notify>,
    at: DateTime<Utc>,
    when: tokio::time::Instant,
}

impl Ring {
    async fn wait(self) {
        tokio::time::sleep_until(self.when).await;
        self.pending.lock().remove(&self.at);
        self.rung.notify_one();
    }
}

/// One clock with its pending alarms: one an instant, however many schedules share it.
pub struct Alarm {
    scheduler: JobScheduler,
    pending: Arc<Mutex<BTreeSet<DateTime<Utc>>>>,
    rung: Arc<Notify>,
}

impl Alarm {
    /// Starts the clock.
    pub async fn start() -> Result<Self, JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.start().await?;
        Ok(Self { scheduler, pending: Arc::default(), rung: Arc::default() })
    }

    /// Sets an alarm for an instant that is so far away, unless there is one for it, or it is too far away yet.
    pub async fn set(&self, at: DateTime<Utc>, away: Duration) {
        {
            let mut pending = self.pending.lock();
            if away > HORIZON || pending.len() >= MOST || !pending.insert(at) {
                return;
            }
        }
        let when = Instant::now() + away;
        let rung = self.rung.clone();
        let ring = Ring { pending: self.pending.clone(), rung, at, when: when.into() };
        if away < 2 * EARLY {
            tokio::spawn(ring.wait());
        } else if let Err(error) = self.add(ring, when - EARLY).await {
            tracing::warn!(%error, "alarm not set; the next read will see to it");
            self.pending.lock().remove(&at);
        }
    }

    async fn add(&self, ring: Ring, early: Instant) -> Result<(), JobSchedulerError> {
        let job = Job::new_one_shot_at_instant_async(early, move |_, _| Box::pin(ring.clone().wait()))?;
        self.scheduler.add(job).await?;
        Ok(())
    }

    /// Waits for a ring. One that came while nobody waited is not lost.
    pub async fn rung(&self) {
        self.rung.notified().await;
    }

    /// Stops the clock.
    pub async fn stop(mut self) {
        if let Err(error) = self.scheduler.shutdown().await {
            tracing::debug!(%error, "alarm clock did not stop cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    async fn rings_once_and_never_early(away: Duration) {
        let alarm = Alarm::start().await.unwrap();
        let (started, at) = (Instant::now(), Utc::now() + away);
        alarm.set(at, away).await;
        alarm.set(at, away).await;
        tokio::time::timeout(Duration::from_secs(8), alarm.rung()).await.unwrap();
        assert!(started.elapsed() >= away);
        let again = tokio::time::timeout(Duration::from_millis(1_500), alarm.rung()).await;
        assert!(again.is_err(), "two alarms for one instant ring once");
        alarm.stop().await;
    }

    #[tokio::test]
    async fn an_alarm_rings_once_and_never_early() {
        rings_once_and_never_early(Duration::from_millis(2_600)).await;
    }

    #[tokio::test]
    async fn so_does_one_that_is_too_close_for_the_clock() {
        rings_once_and_never_early(Duration::from_millis(300)).await;
    }

    #[tokio::test]
    async fn what_is_past_rings_and_what_is_far_is_left_to_a_later_read() {
        let alarm = Alarm::start().await.unwrap();
        alarm.set(Utc::now() + TimeDelta::hours(1), Duration::from_secs(3_600)).await;
        assert!(alarm.pending.lock().is_empty());
        alarm.set(Utc::now() - TimeDelta::seconds(5), Duration::ZERO).await;
        tokio::time::timeout(Duration::from_secs(5), alarm.rung()).await.unwrap();
        alarm.stop().await;
    }
}
