//! Single looks at hand-made instants, and whole lives of schedules: clocks that jump, gateways that stop, start, and
//! act on what they read long ago, edits and pauses, over the days when clocks change.

mod lives;

use chrono::{DurationRound, TimeZone};
use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_700_000_040 + seconds, 0).unwrap()
}

/// Every so many whole minutes, each so many seconds late.
struct Every {
    minutes: i64,
    shift: i64,
}
fn every(minutes: i64) -> Every {
    Every { minutes, shift: 0 }
}
impl Instants for Every {
    fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let minutes = TimeDelta::minutes(self.minutes);
        after.duration_trunc(minutes).ok()?.checked_add_signed(minutes)
    }
    fn rings_at(&self, due: DateTime<Utc>) -> DateTime<Utc> {
        due + TimeDelta::seconds(self.shift)
    }
}

fn spec(missed: MissedPolicy) -> ScheduleSpec {
    ScheduleSpec { missed, ..ScheduleSpec::default() }
}
fn next(next: DateTime<Utc>) -> Stored {
    Stored { next: Some(next), from: None }
}
fn ring(plan: Plan) -> Ring {
    match plan {
        Plan::Ring(ring) => ring,
        other => panic!("{other:?}"),
    }
}
fn missed(ring: &Ring) -> Vec<DateTime<Utc>> {
    ring.passed.iter().filter(|p| p.skipped.is_none()).map(|p| p.due_at).collect()
}

#[test]
fn a_punctual_ring_fires_under_every_policy() {
    for policy in [MissedPolicy::RunOnce, MissedPolicy::Skip, MissedPolicy::RunAll] {
        let expected = Ring { fire: vec![at(0)], passed: vec![], next: Some(at(60)) };
        for late in [0, 2, 59] {
            let plan = plan(next(at(0)), &spec(policy), at(late), &every(1));
            assert_eq!(plan, Plan::Ring(expected.clone()), "up to a minute late is not missed");
        }
    }
}

#[test]
fn an_early_alarm_only_waits() {
    let policy = spec(MissedPolicy::Skip);
    assert_eq!(plan(next(at(60)), &policy, at(59), &every(1)), Plan::Wait(at(60)));
    let shifted = Every { minutes: 1, shift: 20 };
    assert_eq!(plan(next(at(0)), &policy, at(19), &shifted), Plan::Wait(at(20)));
    let rung = ring(plan(next(at(0)), &policy, at(20), &shifted));
    assert_eq!((rung.fire, rung.next), (vec![at(0)], Some(at(60))));
}

#[test]
fn what_nobody_computed_yet_is_due_from_when_it_was_made_on() {
    let policy = spec(MissedPolicy::RunOnce);
    let made = |from| Stored { next: None, from };
    assert_eq!(plan(made(Some(at(5))), &policy, at(59), &every(1)), Plan::Set(Some(at(60))));
    assert_eq!(plan(made(None), &policy, at(59), &every(1)), Plan::Set(Some(at(60))));
    // The first gateway comes three minutes later.
    let rung = ring(plan(made(Some(at(5))), &policy, at(200), &every(1)));
    assert_eq!((rung.fire.as_slice(), missed(&rung)), ([at(180)].as_slice(), vec![at(60), at(120)]));
    struct Never;
    impl Instants for Never {
        fn next_after(&self, _: DateTime<Utc>) -> Option<DateTime<Utc>> {
            None
        }
        fn rings_at(&self, due: DateTime<Utc>) -> DateTime<Utc> {
            due
        }
    }
    assert_eq!(plan(made(Some(at(5))), &policy, at(200), &Never), Plan::Set(None));
    assert_eq!(ring(plan(next(at(0)), &policy, at(1), &Never)).next, None, "its last");
}

