//! Schedules: an alarm says "look", a read says what is due, a unique row decides who fires it.
//!
//! Start-up, a lost notification, a lost alarm and a normal ring are one code path: read the schedules that are due
//! soon, compute, carry out, set the next alarms. Those that ring later are not read, so that thousands of them cost
//! nothing until then.

pub mod alarm;
pub mod fire;
pub mod next;
#[cfg(test)]
mod stories;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use davit_registry::{Changes, Registry, Topic};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::instances::Expected;
use alarm::Alarm;
use fire::{Clock, Timings};

/// Schedules are read at least this often; well within the alarms' horizon, so that none is late.
const EVERY: Duration = Duration::from_secs(5);
/// What is due within this time is read: well beyond the alarms' horizon, because instances are kept or brought back for
/// it; beyond, no instance would be.
const AHEAD: TimeDelta = TimeDelta::minutes(10);
/// What is due and was left to another gateway is looked at again so soon: it may have died over it.
const AGAIN: Duration = Duration::from_millis(200);
/// What is read when an alarm rings: what has come, and what comes while that is seen to.
const RINGING: TimeDelta = TimeDelta::seconds(1);
/// Shifted instants share alarms: one look for all that ring within this time, at its end.
const GRID: TimeDelta = TimeDelta::milliseconds(50);
/// A burst of changes is read once.
const SETTLE: Duration = Duration::from_millis(50);

/// Rings until `stop`. `wake` tells this process's dispatcher that there is work; `expected` gets what is to come.
pub async fn run(
    registry: Registry,
    changes: Changes,
    wake: Arc<Notify>,
    expected: Arc<Expected>,
    stop: CancellationToken,
) {
    let alarm = match Alarm::start().await {
        Ok(alarm) => Some(alarm),
        Err(error) => {
            tracing::error!(%error, "no alarm clock; schedules are looked at every few seconds only");
            None
        }
    };
    let mut changed = changes.subscribe(Topic::Schedules);
    let mut looker = Looker { registry, alarm, wake, expected, timings: Timings::default() };
    let mut within = AHEAD;
    let mut whole = Instant::now();
    loop {
        changed.borrow_and_update();
        let left = looker.look(within).await;
        if within == AHEAD {
            whole = Instant::now();
        }
        tokio::select! {
            () = looker.rung() => within = RINGING,
            _ = changed.changed() => {
                tokio::time::sleep(SETTLE).await;
                within = AHEAD;
            }
            () = tokio::time::sleep(AGAIN), if left => within = RINGING,
            () = tokio::time::sleep_until(whole + EVERY) => within = AHEAD,
            () = stop.cancelled() => break,
        }
        if whole.elapsed() >= EVERY {
            within = AHEAD;
        }
    }
    if let Some(alarm) = looker.alarm {
        alarm.stop().await;
    }
}

struct Looker {
    registry: Registry,
    alarm: Option<Alarm>,
    wake: Arc<Notify>,
    expected: Arc<Expected>,
    timings: Timings,
}

impl Looker {
    async fn rung(&self) {
        match &self.alarm {
            Some(alarm) => alarm.rung().await,
            None => std::future::pending().await,
        }
    }

    /// One look at what is due within that time; answers whether something that has come was left.
    async fn look(&mut self, within: TimeDelta) -> bool {
        let due = match self.registry.schedules_due(within).await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(%error, "schedules cannot be read; whatever passes meanwhile is late, not lost");
                return false;
            }
        };
        let clock = Clock::new(due.now);
        let looked = fire::look(&self.registry, &due, &mut self.timings).await;
        if looked.fired > 0 {
            self.wake.notify_one();
        }
        let now = clock.now();
        if let Some(alarm) = &self.alarm {
            let moments: BTreeSet<DateTime<Utc>> =
                looked.next.iter().filter_map(|(_, at)| at.duration_round_up(GRID).ok()).collect();
            for at in moments {
                alarm.set(at, (at - now).to_std().unwrap_or_default()).await;
            }
        }
        if within == AHEAD {
            self.timings.keep(&due.rows);
            // Instances are kept by this host's clock.
            let apart = Utc::now() - now;
            self.expected.set(looked.next.iter().map(|(function, at)| (*function, *at + apart)));
        }
        looked.left
    }
}
