//! Lines that must be refused, days on which clocks change, and properties over all of them.

mod clocks;
mod timings;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use proptest::prelude::*;

use super::*;

fn line(text: &str) -> CronLine {
    text.parse().unwrap()
}
fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}
fn first(line: &CronLine, after: DateTime<Utc>, zone: Tz, count: usize) -> Vec<DateTime<Utc>> {
    line.iter_after(after, zone).take(count).collect()
}

#[test]
fn lines_with_a_meaning_are_taken() {
    for good in [
        "* * * * *",
        "*/5 * * * *",
        "0 3 * * MON-FRI",
        "0 0 29 2 *",
        "0 0 L * *",
        "15,45 8-18/2 1 jan,JUL ?",
        "0 9 * * 5#2",
        "0 9 LW * *",
        "0 9 15W * *",
        "@daily",
        " 0  0 * * * ",
        "0 0 29 2 +MON",
        "0 9 * * FRIL",
    ] {
        assert!(good.parse::<CronLine>().is_ok(), "{good}: {:?}", good.parse::<CronLine>());
    }
}

#[test]
fn bad_lines_are_refused() {
    for bad in [
        "",
        " ",
        "* * * *",
        "* * * * * *",
        "0 * * * * * *",
        "60 * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "99999999999 * * * *",
        "\u{feff}* * * * *",
        "* * * * *\n",
        "* *\t* * *",
        "1MON * * * *",
        "* * * JANFEB *",
        "* * * * \u{17f}un",
        "* * 32 * *",
        "* 24 * * *",
        "* * * 13 *",
        "* * * * 8",
        "@reboot",
        "@every 5s",
        "-1 * * * *",
        "* * * * MON#6",
        "a b c d e",
        "; rm -rf / *",
        &"*".repeat(300),
    ] {
        assert!(matches!(bad.parse::<CronLine>(), Err(CronError::Malformed { .. })), "{bad:?}");
    }
}

#[test]
fn a_line_that_never_fires_is_refused_at_once() {
    let start = std::time::Instant::now();
    for bad in ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30 2 +MON"] {
        assert!(matches!(bad.parse::<CronLine>(), Err(CronError::NeverFires(_))), "{bad}");
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(1), "took {:?}", start.elapsed());
}

#[test]
fn a_skipped_wall_clock_time_fires_once_after_the_gap() {
    let fires = first(&line("30 2 * * *"), utc("2026-03-28T12:00:00Z"), Tz::Europe__Berlin, 2);
    assert_eq!(fires, [utc("2026-03-29T01:00:00Z"), utc("2026-03-30T00:30:00Z")]);
}

#[test]
fn a_repeated_wall_clock_time_fires_once() {
    let fires = first(&line("30 1 * * *"), utc("2026-10-31T12:00:00Z"), Tz::America__New_York, 2);
    assert_eq!(fires, [utc("2026-11-01T05:30:00Z"), utc("2026-11-02T06:30:00Z")]);
}

#[test]
fn every_hour_goes_on_through_a_repeated_hour() {
    let fires = first(&line("0 * * * *"), utc("2026-10-24T23:30:00Z"), Tz::Europe__Berlin, 3);
    assert_eq!(
        fires,
        [utc("2026-10-25T00:00:00Z"), utc("2026-10-25T01:00:00Z"), utc("2026-10-25T02:00:00Z")]
    );
}

