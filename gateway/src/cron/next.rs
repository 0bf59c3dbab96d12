//! Schedule × now → what is due, what was missed, what comes next. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::MissedPolicy;

/// An instant that is at most this late still counts as rung in time: cron lines have no finer grain.
pub const IN_TIME: TimeDelta = TimeDelta::seconds(60);
/// How far back missed instants are recorded one by one. Of those before, only the first is.
pub const REMEMBERED: TimeDelta = TimeDelta::hours(24);
/// Instants recorded as missed at a time.
const MOST_MISSED: usize = 1_500;

/// What to do about a schedule now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing before this instant.
    Wait(DateTime<Utc>),
    /// It has no stored instant yet, or a stale one: store this.
    Set(Option<DateTime<Utc>>),
    /// Instants have passed.
    Ring(Ring),
}

/// Instants that have passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// The stored instant, which must still be the stored one when this is carried out.
    pub stored: DateTime<Utc>,
    /// The instant to fire, if the policy lets any.
    pub fire: Option<DateTime<Utc>>,
    /// Those to record as missed, in order.
    pub missed: Vec<DateTime<Utc>>,
    /// The first one after now.
    pub next: Option<DateTime<Utc>>,
}

/// Decides. `next_after` gives the line's first instant after another one.
pub fn plan(
    stored: Option<DateTime<Utc>>,
    policy: MissedPolicy,
    now: DateTime<Utc>,
    next_after: impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Plan {
    let Some(stored) = stored else { return Plan::Set(next_after(now)) };
    if stored > now {
        return Plan::Wait(stored);
    }
    let mut passed = passed(stored, now, &next_after);
    let next = next_after(now);
    let fire = match policy {
        MissedPolicy::RunOnce => passed.pop(),
        MissedPolicy::Skip => passed.pop_if(|last| now - *last <= IN_TIME),
    };
    Plan::Ring(Ring { stored, fire, missed: passed, next })
}

/// The stored instant and those after it up to now, the latest last.
fn passed(
    stored: DateTime<Utc>,
    now: DateTime<Utc>,
    next_after: &impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>>,
) -> Vec<DateTime<Utc>> {
    let horizon = now - REMEMBERED;
    let mut all = vec![stored];
    let mut last = stored;
    // One step over the forgotten time instead of one for each of its minutes.
    if stored < horizon {
        last = horizon;
    }
    while let Some(at) = next_after(last).filter(|at| *at <= now && *at > last) {
        all.push(at);
        last = at;
    }
    // Lines cannot fire more often than once a minute, so this cuts nothing; it is the bound if one ever does.
    let surplus = all.len().saturating_sub(MOST_MISSED);
    all.drain(..surplus);
    all
}

#[cfg(test)]
mod tests {
    use chrono::{DurationRound, TimeZone};
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        Utc.timestamp_opt(1_700_000_040 + seconds, 0).unwrap()
    }
    /// Every `minutes` whole minutes.
    fn every(minutes: i64) -> impl Fn(DateTime<Utc>) -> Option<DateTime<Utc>> {
        move |after| {
            after
                .duration_trunc(TimeDelta::minutes(minutes))
                .ok()?
                .checked_add_signed(TimeDelta::minutes(minutes))
        }
    }

    #[test]
    fn a_punctual_ring_fires_under_either_policy() {
        for policy in [MissedPolicy::RunOnce, MissedPolicy::Skip] {
            let ring = Ring { stored: at(0), fire: Some(at(0)), missed: vec![], next: Some(at(60)) };
            assert_eq!(plan(Some(at(0)), policy, at(2), every(1)), Plan::Ring(ring));
        }
    }

    #[test]
    fn an_early_alarm_only_waits() {
        assert_eq!(plan(Some(at(60)), MissedPolicy::RunOnce, at(59), every(1)), Plan::Wait(at(60)));
        assert_eq!(plan(None, MissedPolicy::Skip, at(59), every(1)), Plan::Set(Some(at(60))));
    }

    #[test]
    fn after_downtime_the_policy_decides() {
        let now = at(5 * 3_600 + 1_800);
        let hours = every(60);
        let first = hours(at(0)).unwrap();
        let Plan::Ring(once) = plan(Some(first), MissedPolicy::RunOnce, now, &hours) else { panic!() };
        let Plan::Ring(skip) = plan(Some(first), MissedPolicy::Skip, now, &hours) else { panic!() };
        assert_eq!((once.missed.len(), once.fire.is_some()), (skip.missed.len() - 1, true));
        assert_eq!((skip.fire, skip.next), (None, once.next));
    }

    #[test]
    fn a_year_of_downtime_is_a_day_of_rows() {
        let now = at(365 * 86_400);
        let Plan::Ring(ring) = plan(Some(at(0)), MissedPolicy::RunOnce, now, every(1)) else { panic!() };
        assert_eq!(ring.missed.first(), Some(&at(0)), "the outage's first instant stays on record");
        assert!((1_400..=1_500).contains(&ring.missed.len()));
    }

    proptest! {
        #[test]
        fn nothing_is_forgotten_doubled_or_early(
            late in 0i64..90_000, minutes in 1i64..200, skip in any::<bool>(),
        ) {
            let line = every(minutes);
            let stored = line(at(0)).unwrap();
            let now = stored + TimeDelta::seconds(late.min(86_000));
            let policy = if skip { MissedPolicy::Skip } else { MissedPolicy::RunOnce };
            let Plan::Ring(ring) = plan(Some(stored), policy, now, &line) else { panic!() };
            let mut handled = ring.missed.clone();
            handled.extend(ring.fire);
            let mut expected = vec![stored];
            while let Some(next) = line(*expected.last().unwrap()).filter(|n| *n <= now) {
                expected.push(next);
            }
            prop_assert_eq!(&handled, &expected);
            prop_assert!(ring.next.unwrap() > now);
            prop_assert_eq!(Some(ring.next.unwrap()), line(*expected.last().unwrap()));
            prop_assert!(skip || ring.fire.is_some());
            prop_assert!(!skip || ring.fire.is_none_or(|f| now - f <= IN_TIME));
        }
    }
}
