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

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use davit_registry::{Changes, Registry, Topic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::instances::Expected;
use alarm::Alarm;
use fire::Looked;

/// Schedules are read at least this often; well within the alarms' horizon, so that none is late.
const EVERY: Duration = Duration::from_secs(5);
/// What is due within this time is read: well beyond the alarms' horizon, because instances are kept or brought back for
/// it; beyond, no instance would be.
const AHEAD: TimeDelta = TimeDelta::minutes(10);
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
    loop {
        changed.borrow_and_update();
        look_at_due(&registry, alarm.as_ref(), &wake, &expected).await;
        let rung = async {
            match &alarm {
                Some(alarm) => alarm.rung().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = rung => {}
            _ = changed.changed() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => break,
        }
    }
    if let Some(alarm) = alarm {
        alarm.stop().await;
    }
}

async fn look_at_due(registry: &Registry, alarm: Option<&Alarm>, wake: &Notify, expected: &Expected) {
    let rows = match registry.schedules_due(Utc::now() + AHEAD).await {
        Ok(rows) => rows,
        Err(error) => {
            return tracing::debug!(%error, "schedules cannot be read; whatever passes meanwhile is late, not lost");
        }
    };
    let mut due = Vec::new();
    for row in &rows {
        let next = match fire::look(registry, row, Utc::now()).await {
            Ok(Looked::Next(next)) => next,
            Ok(Looked::Fired(_, next)) => {
                wake.notify_one();
                next
            }
            Err(error) => {
                tracing::warn!(%error, schedule = %row.name, function = %row.function, "could not be looked at; it will be again");
                None
            }
        };
        if let (Some(alarm), Some(at)) = (alarm, next) {
            alarm.set(at).await;
        }
        due.extend(next.map(|at| (row.function_id, at)));
    }
    expected.set(due.into_iter());
}
