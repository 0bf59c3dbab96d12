//! Days on which clocks change, minute by minute, against a second opinion that knows no calendar arithmetic: it goes
//! over all minutes of time and looks at the clock.

use std::collections::BTreeSet;

use chrono::{NaiveDateTime, Timelike};

use super::*;

/// Zones with changes of an hour and of half of one, at night, at midnight and over the date line, in both
/// hemispheres, in Ramadan, with odd offsets, and none at all.
pub(super) const ZONES: [Tz; 13] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::Europe__London,
    Tz::America__New_York,
    Tz::America__Sao_Paulo,
    Tz::America__Santiago,
    Tz::America__St_Johns,
    Tz::Australia__Lord_Howe,
    Tz::Africa__Casablanca,
    Tz::Asia__Tehran,
    Tz::Asia__Kolkata,
    Tz::Pacific__Apia,
    Tz::Pacific__Chatham,
];

const FACES: [&str; 12] = [
    "* * * * *",
    "*/20 * * * *",
    "30 2 * * *",
    "0 0 * * *",
    "15 0,1,2,3 * * *",
    "*/15 2 * * *",
    "0 */2 * * *",
    "45 23 * * *",
    "0 1-4 * * SUN",
    "10,50 1 * * *",
    "@hourly",
    "30 0 L * *",
];

fn reading(zone: Tz, at: DateTime<Utc>) -> NaiveDateTime {
    at.with_timezone(&zone).naive_local()
}

/// Minutes before which the zone's clock jumps, in these years. Found by looking at every quarter of an hour.
fn changes(zone: Tz, years: std::ops::Range<i32>) -> Vec<DateTime<Utc>> {
    let start = Utc.with_ymd_and_hms(years.start, 1, 1, 0, 0, 0).unwrap();
    let end = Utc.with_ymd_and_hms(years.end, 1, 1, 0, 0, 0).unwrap();
    let quarter = TimeDelta::minutes(15);
    let jumps = |at: &DateTime<Utc>| reading(zone, *at) - reading(zone, *at - quarter) != quarter;
    std::iter::successors(Some(start), |at| Some(*at + quarter).filter(|at| *at < end))
        .filter(jumps)
        .collect()
}

/// Whether a line means this reading of the clock: two questions that hold no arithmetic, asked of UTC, where
/// nothing ever changes.
fn means(line: &CronLine, reading: NaiveDateTime) -> bool {
    let minute = reading.with_second(0).unwrap().and_utc();
    line.next_after(minute - TimeDelta::seconds(1), Tz::UTC) == Some(minute)
}

/// Every instant at which a line fires between two instants, by looking at each minute.
fn by_looking(line: &CronLine, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let goes_on = line.as_str().split(' ').nth(1).is_none_or(|hours| hours.contains('*'));
    let minute = TimeDelta::minutes(1);
    let mut seen = BTreeSet::new();
    let mut fires = Vec::new();
    // From two days before, so that it is known which readings came already.
    let mut at = from - TimeDelta::days(2);
    let mut before = reading(zone, at - minute);
    while at <= to {
        let shown = reading(zone, at);
        let mut skipped = before + minute;
        let mut any_skipped = false;
        while skipped < shown {
            any_skipped |= means(line, skipped);
            skipped += minute;
        }
        let fresh = seen.insert(shown);
        let fire = (means(line, shown) && (goes_on || fresh)) || (any_skipped && !goes_on);
        if fire && at > from {
            fires.push(at);
        }
        before = shown;
        at += minute;
    }
    fires
}

#[test]
fn around_every_change_of_the_clocks_both_opinions_agree() {
    let mut looked_at = 0;
    for zone in ZONES {
        // Samoa's lost day, Tehran's and São Paulo's last changes at midnight, and what is in force.
        let mut all = changes(zone, 2025..2028);
        all.extend(changes(zone, 2011..2012).into_iter().filter(|_| zone == Tz::Pacific__Apia));
        all.extend(
            changes(zone, 2018..2019).into_iter().filter(|_| {
                matches!(zone, Tz::Asia__Tehran | Tz::America__Sao_Paulo | Tz::America__Santiago)
            }),
        );
        for change in all {
            looked_at += 1;
            let (from, to) = (change - TimeDelta::hours(5), change + TimeDelta::hours(30));
            for text in FACES {
                let line = line(text);
                let computed: Vec<_> = line.iter_after(from, zone).take_while(|at| *at <= to).collect();
                assert_eq!(
                    computed,
                    by_looking(&line, zone, from, to),
                    "{text} in {zone}, change before {change}"
                );
            }
        }
    }
    assert!(looked_at > 50, "{looked_at} changes are not all of them");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// From any instant, not only from one that fires: a gateway that was down, or a clock that jumped.
    #[test]
    fn from_any_instant_the_next_one_is_the_first_that_is_later(
        zone in 0..ZONES.len(), face in 0..FACES.len(), change in 0usize..1_000, off in -18_000i64..18_000,
    ) {
        let (zone, line) = (ZONES[zone], line(FACES[face]));
        let all = changes(zone, 2026..2027);
        let near = all.get(change % all.len().max(1)).copied().unwrap_or(utc("2026-06-01T00:00:00Z"));
        let after = near + TimeDelta::seconds(off);
        let whole = after - TimeDelta::seconds(off.rem_euclid(60));
        let next = line.next_after(after, zone).unwrap();
        if next - after < TimeDelta::hours(40) {
            let looked = by_looking(&line, zone, whole - TimeDelta::minutes(1), next);
            prop_assert_eq!(looked.into_iter().find(|at| *at > after), Some(next));
        }
    }
}
