//! Time zones: the clock's face and the instants behind it. A face may stand for one instant, for two when clocks
//! go back, and for none when they go forward.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{OffsetComponents, OffsetName, Tz};

use crate::CronError;

/// A gap is walked over in minutes; none was ever longer than a day (Samoa, 30 December 2011).
const LONGEST_GAP_MINUTES: i64 = 25 * 60;

/// Finds a time zone by its IANA name, exactly as written there.
pub fn parse_zone(name: &str) -> Result<Tz, CronError> {
    let unknown = || CronError::UnknownZone(name.chars().take(80).collect());
    if name.len() > 64 { Err(unknown()) } else { name.parse().map_err(|_| unknown()) }
}

/// What a reading of the clock's face stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// One instant.
    Once(DateTime<Utc>),
    /// Two: before and after the clocks went back.
    Twice(DateTime<Utc>, DateTime<Utc>),
    /// None; the clocks go on at this instant.
    Skipped(DateTime<Utc>),
}

impl Meaning {
    /// The one instant that a single reading is taken for: the first of two, or the first after a gap.
    pub(crate) fn instant(self) -> DateTime<Utc> {
        match self {
            Self::Once(at) | Self::Twice(at, _) | Self::Skipped(at) => at,
        }
    }
}

/// Looks a reading up. None only at the ends of the calendar.
pub(crate) fn meaning(zone: Tz, reading: NaiveDateTime) -> Option<Meaning> {
    let resolve = |reading: NaiveDateTime| zone.from_local_datetime(&reading);
    match resolve(reading) {
        MappedLocalTime::Single(at) => Some(Meaning::Once(at.to_utc())),
        MappedLocalTime::Ambiguous(first, second) => {
            Some(Meaning::Twice(first.to_utc().min(second.to_utc()), second.to_utc().max(first.to_utc())))
        }
        MappedLocalTime::None => (1..=LONGEST_GAP_MINUTES).find_map(|minutes| {
            let later = reading.checked_add_signed(TimeDelta::minutes(minutes))?;
            resolve(later).earliest().map(|at| Meaning::Skipped(at.to_utc()))
        }),
    }
}

/// An instant as the zone's clock shows it, with what is special about that day's clock. For previews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// Local date and time with the offset from UTC, such as `2026-03-29T03:00:00+02:00`.
    pub local: String,
    /// The zone's abbreviation at that instant, such as `CEST`.
    pub abbreviation: String,
    /// What the clocks do around it, where they do something.
    pub note: Option<String>,
}

/// Shows an instant on the zone's clock.
pub fn face(zone: Tz, at: DateTime<Utc>) -> Face {
    let local = at.with_timezone(&zone);
    let offset = |at: DateTime<Utc>| {
        let offset = zone.offset_from_utc_datetime(&at.naive_utc());
        offset.base_utc_offset() + offset.dst_offset()
    };
    // Whole minutes: a change is at one, and the minute before it has the offset from before.
    let step = offset(at) - offset(at - TimeDelta::minutes(1));
    let note = if step > TimeDelta::zero() {
        Some(format!("clocks go forward {}", crate::length::show(step)))
    } else if step < TimeDelta::zero() {
        Some(format!("clocks go back {}", crate::length::show(-step)))
    } else {
        match meaning(zone, local.naive_local()) {
            Some(Meaning::Twice(first, _)) if first == at => Some("first of two".into()),
            Some(Meaning::Twice(..)) => Some("second of two".into()),
            _ => None,
        }
    };
    Face {
        local: local.to_rfc3339_opts(chrono::SecondsFormat::Secs, false),
        abbreviation: local.offset().abbreviation().unwrap_or_default().to_owned(),
        note,
    }
}

/// Reads a moment: with an offset from UTC, or by the zone's clock. A reading that the clocks skip is the first
/// instant after it, one that they show twice is the first.
pub(crate) fn parse_moment(text: &str, zone: Tz) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return within_reason(at.to_utc());
    }
    let readings = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"];
    let reading = readings.iter().find_map(|form| NaiveDateTime::parse_from_str(text, form).ok());
    // RFC 3339 wants seconds; people leave them out with an offset, too.
    let short = || DateTime::parse_from_str(&text.replace('Z', "+00:00"), "%Y-%m-%dT%H:%M%:z").ok();
    match (reading, reading.is_none().then(short).flatten()) {
        (Some(reading), _) => {
            let found = meaning(zone, reading).ok_or("is out of the calendar's range")?;
            within_reason(found.instant())
        }
        (None, Some(at)) => within_reason(at.to_utc()),
        (None, None) => {
            let shown: String = text.chars().take(40).collect();
            Err(format!(
                "{shown:?} is not a moment: write 2026-12-24T18:00 (by the time zone's clock) or 2026-12-24T18:00:00+01:00"
            ))
        }
    }
}

/// Years that the database and every client can hold.
fn within_reason(at: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    use chrono::Datelike;
    if (1970..=9_000).contains(&at.year()) { Ok(at) } else { Err("the year must be 1970 to 9000".into()) }
}
