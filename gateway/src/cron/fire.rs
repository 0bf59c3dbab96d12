//! Carries out a plan: records instants and moves schedules on.

use chrono::{DateTime, Utc};
use davit_api::InvocationId;
use davit_cron::{CronLine, parse_zone};
use davit_registry::{Registry, RegistryError, ScheduleRow};

use super::next::{Plan, Ring, plan};

/// What a look at one schedule led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It rings next at this instant, if ever.
    Next(Option<DateTime<Utc>>),
    /// It fired, and rings next then.
    Fired(InvocationId, Option<DateTime<Utc>>),
}

/// Does what a schedule needs now.
pub async fn look(
    registry: &Registry,
    row: &ScheduleRow,
    now: DateTime<Utc>,
) -> Result<Looked, RegistryError> {
    let parsed =
        row.spec.cron.parse::<CronLine>().and_then(|line| Ok((line, parse_zone(&row.spec.timezone)?)));
    let (line, zone) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // The API refuses such lines; one that a newer version wrote is left alone.
            tracing::warn!(schedule = %row.name, function = %row.function, %error, "schedule not understood");
            return Ok(Looked::Next(None));
        }
    };
    match plan(row.next_due_at, row.spec.missed, now, |after| line.next_after(after, zone)) {
        Plan::Wait(at) => Ok(Looked::Next(Some(at))),
        Plan::Set(next) => {
            // What another gateway stored in the meantime is as good; the next look reads it.
            registry.set_next_due(row.id, None, next).await?;
            Ok(Looked::Next(next))
        }
        Plan::Ring(ring) => carry_out(registry, row, ring).await,
    }
}

async fn carry_out(registry: &Registry, row: &ScheduleRow, ring: Ring) -> Result<Looked, RegistryError> {
    if !ring.missed.is_empty() {
        tracing::warn!(schedule = %row.name, function = %row.function, missed = ring.missed.len(), "instants were missed");
    }
    let Some(due_at) = ring.fire else {
        registry.record_missed(row.id, &ring.missed, ring.next).await?;
        return Ok(Looked::Next(ring.next));
    };
    let payload = row.spec.event(&row.namespace, &row.function, &row.name, due_at);
    match registry.fire(row.id, due_at, ring.next, &ring.missed, payload).await? {
        Some(invocation) => {
            tracing::info!(schedule = %row.name, function = %row.function, due_at = %due_at, %invocation, "fired");
            Ok(Looked::Fired(invocation, ring.next))
        }
        None => {
            // Somebody else was first and has moved the schedule on; if the row is on record without that, this
            // moves it, or the schedule would stand still.
            registry.set_next_due(row.id, Some(ring.stored), ring.next).await?;
            Ok(Looked::Next(ring.next))
        }
    }
}
