//! Stories of idle instances, and what holds whatever happened before.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn terms(cold_ms: u64) -> Terms {
    Terms {
        cold: Duration::from_millis(cold_ms),
        memory_mb: 256,
        price: Price::default(),
        most: 4 * HOUR,
        scheduled: None,
    }
}

/// Calls one at a time, each a tenth of a second, after these gaps; returns the end of the last.
fn calls(history: &mut History, start: Instant, gaps: impl IntoIterator<Item = f64>) -> Instant {
    let mut now = start;
    for gap in gaps {
        now += Duration::from_secs_f64(gap);
        history.working(1, now);
        now += SECOND / 10;
        history.working(0, now);
    }
    now
}

fn kept_for(history: &History, since: Instant, terms: &Terms) -> Duration {
    let mut now = since;
    while let Verdict::Keep { until } = history.judge(1, since, now, terms) {
        assert!(until > now, "asking again must get somewhere");
        now = until;
    }
    now - since
}

#[test]
fn a_cheap_start_is_dropped_early_and_a_dear_one_kept_long() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = calls(&mut history, start, [40.0, 300.0, 20.0, 1_000.0, 90.0, 2_500.0, 60.0]);
    let (cheap, dear) = (kept_for(&history, end, &terms(20)), kept_for(&history, end, &terms(2_000)));
    assert!(cheap < 10 * 60 * SECOND, "{cheap:?}");
    assert!(dear > 30 * 60 * SECOND, "{dear:?}");
}

#[test]
fn an_unknown_function_is_not_kept_for_ever() {
    let (history, now) = (History::default(), Instant::now());
    let kept = kept_for(&history, now, &terms(50));
    assert!(kept >= 10 * SECOND && kept <= HOUR, "{kept:?}");
}

#[test]
fn the_users_bound_holds_even_when_more_would_pay() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = calls(&mut history, start, [200.0, 170.0, 230.0, 150.0, 260.0]);
    let bound = Terms { most: 30 * SECOND, ..terms(5_000) };
    assert!(kept_for(&history, end, &bound) <= 30 * SECOND);
}

/// Forty calls that come back after 200 to 500 seconds, without a rhythm.
fn returning(history: &mut History, start: Instant) -> Instant {
    calls(history, start, (0..40u32).map(|i| 200.0 + 30.0 * f64::from(i * 37 % 11)))
}

#[test]
fn what_comes_back_is_waited_for_longer_than_a_stranger() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = returning(&mut history, start);
    let stranger = kept_for(&History::default(), start, &terms(100));
    let known = kept_for(&history, end, &terms(100));
    assert!(known >= 400 * SECOND && known > 3 * stranger, "{known:?}, a stranger {stranger:?}");
}

#[test]
fn old_habits_are_forgotten() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = returning(&mut history, start);
    let before = kept_for(&history, end, &terms(100));
    // Since then it has been called less than once a day, without a rhythm.
    let end = calls(&mut history, end, [20.0, 31.0, 45.0, 22.0, 38.0, 60.0, 27.0].map(|h| h * 3600.0));
    let after = kept_for(&history, end, &terms(100));
    assert!(2 * after < before, "{after:?}, before {before:?}");
}

#[test]
fn regular_calls_are_left_between_and_prepared_for() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = calls(&mut history, start, [3600.0; 6]);
    let Verdict::LetGo { return_at: Some(back) } = history.judge(1, end, end, &terms(500)) else {
        panic!("kept for an hour, or forgotten")
    };
    let due = end + HOUR;
    assert!(back.at < due && back.at + 30 * SECOND > due, "{:?} early", due - back.at);
    assert!(back.until >= due);
}

#[test]
fn a_schedule_is_prepared_for_from_its_first_run() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = calls(&mut history, start, [1.0]);
    let due = end + 6 * HOUR;
    let terms = Terms { scheduled: Some(due), ..terms(500) };
    let mut now = end;
    let back = loop {
        match history.judge(1, end, now, &terms) {
            Verdict::Keep { until } => now = until,
            Verdict::LetGo { return_at } => break return_at.expect("a start ahead of the schedule"),
        }
    };
    assert!(back.at + terms.cold < due && back.until > due);
}

#[test]
fn a_second_instance_is_judged_by_how_often_two_work() {
    let (mut history, start) = (History::default(), Instant::now());
    let mut now = start;
    // One call follows the other at uneven times; two at once happened only in the beginning.
    history.working(2, now);
    history.working(0, now);
    let end = calls(&mut history, now, (0..200u32).map(|i| 5.0 + f64::from(i * 7 % 11)));
    now = end;
    let terms = terms(50);
    assert!(matches!(history.judge(1, end, now, &terms), Verdict::Keep { .. }));
    assert!(matches!(history.judge(2, start, now, &terms), Verdict::LetGo { return_at: None }));
}

#[test]
fn an_idle_system_goes_to_zero() {
    let (mut history, start) = (History::default(), Instant::now());
    let end = calls(&mut history, start, (0..50u32).map(|i| 3.0 + f64::from(i % 5)));
    assert!(kept_for(&history, end, &terms(1_500)) < 4 * HOUR);
    let long_after = end + 24 * HOUR;
    assert_eq!(history.judge(1, end, long_after, &terms(1_500)), Verdict::LetGo { return_at: None });
}

proptest! {
    #[test]
    fn a_higher_price_never_keeps_longer_and_no_bound_is_passed(
        gaps in prop::collection::vec(0.1f64..50_000.0, 0..40),
        cold_ms in 1u64..5_000, price in 0.01f64..10.0, most in 1u64..86_400,
    ) {
        let (mut history, start) = (History::default(), Instant::now());
        let end = calls(&mut history, start, gaps);
        let gaps = history.levels.first().map(|l| l.gaps.clone()).unwrap_or_default();
        let terms = Terms { most: most as u32 * SECOND, price: Price(price), ..terms(cold_ms) };
        let dearer = Terms { price: Price(price * 2.0), ..terms };
        let until = |t| gaps.keep_until(Duration::ZERO, t).unwrap_or_default();
        prop_assert!(until(&dearer) <= until(&terms));
        prop_assert!(until(&terms) <= terms.most);
        prop_assert!(kept_for(&history, end, &terms) <= terms.most);
    }

    #[test]
    fn a_return_lies_ahead_and_is_no_longer_than_the_bound(
        gaps in prop::collection::vec(0.1f64..5_000.0, 0..40), age in 0u64..90_000, cold_ms in 1u64..5_000,
    ) {
        let (mut history, start) = (History::default(), Instant::now());
        let end = calls(&mut history, start, gaps);
        let now = end + age as u32 * SECOND;
        if let Verdict::LetGo { return_at: Some(back) } = history.judge(1, end, now, &terms(cold_ms)) {
            prop_assert!(back.at >= now && back.until > back.at);
        }
    }

    #[test]
    fn any_sequence_is_survived_in_bounded_space(steps in prop::collection::vec((0usize..100, 0u64..100_000), 0..200)) {
        let (mut history, mut now) = (History::default(), Instant::now());
        for (busy, wait) in steps {
            now += wait as u32 * SECOND;
            history.working(busy, now);
            prop_assert!(history.levels.len() <= LEVELS);
        }
    }
}
