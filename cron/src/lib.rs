//! Cron lines: what is accepted, and when they fire next. Pure; the controller validates with it and the
//! gateway's alarm computes with it, so a line that was accepted is a line that fires as it was previewed.

mod grammar;

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, SubsecRound, TimeDelta, Utc};
pub use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// Why a cron line or time zone was refused; the text is fit for a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five well-formed fields.
    #[error("cron line {given:?}: {problem}")]
    Malformed {
        /// What was given, cut to 80 characters.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Well-formed, but no date matches it.
    #[error("cron line {0:?} never fires: no date of the calendar matches its day and month fields")]
    NeverFires(String),
    /// Not a name of the IANA time zone database.
    #[error("time zone {0:?} is not known: use an IANA name such as Europe/Berlin or UTC")]
    UnknownZone(String),
}

/// A cron line of five fields (minute, hour, day of month, month, day of week) that fires at least once in
/// a calendar cycle. `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` are understood too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CronLine {
    text: Box<str>,
    cron: Cron,
}

impl CronLine {
    /// The line as it was written, with single spaces.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first instant after `after` at which the line fires in the zone.
    ///
    /// A wall clock time that spring skips fires once, at the first instant after the gap; one that autumn
    /// repeats fires once. Lines with `*` or `*/n` hours go on through both halves of a repeated hour.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let mut from = after.trunc_subsecs(0);
        // croner answers relative to the wall clock; should a zone's change ever bring it back to an
        // instant that is not after ours, look again a little later instead of firing twice.
        for _ in 0..4 {
            let next =
                self.cron.find_next_occurrence(&from.with_timezone(&zone), false).ok()?.with_timezone(&Utc);
            if next > after {
                return Some(next);
            }
            from = from.max(next).checked_add_signed(TimeDelta::minutes(1))?;
        }
        None
    }

    /// All instants after `after`, in order.
    pub fn iter_after(&self, after: DateTime<Utc>, zone: Tz) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next_after(after, zone), move |last| self.next_after(*last, zone))
    }

    /// The next `count` instants, to show to a person.
    pub fn preview(&self, after: DateTime<Utc>, zone: Tz, count: usize) -> Vec<DateTime<Utc>> {
        self.iter_after(after, zone).take(count).collect()
    }

    /// Whether any date matches. 28 years without a skipped leap year hold every pairing of leap year and
    /// first weekday, so what does not match there matches nowhere; that takes microseconds, where a search
    /// for the next instant would go on for thousands of years.
    fn ever_fires(cron: &Cron) -> bool {
        let first = chrono::NaiveDate::from_ymd_opt(2001, 1, 1);
        first.is_some_and(|first| {
            first.iter_days().take_while(|day| day.year() < 2029).any(|day| {
                let weekday = croner::Weekday::from_days_from_sunday(day.weekday().num_days_from_sunday());
                cron.pattern.month_match(day.month()).unwrap_or(false)
                    && cron.pattern.day_match(day.year(), day.month(), day.day(), weekday).unwrap_or(false)
            })
        })
    }
}

impl FromStr for CronLine {
    type Err = CronError;
    fn from_str(given: &str) -> Result<Self, CronError> {
        let shown = || given.chars().take(80).collect::<String>();
        let malformed = |problem: String| CronError::Malformed { given: shown(), problem };
        let text = grammar::normalise(given).map_err(malformed)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&text).map_err(|e| malformed(e.to_string()))?;
        if !Self::ever_fires(&cron) {
            return Err(CronError::NeverFires(shown()));
        }
        Ok(Self { text: text.into(), cron })
    }
}
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

/// Finds a time zone by its IANA name, exactly as written there.
pub fn parse_zone(name: &str) -> Result<Tz, CronError> {
    let unknown = || CronError::UnknownZone(name.chars().take(80).collect());
    if name.len() > 64 { Err(unknown()) } else { name.parse().map_err(|_| unknown()) }
}

#[cfg(test)]
mod tests;
