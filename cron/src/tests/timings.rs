//! Intervals, moments, starts, ends and jitter.

use davit_api::ScheduleSpec;

use super::*;

fn spec(change: impl FnOnce(&mut ScheduleSpec)) -> ScheduleSpec {
    let mut spec = ScheduleSpec::default();
    change(&mut spec);
    spec
}
fn some(text: &str) -> Option<String> {
    Some(text.into())
}
fn now() -> DateTime<Utc> {
    utc("2026-03-01T10:07:33.5Z")
}
fn timing(change: impl FnOnce(&mut ScheduleSpec)) -> Timing {
    Timing::of(&spec(change), now()).unwrap()
}
fn next(timing: &Timing, after: &str, count: usize) -> Vec<String> {
    let instants = timing.iter_after(utc(after)).take(count);
    instants.map(|at| at.format("%m-%d %H:%M:%S").to_string()).collect()
}

#[test]
fn an_interval_is_counted_from_its_start_or_from_when_it_was_made() {
    let made = timing(|s| s.every = some("15m"));
    assert_eq!(next(&made, "2026-03-01T10:07:33.5Z", 2), ["03-01 10:22:33", "03-01 10:37:33"]);
    assert_eq!(next(&made, "2026-03-01T10:22:32.9Z", 1), ["03-01 10:22:33"]);
    assert_eq!(next(&made, "2025-01-01T00:00:00Z", 1), ["03-01 10:22:33"], "never before its first");
    let started = timing(|s| (s.every, s.start) = (some("1h30m"), some("2026-03-02T00:00:00Z")));
    assert_eq!(next(&started, "2026-03-01T10:07:33Z", 2), ["03-02 00:00:00", "03-02 01:30:00"]);
    // Elapsed time, whatever the clocks do.
    let daily = timing(|s| {
        s.every = some("1d");
        s.start = some("2026-03-28T09:00");
        s.timezone = "Europe/Berlin".into();
    });
    assert_eq!(next(&daily, "2026-03-01T00:00:00Z", 2), ["03-28 08:00:00", "03-29 08:00:00"]);
}

#[test]
fn a_moment_comes_due_once_and_is_read_by_the_zones_clock_or_its_own_offset() {
    let moment = |at: &str| timing(|s| (s.at, s.timezone) = (some(at), "Europe/Berlin".into()));
    for (at, due) in [
        ("2026-12-24T18:00", "12-24 17:00:00"),
        ("2026-12-24 18:00:30", "12-24 17:00:30"),
        ("2026-12-24T18:00:00Z", "12-24 18:00:00"),
        ("2026-12-24T18:00Z", "12-24 18:00:00"),
        ("2026-12-24T18:00-05:00", "12-24 23:00:00"),
        // Skipped by the clocks, and shown twice by them.
        ("2026-03-29T02:30", "03-29 01:00:00"),
        ("2026-10-25T02:30", "10-25 00:30:00"),
    ] {
        assert_eq!(next(&moment(at), "2026-03-01T00:00:00Z", 3), [due], "{at}");
    }
}

#[test]
fn start_and_end_are_instants_themselves() {
    let bounded = timing(|s| {
        s.cron = some("0 * * * *");
        (s.start, s.end) = (some("2026-03-05T08:00"), some("2026-03-05T10:00:00Z"));
    });
    let all = ["03-05 08:00:00", "03-05 09:00:00", "03-05 10:00:00"];
    assert_eq!(next(&bounded, "2026-03-01T00:00:00Z", 9), all);
}

#[test]
fn what_cannot_be_is_refused_by_field() {
    let refused = |change: &dyn Fn(&mut ScheduleSpec)| {
        let spec = spec(change);
        let limits = Limits { least_interval: TimeDelta::minutes(5) };
        let error = Timing::of(&spec, now()).and_then(|t| t.check(now(), limits)).unwrap_err();
        (error.field, error.never, error.problem)
    };
    type Change = &'static dyn Fn(&mut ScheduleSpec);
    let cases: [(Change, &str, bool); 21] = [
        (&|_| (), "cron", false),
        (&|s| (s.cron, s.every) = (some("@daily"), some("1h")), "cron", false),
        (&|s| (s.at, s.every) = (some("2030-01-01T00:00"), some("1h")), "cron", false),
        (&|s| s.cron = some("61 * * * *"), "cron", false),
        (&|s| s.cron = some("0 0 31 2 *"), "cron", true),
        (&|s| s.cron = some("* * * * *"), "cron", false),
        (&|s| (s.cron, s.timezone) = (some("@daily"), "Mars/Base".into()), "timezone", false),
        (&|s| s.every = some("90s"), "every", false),
        (&|s| s.every = some("1m"), "every", false),
        (&|s| s.every = some("367d"), "every", false),
        (&|s| s.every = some("soon"), "every", false),
        (&|s| s.at = some("2026-02-28T00:00"), "at", true),
        (&|s| s.at = some("tomorrow"), "at", false),
        (&|s| s.at = some("2026-02-30T00:00"), "at", false),
        (&|s| (s.at, s.end) = (some("2030-01-01T00:00"), some("2031-01-01T00:00")), "end", false),
        (&|s| (s.cron, s.start) = (some("@daily"), some("x")), "start", false),
        (&|s| (s.cron, s.end) = (some("@daily"), some("2026-02-01T00:00")), "end", true),
        (&|s| (s.cron, s.end) = (some("0 0 1 1 *"), some("2026-12-31T00:00")), "end", true),
        (
            &|s| {
                s.every = some("1h");
                (s.start, s.end) = (some("2027-01-01T00:00"), some("2026-06-01T00:00"));
            },
            "end",
            true,
        ),
        (&|s| (s.cron, s.jitter) = (some("@daily"), some("25h")), "jitter", false),
        (&|s| (s.cron, s.end) = (some("@daily"), some("99999-01-01T00:00")), "end", false),
    ];
    for (number, (change, field, never)) in cases.into_iter().enumerate() {
        let (found, found_never, problem) = refused(change);
        assert_eq!((found, found_never), (field, never), "case {number}: {problem}");
    }
}

