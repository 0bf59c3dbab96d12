//! Whether calls come at regular times, and when the next one is due. Fed by [`super::History`].

use std::time::{Duration, Instant};

/// Weight of the latest interval.
const WEIGHT: f64 = 0.25;
/// Intervals alike before a rhythm is believed.
const BELIEVED: u32 = 3;
/// Mean deviation, as a share of the interval, up to which it is one.
const STEADY: f64 = 0.1;
/// An interval this far off (as a share) ends the rhythm.
const BREAK: f64 = 0.5;
/// Shorter rhythms are left to keep-alive.
const SHORTEST: f64 = 5.0;

/// Interval from start to start, with its spread. Constant size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rhythm {
    last: Option<Instant>,
    mean: f64,
    deviation: f64,
    alike: u32,
}

/// A call that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// When.
    pub at: Instant,
    /// How much earlier or later it may well come.
    pub tolerance: Duration,
}

impl Rhythm {
    /// A call came.
    pub fn note(&mut self, now: Instant) {
        let Some(last) = self.last.replace(now) else { return };
        let gap = now.saturating_duration_since(last).as_secs_f64();
        if self.alike == 0 || (gap - self.mean).abs() > BREAK * self.mean {
            (self.mean, self.deviation, self.alike) = (gap, 0.0, 1);
            return;
        }
        self.deviation += WEIGHT * ((gap - self.mean).abs() - self.deviation);
        self.mean += WEIGHT * (gap - self.mean);
        self.alike = self.alike.saturating_add(1);
    }

    /// The next call, if the last ones were regular and it is not overdue.
    pub fn next(&self, now: Instant) -> Option<Expected> {
        let steady = self.alike >= BELIEVED && self.mean >= SHORTEST && self.deviation <= STEADY * self.mean;
        if !steady {
            return None;
        }
        let at = self.last? + Duration::from_secs_f64(self.mean);
        // Four mean deviations hold about all of a bell curve.
        let tolerance = Duration::from_secs_f64((4.0 * self.deviation).max(0.5));
        (now < at + tolerance).then_some(Expected { at, tolerance })
    }
}
