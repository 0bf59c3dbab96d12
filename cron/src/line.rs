//! Cron lines: five fields against the face of a zone's clock. croner reads the fields and knows which days they
//! mean; which instants those are on days when clocks change is decided here, for all lines alike.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::zone::{Meaning, meaning};
use crate::{CronError, Tz, grammar};

const MINUTES_A_DAY: usize = 24 * 60;
/// Days that are looked through for the next one that matches. 28 years hold every pairing of leap year and first
/// weekday, 40 do so across a century that is no leap year.
const DAYS_AHEAD: usize = 41 * 366;
/// Clocks that go back repeat at most so much.
const LONGEST_REPEAT: TimeDelta = TimeDelta::hours(3);

/// A cron line of five fields (minute, hour, day of month, month, day of week) that fires at least once in
/// a calendar cycle. `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` are understood too.
#[derive(Clone)]
pub struct CronLine {
    text: Box<str>,
    cron: Cron,
    /// Minutes of the day at which it fires, in order.
    minutes: Box<[u16]>,
    /// Whether it names every hour or every nth, and so follows elapsed time where clocks change.
    goes_on: bool,
}

impl CronLine {
    /// The line as it was written, with single spaces.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first instant after `after` at which the line fires in the zone.
    ///
    /// A line with hours of its own (`30 2`, `0 9-17`, `*/5 2`) fires at each of its readings of the clock once a day:
    /// readings that the clocks skip fire once together, at the first instant after the gap; readings that come twice
    /// fire the first time. A line for every hour or every nth (`*`, `*/n`) fires whenever the clock shows a reading:
    /// in both halves of a repeated hour, and not for one that is skipped.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let shown = after.with_timezone(&zone).naive_local();
        let reading = self.reading_after(shown)?;
        // A reading that stands for one instant comes after one that does; all else is near a change of the clocks.
        if let (Some(Meaning::Once(_)), Some(Meaning::Once(at))) =
            (meaning(zone, shown), meaning(zone, reading))
        {
            return Some(at);
        }
        self.next_near_a_change(after, shown, zone)
    }

    fn next_near_a_change(
        &self,
        after: DateTime<Utc>,
        shown: NaiveDateTime,
        zone: Tz,
    ) -> Option<DateTime<Utc>> {
        let mut best: Option<(DateTime<Utc>, NaiveDateTime)> = None;
        let mut reading = shown.checked_sub_signed(LONGEST_REPEAT)?;
        loop {
            reading = self.reading_after(reading)?;
            if best.is_some_and(|(_, last)| reading > last) {
                return best.map(|(at, _)| at);
            }
            let meaning = meaning(zone, reading)?;
            let first = self.instants(meaning).into_iter().flatten().find(|at| *at > after);
            if let Meaning::Skipped(gap_end) = meaning {
                // All readings in the gap mean the same: one step over them.
                let shown = gap_end.with_timezone(&zone).naive_local();
                reading = reading.max(shown.checked_sub_signed(TimeDelta::minutes(1))?);
            }
            if let Some(at) = first {
                // What the clock shows later than that cannot come before it.
                let last = best.map_or(reading + LONGEST_REPEAT, |(_, last)| last);
                best = Some((best.map_or(at, |(known, _)| known.min(at)), last));
            }
        }
    }

    /// The instants at which a reading of this line fires, in order.
    fn instants(&self, meaning: Meaning) -> [Option<DateTime<Utc>>; 2] {
        match meaning {
            Meaning::Once(at) => [Some(at), None],
            Meaning::Twice(first, second) => [Some(first), self.goes_on.then_some(second)],
            Meaning::Skipped(gap_end) => [(!self.goes_on).then_some(gap_end), None],
        }
    }

    /// The line's first reading of the clock that is later than this one.
    fn reading_after(&self, shown: NaiveDateTime) -> Option<NaiveDateTime> {
        let minute = (shown.hour() * 60 + shown.minute()) as u16;
        let later = self.minutes.partition_point(|m| *m <= minute);
        let today = self.minutes.get(later).filter(|_| self.day_matches(shown.date()));
        if let Some(minute) = today {
            return at_minute(shown.date(), *minute);
        }
        let day = shown.date().succ_opt()?.iter_days().take(DAYS_AHEAD).find(|day| self.day_matches(*day))?;
        at_minute(day, *self.minutes.first()?)
    }

    fn day_matches(&self, day: NaiveDate) -> bool {
        let weekday = croner::Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
        let pattern = &self.cron.pattern;
        pattern.month_match(day.month()).unwrap_or(false)
            && pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
    }

    /// All instants after `after`, in order.
    pub fn iter_after(&self, after: DateTime<Utc>, zone: Tz) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next_after(after, zone), move |last| self.next_after(*last, zone))
    }

    /// The shortest time between two readings of the clock at which the line fires, on days when no clock changes.
    pub fn shortest(&self) -> TimeDelta {
        let minutes = &self.minutes;
        let within = minutes.windows(2).map(|pair| pair[1] - pair[0]).min();
        let over_midnight = (MINUTES_A_DAY as u16 + minutes[0]) - minutes[minutes.len() - 1];
        let over_midnight = (within.is_none_or(|w| over_midnight < w) && self.two_days_running())
            .then_some(over_midnight)
            .or(within);
        TimeDelta::minutes(over_midnight.map_or(2 * MINUTES_A_DAY as i64, i64::from))
    }

    fn two_days_running(&self) -> bool {
        let days = every_kind_of_day().map(|day| self.day_matches(day));
        let mut before = false;
        for matches in days {
            if before && matches {
                return true;
            }
            before = matches;
        }
        false
    }
}

fn at_minute(day: NaiveDate, minute: u16) -> Option<NaiveDateTime> {
    NaiveTime::from_num_seconds_from_midnight_opt(u32::from(minute) * 60, 0).map(|time| day.and_time(time))
}

/// 28 years without a skipped leap year hold every pairing of leap year and first weekday, so what does not match there
/// matches nowhere; going through them takes microseconds.
fn every_kind_of_day() -> impl Iterator<Item = NaiveDate> {
    let first = NaiveDate::from_ymd_opt(2001, 1, 1);
    first.into_iter().flat_map(|first| first.iter_days().take_while(|day| day.year() < 2029))
}

impl FromStr for CronLine {
    type Err = CronError;
    fn from_str(given: &str) -> Result<Self, CronError> {
        let shown = || given.chars().take(80).collect::<String>();
        let malformed = |problem: String| CronError::Malformed { given: shown(), problem };
        let text = grammar::normalise(given).map_err(malformed)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&text).map_err(|e| malformed(e.to_string()))?;
        let pattern = &cron.pattern;
        let hours = (0u16..24).filter(|hour| pattern.hour_match((*hour).into()).unwrap_or(false));
        let of_hour: Vec<u16> =
            (0u16..60).filter(|minute| pattern.minute_match((*minute).into()).unwrap_or(false)).collect();
        let minutes: Box<[u16]> =
            hours.flat_map(|hour| of_hour.iter().map(move |minute| hour * 60 + minute)).collect();
        let hours = text.split(' ').nth(1);
        let goes_on = hours.map_or(&*text == "@hourly", |hours| hours.contains('*'));
        let line = Self { text: text.into(), cron, minutes, goes_on };
        if line.minutes.is_empty() || !every_kind_of_day().any(|day| line.day_matches(day)) {
            return Err(CronError::NeverFires(shown()));
        }
        Ok(line)
    }
}
impl PartialEq for CronLine {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for CronLine {}
impl fmt::Display for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