#[test]
fn a_preview_says_what_the_clocks_do() {
    let shown = |at: &str| face(Tz::Europe__Berlin, utc(at));
    let forward = shown("2026-03-29T01:00:00Z");
    assert_eq!(
        (forward.local.as_str(), forward.abbreviation.as_str()),
        ("2026-03-29T03:00:00+02:00", "CEST")
    );
    assert_eq!(forward.note.as_deref(), Some("clocks go forward 1h"));
    assert_eq!(shown("2026-10-25T00:30:00Z").note.as_deref(), Some("first of two"));
    assert_eq!(shown("2026-10-25T01:00:00Z").note.as_deref(), Some("clocks go back 1h"));
    assert_eq!(shown("2026-10-25T01:30:00Z").note.as_deref(), Some("second of two"));
    assert_eq!(shown("2026-10-25T02:30:00Z").note, None);
    let half = face(Tz::Australia__Lord_Howe, utc("2026-10-03T15:30:00Z"));
    assert_eq!(half.note.as_deref(), Some("clocks go forward 30m"));
}

proptest! {
    #[test]
    fn jitter_keeps_its_window_and_the_order_and_is_the_same_for_everybody(
        schedule: u128, other: u128, seconds in 1_700_000_000i64..2_000_000_000, window in 1i64..86_400, minutes in 1i64..600,
    ) {
        let jittered = |zone: &str| timing(|s| {
            s.every = Some(format!("{minutes}m"));
            s.jitter = Some(format!("{window}s"));
            s.timezone = zone.into();
        });
        let (timing, elsewhere) = (jittered("UTC"), jittered("Asia/Tehran"));
        let due = timing.next_after(Utc.timestamp_opt(seconds, 0).unwrap()).unwrap();
        let next = timing.next_after(due).unwrap();
        let rings = timing.rings_at(schedule, due);
        prop_assert!(due <= rings && rings < due + TimeDelta::seconds(window) && rings < next);
        prop_assert!(rings < timing.rings_at(schedule, next));
        prop_assert_eq!(rings, elsewhere.rings_at(schedule, due));
        prop_assert!(timing.rings_at(other, due) < next);
    }

    #[test]
    fn intervals_are_even_and_hit_their_anchor(
        created in 1_700_000_000i64..1_900_000_000, nanos in 0u32..1_000_000_000, after in 1_600_000_000i64..2_000_000_000,
        after_nanos in 0u32..1_000_000_000, minutes in 1i64..100_000,
    ) {
        let created = Utc.timestamp_opt(created, nanos).unwrap();
        let after = Utc.timestamp_opt(after, after_nanos).unwrap();
        let timing = Timing::of(&spec(|s| s.every = Some(format!("{minutes}m"))), created).unwrap();
        let next = timing.next_after(after).unwrap();
        prop_assert!(next > after);
        let since = next - Utc.timestamp_opt(created.timestamp(), 0).unwrap();
        prop_assert!(since.num_seconds() > 0 && since.num_seconds() % (minutes * 60) == 0);
        let before = next - TimeDelta::minutes(minutes);
        prop_assert!(before <= after || before <= created);
    }

    #[test]
    fn no_text_breaks_a_timing(every in "\\PC{0,12}", at in "[-0-9T:Z+. ]{0,25}", start in "\\PC{0,20}") {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let spec = spec(|s| (s.every, s.at, s.start) = (text(every), text(at), text(start)));
        if let Ok(timing) = Timing::of(&spec, now()) {
            let _ = timing.check(now(), Limits::default());
        }
    }
}
