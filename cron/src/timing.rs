//! A schedule's settings as instants: a cron line, a steady interval or one moment, between a start and an end, with
//! a shift that spreads what would otherwise come due all at once.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use davit_api::ScheduleSpec;

use crate::length::{parse_length, show};
use crate::zone::parse_moment;
use crate::{CronLine, TimingError, Tz, parse_zone};

/// Longest interval of `every`: a year.
const LONGEST_EVERY: TimeDelta = TimeDelta::days(366);
/// Widest window of `jitter`: a day.
const WIDEST_JITTER: TimeDelta = TimeDelta::days(1);

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No schedule may come due more often than once in this time.
    pub least_interval: TimeDelta,
}

impl Default for Limits {
    /// Once a minute: cron lines have no finer grain.
    fn default() -> Self {
        Self { least_interval: TimeDelta::minutes(1) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pace {
    Line(Box<CronLine>),
    /// Every `interval` from `anchor`; `inclusive` when the anchor itself is an instant.
    Every {
        anchor: DateTime<Utc>,
        interval: TimeDelta,
        inclusive: bool,
    },
    Once(DateTime<Utc>),
}

/// When a schedule comes due. Two that were made from the same settings agree on every instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    pace: Pace,
    zone: Tz,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    jitter: Option<TimeDelta>,
}

impl Timing {
    /// Reads a schedule's settings; the error names the field. `created_at` anchors an interval that has no start.
    pub fn of(spec: &ScheduleSpec, created_at: DateTime<Utc>) -> Result<Self, TimingError> {
        let zone = parse_zone(&spec.timezone)?;
        let moment = |field, text: &Option<String>| -> Result<Option<DateTime<Utc>>, TimingError> {
            let read = |text: &String| parse_moment(text, zone).map_err(|e| TimingError::malformed(field, e));
            text.as_ref().map(read).transpose()
        };
        let (start, end) = (moment("start", &spec.start)?, moment("end", &spec.end)?);
        let pace = match (&spec.cron, &spec.every, &spec.at) {
            (Some(line), None, None) => Pace::Line(Box::new(line.parse()?)),
            (None, Some(every), None) => Pace::Every {
                anchor: start.unwrap_or_else(|| created_at.trunc_subsecs(0)),
                interval: parse_length(every).map_err(|e| TimingError::malformed("every", e))?,
                inclusive: start.is_some(),
            },
            (None, None, Some(_)) => Pace::Once(moment("at", &spec.at)?.unwrap_or_default()),
            _ => {
                return Err(TimingError::malformed("cron", "give exactly one of cron, every and at"));
            }
        };
        if let (Pace::Once(_), Some(field)) = (&pace, start.map(|_| "start").or_else(|| end.map(|_| "end"))) {
            return Err(TimingError::malformed(field, "means nothing with at, which comes due once"));
        }
        let jitter = spec.jitter.as_ref().map(|text| parse_length(text)).transpose();
        let jitter = jitter.map_err(|e| TimingError::malformed("jitter", e))?;
        Ok(Self { pace, zone, start, end, jitter })
    }

    /// The zone whose clock is read.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The width of the window over which instants are spread.
    pub fn jitter(&self) -> Option<TimeDelta> {
        self.jitter
    }

    /// Refuses what would come due too often, or never from now on.
    pub fn check(&self, now: DateTime<Utc>, limits: Limits) -> Result<(), TimingError> {
        let least = limits.least_interval;
        let too_often = |field, shortest: TimeDelta| {
            let (shortest, least) = (show(shortest), show(least));
            let problem =
                format!("comes due every {shortest}; the shortest interval allowed here is {least}");
            Err(TimingError::malformed(field, problem))
        };
        match &self.pace {
            Pace::Line(line) if line.shortest() < least => return too_often("cron", line.shortest()),
            Pace::Every { interval, .. } if interval.num_seconds() % 60 != 0 => {
                return Err(TimingError::malformed("every", "must be whole minutes"));
            }
            Pace::Every { interval, .. } if *interval < least => return too_often("every", *interval),
            Pace::Every { interval, .. } if *interval > LONGEST_EVERY => {
                return Err(TimingError::malformed("every", "must be at most 366d"));
            }
            Pace::Once(at) if *at <= now => {
                return Err(TimingError::never("at", "is in the past"));
            }
            _ => {}
        }
        if self.jitter.is_some_and(|jitter| jitter > WIDEST_JITTER) {
            return Err(TimingError::malformed("jitter", "must be at most 1d"));
        }
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(TimingError::never("end", "is before the start"));
        }
        if self.end.is_some_and(|end| end <= now) {
            return Err(TimingError::never("end", "is in the past"));
        }
        if self.next_after(now).is_none() {
            return Err(TimingError::never("end", "is before the first instant"));
        }
        Ok(())
    }

    /// The first instant after `after`; none when there is none any more.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = match &self.pace {
            Pace::Line(line) => {
                // An instant at the start itself counts.
                let before_start =
                    self.start.and_then(|start| start.checked_sub_signed(TimeDelta::seconds(1)));
                line.next_after(before_start.map_or(after, |start| after.max(start)), self.zone)?
            }
            Pace::Every { anchor, interval, inclusive } => {
                let (step, first) = (interval.num_seconds().max(1), i64::from(!inclusive));
                let passed = (after - *anchor).num_seconds().div_euclid(step);
                // Whole seconds of a negative time are cut towards zero, so the first guess may be one too early.
                let nth = |n: i64| anchor.checked_add_signed(TimeDelta::try_seconds(n.checked_mul(step)?)?);
                (passed..=passed + 2)
                    .filter(|n| *n >= first)
                    .find_map(|n| nth(n).filter(|at| *at > after))
                    .or_else(|| nth(first).filter(|at| *at > after))?
            }
            Pace::Once(at) => Some(*at).filter(|at| *at > after)?,
        };
        Some(next).filter(|next| self.end.is_none_or(|end| *next <= end))
    }

    /// All instants after `after`, in order.
    pub fn iter_after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }

    /// When an instant rings: at the instant itself, or shifted within the jitter's window. The shift depends on the
    /// schedule and the instant alone, so that any number of gateways agree, and never passes the next instant, so
    /// that order is kept.
    pub fn rings_at(&self, schedule: u128, due: DateTime<Utc>) -> DateTime<Utc> {
        let Some(window) = self.jitter else { return due };
        let gap = self.next_after(due).map_or(window, |next| next - due);
        let window = window.min(gap).num_milliseconds().max(1).unsigned_abs();
        let shift = mix(schedule, due.timestamp()) % window;
        due + TimeDelta::milliseconds(i64::try_from(shift).unwrap_or(0))
    }
}

/// Spreads evenly and stays the same over releases and processes, which a standard hasher does not promise: the
/// finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn mix(schedule: u128, due: i64) -> u64 {
    let finish = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let high = finish((schedule >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15);
    let low = finish(high ^ schedule as u64);
    finish(low ^ due.cast_unsigned())
}