#[test]
fn several_readings_of_a_day_are_not_lost_where_the_clocks_skip_them() {
    // 02:00 does not exist on this day, nor do 02:00 and 02:30.
    let fires = first(&line("0 2,14 * * *"), utc("2026-03-28T23:00:00Z"), Tz::Europe__Berlin, 2);
    assert_eq!(fires, [utc("2026-03-29T01:00:00Z"), utc("2026-03-29T12:00:00Z")]);
    let fires = first(&line("0,30 2 * * *"), utc("2026-03-28T23:00:00Z"), Tz::Europe__Berlin, 2);
    assert_eq!(fires, [utc("2026-03-29T01:00:00Z"), utc("2026-03-30T00:00:00Z")], "once for both");
    // In autumn each comes once, in the first half of the repeated hour.
    let fires = first(&line("0,30 2 * * *"), utc("2026-10-24T22:00:00Z"), Tz::Europe__Berlin, 3);
    assert_eq!(fires, ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:00:00Z"].map(utc));
}

#[test]
fn a_day_that_does_not_exist_fires_once_at_its_end() {
    // Samoa left out 30 December 2011: after 29 December 23:59 came 31 December 00:00.
    let fires = first(&line("0 9 * * *"), utc("2011-12-29T00:00:00Z"), Tz::Pacific__Apia, 3);
    assert_eq!(fires, ["2011-12-29T19:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"].map(utc));
    let hourly = first(&line("0 * * * *"), utc("2011-12-30T08:30:00Z"), Tz::Pacific__Apia, 2);
    assert_eq!(hourly, ["2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z"].map(utc));
}

#[test]
fn the_shortest_interval_of_a_line_is_known() {
    for (text, minutes) in [
        ("* * * * *", 1),
        ("*/15 * * * *", 15),
        ("0,50 * * * *", 10),
        ("0 3 * * *", 1_440),
        ("0,59 0,23 * * *", 1),
        ("0,59 0,23 1 * *", 59),
        ("0 0 1 1 *", 2_880),
        ("7 1-3,9 * * MON,WED", 60),
    ] {
        assert_eq!(line(text).shortest(), TimeDelta::minutes(minutes), "{text}");
    }
}

#[test]
fn a_rare_line_is_found_quickly() {
    let next = line("0 0 29 2 *").next_after(utc("2096-03-01T00:00:00Z"), Tz::UTC);
    assert_eq!(next, Some(utc("2104-02-29T00:00:00Z")), "2100 is no leap year");
}

#[test]
fn zones_are_iana_names_exactly() {
    for good in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
        assert!(parse_zone(good).is_ok(), "{good}");
    }
    for bad in ["", "Mars/Olympus", "../etc/localtime", "europe/berlin", "UTC\0", "CEST", &"a".repeat(10_240)]
    {
        assert!(parse_zone(bad).is_err(), "{bad:?}");
    }
}

const LINES: [&str; 9] = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "0 0 * * *",
    "15 1 * * SUN",
    "0 */3 * * *",
    "0 0 29 2 *",
    "0 9 L * *",
    "59 1-3 * 3,4,9,10,11 *",
];

proptest! {
    #[test]
    fn the_next_instant_is_later_and_on_a_whole_minute(
        seconds in 1_700_000_000i64..2_600_000_000, nanos in 0u32..1_000_000_000, zone in 0..clocks::ZONES.len(), l in 0usize..9,
    ) {
        let after = Utc.timestamp_opt(seconds, nanos).unwrap();
        let next = line(LINES[l]).next_after(after, clocks::ZONES[zone]).unwrap();
        prop_assert!(next > after);
        prop_assert_eq!(next.timestamp() % 60, 0);
    }

    #[test]
    fn nothing_is_skipped_between_two_instants(seconds in 1_700_000_000i64..2_000_000_000, zone in 0..clocks::ZONES.len(), l in 0usize..9) {
        let after = Utc.timestamp_opt(seconds, 0).unwrap();
        let line = line(LINES[l]);
        let next = line.next_after(after, clocks::ZONES[zone]).unwrap();
        let middle = after + (next - after) / 2;
        prop_assert_eq!(line.next_after(middle, clocks::ZONES[zone]), Some(next));
    }

    #[test]
    fn parsing_never_panics(text in "[-0-9*/,#LW?+A-Z @\\PC]{0,60}") {
        let _ = text.parse::<CronLine>();
        let _ = parse_zone(&text);
    }

    #[test]
    fn whatever_is_accepted_fires(fields in "[0-9*]{1,2} [0-9*]{1,2} [0-9*L]{1,2} [0-9*]{1,2} [0-7*]") {
        if let Ok(line) = fields.parse::<CronLine>() {
            prop_assert!(line.next_after(utc("2026-01-01T00:00:00Z"), Tz::UTC).is_some());
        }
    }
}
