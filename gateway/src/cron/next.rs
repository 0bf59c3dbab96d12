//! Schedule × now → what is due, what was missed, what comes next. Pure; `fire.rs` carries it out.

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::{MissedPolicy, OverlapPolicy, ScheduleSpec, SkipReason};
use davit_registry::Passed;

/// An instant that is at most this late still counts as rung in time: cron lines have no finer grain.
pub const IN_TIME: TimeDelta = TimeDelta::seconds(60);
/// After an outage its first instants are recorded one by one.
pub const FIRST: usize = 100;
/// When there are more, so are those of this time before now.
pub const REMEMBERED: TimeDelta = TimeDelta::hours(24);
/// At most so many of the latter.
const MOST: usize = 1_500;

/// The instants of one schedule.
pub trait Instants {
    /// The first one after another, if there is any.
    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>>;
    /// When one rings: at it, or a little later, and always before the next.
    fn rings_at(&self, due: DateTime<Utc>) -> DateTime<Utc>;
}

/// What to do about a schedule now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing before this moment.
    Wait(DateTime<Utc>),
    /// Store this as its next instant; none ends it.
    Set(Option<DateTime<Utc>>),
    /// Instants have come.
    Ring(Ring),
}

/// Instants that have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Those to fire, in order.
    pub fire: Vec<DateTime<Utc>>,
    /// Those to record only, in order.
    pub passed: Vec<Passed>,
    /// The first one that rings after now.
    pub next: Option<DateTime<Utc>>,
}

/// What is stored about a schedule's next instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The next instant, when it was computed.
    pub next: Option<DateTime<Utc>>,
    /// From when on instants are due, when it was not.
    pub from: Option<DateTime<Utc>>,
}

/// Decides.
pub fn plan(stored: Stored, spec: &ScheduleSpec, now: DateTime<Utc>, instants: &impl Instants) -> Plan {
    let first = match stored.next {
        Some(next) => next,
        // Later instants are due from when it was made on, whoever looks at it first and when.
        None => match instants.next_after(stored.from.unwrap_or(now)) {
            Some(next) if instants.rings_at(next) <= now => next,
            next => return Plan::Set(next),
        },
    };
    let rings = instants.rings_at(first);
    if rings > now {
        return Plan::Wait(rings);
    }
    let (mut missed, next) = come(first, now, instants);
    let runs = match spec.missed {
        MissedPolicy::RunOnce => 1,
        MissedPolicy::RunAll => spec.missed_limit(),
        MissedPolicy::Skip => {
            usize::from(missed.last().is_some_and(|last| now - instants.rings_at(*last) <= IN_TIME))
        }
    };
    let fire = missed.split_off(missed.len() - runs.min(missed.len()));
    let passed = missed.into_iter().map(|due_at| Passed { due_at, skipped: None }).collect();
    Plan::Ring(alone(Ring { fire, passed, next }, spec.overlap))
}

/// Where one run does not go with another, one of those that have come at once is left.
fn alone(mut ring: Ring, overlap: OverlapPolicy) -> Ring {
    let (rest, reason) = match overlap {
        OverlapPolicy::Allow | OverlapPolicy::Queue => return ring,
        OverlapPolicy::Skip => (ring.fire.split_off(1.min(ring.fire.len())), SkipReason::Overlap),
        OverlapPolicy::Replace => {
            let last = ring.fire.split_off(ring.fire.len().saturating_sub(1));
            (std::mem::replace(&mut ring.fire, last), SkipReason::Replaced)
        }
    };
    ring.passed.extend(rest.into_iter().map(|due_at| Passed { due_at, skipped: Some(reason) }));
    ring
}

/// The instants from the first one up to now, and the one after them.
fn come(
    first: DateTime<Utc>,
    now: DateTime<Utc>,
    instants: &impl Instants,
) -> (Vec<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let has_come = |at: &DateTime<Utc>| instants.rings_at(*at) <= now;
    let mut all = vec![first];
    let mut last = first;
    let mut next = instants.next_after(last);
    while let Some(at) = next.filter(|at| *at > last && has_come(at)) {
        if all.len() == FIRST && at < now - REMEMBERED {
            // One step over the forgotten time instead of one for each of its minutes.
            last = now - REMEMBERED;
        } else {
            all.push(at);
            last = at;
        }
        next = instants.next_after(last);
    }
    if all.len() > FIRST + MOST {
        // More often than once a minute nothing comes due, so this cuts nothing; it is the bound if anything ever does.
        all.drain(FIRST..all.len() - MOST);
    }
    (all, next)
}

#[cfg(test)]
mod tests;