#[test]
fn after_downtime_the_policy_decides() {
    let (now, hours) = (at(5 * 3_600 + 1_800), every(60));
    let first = hours.next_after(at(0)).unwrap();
    let after = |spec: &ScheduleSpec| ring(plan(next(first), spec, now, &hours));
    let (once, skip) = (after(&spec(MissedPolicy::RunOnce)), after(&spec(MissedPolicy::Skip)));
    assert_eq!((missed(&once).len(), once.fire.len()), (4, 1));
    assert_eq!((missed(&skip).len(), skip.fire.len()), (5, 0));
    assert_eq!(skip.next, once.next);
    let all = after(&spec(MissedPolicy::RunAll));
    assert_eq!((missed(&all).len(), all.fire.len()), (0, 5));
    assert!(all.fire.is_sorted());
    let three = after(&ScheduleSpec { missed_limit: Some(3), ..spec(MissedPolicy::RunAll) });
    assert_eq!((missed(&three).len(), three.fire.as_slice()), (2, &all.fire[2..]));
}

#[test]
fn of_several_that_came_at_once_one_is_left_where_runs_exclude_each_other() {
    let (now, hours) = (at(3 * 3_600 + 1_800), every(60));
    let first = hours.next_after(at(0)).unwrap();
    let after = |overlap| {
        let spec = ScheduleSpec { overlap, ..spec(MissedPolicy::RunAll) };
        let rung = ring(plan(next(first), &spec, now, &hours));
        (rung.fire, rung.passed.iter().map(|p| p.skipped.unwrap()).collect::<Vec<_>>())
    };
    let all = after(OverlapPolicy::Allow).0;
    assert_eq!(after(OverlapPolicy::Queue), (all.clone(), vec![]));
    assert_eq!(after(OverlapPolicy::Skip), (vec![all[0]], vec![SkipReason::Overlap; 2]));
    assert_eq!(after(OverlapPolicy::Replace), (vec![all[2]], vec![SkipReason::Replaced; 2]));
}

#[test]
fn a_year_of_downtime_is_a_day_of_rows_and_the_outages_beginning() {
    let rung = ring(plan(next(at(0)), &spec(MissedPolicy::RunOnce), at(365 * 86_400), &every(1)));
    let missed = missed(&rung);
    assert_eq!(missed[..3], [at(0), at(60), at(120)], "the outage's first instants stay on record");
    assert!((1_500..=FIRST + MOST).contains(&missed.len()), "{}", missed.len());
    assert_eq!(rung.fire, [at(365 * 86_400)]);
    let daily = ring(plan(next(at(0)), &spec(MissedPolicy::RunOnce), at(90 * 86_400), &every(1_440)));
    assert!(daily.passed.len() >= 89, "three months of a daily one are on record whole");
}

proptest! {
    #[test]
    fn nothing_is_forgotten_doubled_or_early(
        late in 0i64..86_000, minutes in 1i64..200, shift in 0i64..60, policy in 0usize..3, limit in 1u32..=100,
    ) {
        let instants = Every { minutes, shift };
        let stored = instants.next_after(at(0)).unwrap();
        let now = instants.rings_at(stored) + TimeDelta::seconds(late);
        let policy = [MissedPolicy::RunOnce, MissedPolicy::Skip, MissedPolicy::RunAll][policy];
        let spec = ScheduleSpec { missed_limit: Some(limit), ..spec(policy) };
        let rung = ring(plan(next(stored), &spec, now, &instants));
        let mut handled = missed(&rung);
        handled.extend(&rung.fire);
        let mut expected = vec![stored];
        while let Some(next) = instants.next_after(*expected.last().unwrap()).filter(|n| instants.rings_at(*n) <= now) {
            expected.push(next);
        }
        prop_assert_eq!(&handled, &expected);
        prop_assert_eq!(rung.next, instants.next_after(*expected.last().unwrap()));
        prop_assert!(instants.rings_at(rung.next.unwrap()) > now);
        match policy {
            MissedPolicy::RunOnce => prop_assert_eq!(rung.fire.len(), 1),
            MissedPolicy::Skip => prop_assert!(rung.fire.iter().all(|f| now - instants.rings_at(*f) <= IN_TIME)),
            MissedPolicy::RunAll => prop_assert_eq!(rung.fire.len(), expected.len().min(limit as usize)),
        }
    }
}
