//! The alarm clock: tokio-cron-scheduler, used for one-shot alarms and nothing else.
//!
//! It forgets its jobs at a restart and can lose one under load, so it decides nothing: a ring only says
//! "look now", and whoever is woken reads the schedules and computes what is due. A lost ring costs the time
//! until the next read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// Alarms are set this far ahead; later ones are set by a later read. That bounds the clock's list.
pub(super) const HORIZON: TimeDelta = TimeDelta::seconds(15);
/// The most alarms at a time; beyond it the read alone sees to an instant.
const MOST: usize = 1_000;

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

    /// Sets an alarm, unless there is one for this instant, or it is too far away yet.
    pub async fn set(&self, at: DateTime<Utc>) {
        let now = Utc::now();
        {
            let mut pending = self.pending.lock();
            if at - now > HORIZON || pending.len() >= MOST || !pending.insert(at) {
                return;
            }
        }
        if let Err(error) = self.add(at, now).await {
            tracing::warn!(%error, "alarm not set; the next read will see to it");
            self.pending.lock().remove(&at);
        }
    }

    async fn add(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), JobSchedulerError> {
        let (pending, rung) = (self.pending.clone(), self.rung.clone());
        let instant = Instant::now() + (at - now).to_std().unwrap_or(Duration::ZERO);
        let job = Job::new_one_shot_at_instant_async(instant, move |_, _| {
            let (pending, rung) = (pending.clone(), rung.clone());
            Box::pin(async move {
                // The clock works in whole seconds and may be early; a ring never is.
                if let Ok(early) = (at - Utc::now()).to_std() {
                    tokio::time::sleep(early).await;
                }
                pending.lock().remove(&at);
                rung.notify_one();
            })
        })?;
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

    #[tokio::test]
    async fn an_alarm_rings_once_and_never_early() {
        let alarm = Alarm::start().await.unwrap();
        let at = Utc::now() + TimeDelta::milliseconds(1_300);
        alarm.set(at).await;
        alarm.set(at).await;
        tokio::time::timeout(Duration::from_secs(8), alarm.rung()).await.unwrap();
        assert!(Utc::now() >= at);
        let again = tokio::time::timeout(Duration::from_millis(1_500), alarm.rung()).await;
        assert!(again.is_err(), "two alarms for one instant ring once");
        alarm.stop().await;
    }

    #[tokio::test]
    async fn what_is_past_rings_and_what_is_far_is_left_to_a_later_read() {
        let alarm = Alarm::start().await.unwrap();
        alarm.set(Utc::now() + TimeDelta::hours(1)).await;
        assert!(alarm.pending.lock().is_empty());
        alarm.set(Utc::now() - TimeDelta::seconds(5)).await;
        tokio::time::timeout(Duration::from_secs(5), alarm.rung()).await.unwrap();
        alarm.stop().await;
    }
}
