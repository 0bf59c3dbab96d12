//! Which idle instances to let go, and when to have one back before it is called for.
//!
//! An idle instance is rent (memory times time) against a chance (a call that then need not wait for a cold
//! start). [`History`] remembers, in bounded space, how long a fleet's instances were idle before they were
//! needed; [`History::judge`] weighs. [`GreedyDual`] decides when memory is short, whatever the chances are.

mod greedy_dual;
mod histogram;
mod rhythm;

use std::time::{Duration, Instant};

pub use greedy_dual::{Candidate, GreedyDual, Worth};
pub use histogram::Histogram;
pub use rhythm::{Expected, Rhythm};

/// Instances of a fleet that are told apart; those above share the last one's history.
const LEVELS: usize = 64;
/// After so long what was learnt counts half.
const HALF_LIFE: Duration = Duration::from_secs(12 * 3600);
/// What a start ahead of time costs the machine, as a share of the wait that it saves.
const START_SHARE: f64 = 0.1;
/// Gaps that must have ended in a stretch before an instance is started for it.
const EVIDENCE: f64 = 3.0;
/// How much earlier than needed a start ahead of time is ready.
const LEAD: Duration = Duration::from_millis(500);
/// How late a schedule may be before it is not waited for any longer: the alarm, the queue and the claim.
const SCHEDULE_TOLERANCE: Duration = Duration::from_secs(2);

/// What idle memory has to earn: milliseconds of avoided waiting for each GiB held for a second.
///
/// The default lets 256 MiB be held for ten minutes to save one pooled cold start of 50 ms, and for a custom
/// image of 1.5 s thirty times as long. Zero keeps everything to its upper bound.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Price(pub f64);

impl Default for Price {
    fn default() -> Self {
        Self(0.33)
    }
}

/// What is weighed for one fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// What a call waits when no instance is there: milliseconds for a pooled one.
    pub cold: Duration,
    /// What an instance holds, in MiB.
    pub memory_mb: u32,
    /// What memory has to earn.
    pub price: Price,
    /// Longest idle time: the version's `keep_alive_seconds`.
    pub most: Duration,
    /// The next instant at which one of the function's schedules fires, if it has any.
    pub scheduled: Option<Instant>,
}

impl Terms {
    fn cold_ms(&self) -> f64 {
        self.cold.as_secs_f64() * 1e3
    }
    /// Cost of keeping an instance for a second, in milliseconds of waiting.
    fn rent_ms(&self) -> f64 {
        self.price.0.max(0.0) * f64::from(self.memory_mb) / 1024.0
    }
}

/// A stretch of idle time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its start.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

impl Stretch {
    fn of(from: f64, to: f64) -> Self {
        Self { from: Duration::from_secs_f64(from), to: Duration::from_secs_f64(to) }
    }
}

/// What becomes of an idle instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays; ask again then.
    Keep {
        /// When to ask again.
        until: Instant,
    },
    /// It goes.
    LetGo {
        /// When to have one again, should the fleet be empty by then and no call have come.
        return_at: Option<Return>,
    },
}

/// A start ahead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// When to start.
    pub at: Instant,
    /// Until when to hold it.
    pub until: Instant,
}

/// What one fleet's use has been: idle times for each number of instances, and whether calls are regular.
///
/// The level-k gap is the time since k instances last worked at once. It does not depend on what was kept, so
/// the history is the same whichever policy made it, and a dropped instance goes on teaching.
#[derive(Debug, Clone, Default)]
pub struct History {
    levels: Vec<Level>,
    /// Instances that work now.
    busy: usize,
    rhythm: Rhythm,
    faded: Option<Instant>,
    /// Calls, weighted towards the latest.
    calls: f64,
}

#[derive(Debug, Clone, Default)]
struct Level {
    left: Option<Instant>,
    gaps: Histogram,
}

impl History {
    /// The number of instances that work is now `busy`. To be told at every change.
    pub fn working(&mut self, busy: usize, now: Instant) {
        self.fade(now);
        if self.busy == 0 && busy > 0 {
            self.rhythm.note(now);
        }
        if busy > self.busy {
            self.calls += 1.0;
        }
        for k in self.busy..busy.min(LEVELS) {
            if self.levels.len() <= k {
                self.levels.push(Level::default());
            }
            if let Some(left) = self.levels[k].left.take() {
                self.levels[k].gaps.note(now.saturating_duration_since(left));
            }
        }
        for level in self.levels.iter_mut().take(self.busy).skip(busy) {
            level.left = Some(now);
        }
        self.busy = busy;
    }

    /// Calls lately, for [`Worth::calls`].
    pub fn calls(&self) -> f64 {
        self.calls
    }

    fn fade(&mut self, now: Instant) {
        let since = *self.faded.get_or_insert(now);
        if now.saturating_duration_since(since) >= HALF_LIFE {
            self.faded = Some(now);
            self.calls *= 0.5;
            self.levels.iter_mut().for_each(|l| l.gaps.fade());
        }
    }

    /// What becomes of the idle instance that would be the `level`-th to work (1 is the next to get a call),
    /// and has been idle since `idle_since`.
    pub fn judge(&self, level: usize, idle_since: Instant, now: Instant, terms: &Terms) -> Verdict {
        let end = idle_since + terms.most;
        if now >= end {
            return Verdict::LetGo { return_at: self.come_back(level, now, terms) };
        }
        if level == 1
            && let Some(expected) = self.expected(now, terms)
            && (self.rhythm.next(now).is_some() || self.levels.is_empty())
        {
            return wait_or_return(expected, end, now, terms);
        }
        let known = self.levels.get(level.clamp(1, LEVELS) - 1);
        let left = known.and_then(|l| l.left).unwrap_or(idle_since).min(now);
        let age = now.saturating_duration_since(left);
        let kept = match known {
            Some(level) => level.gaps.keep_until(age, terms),
            None => Histogram::default().keep_until(age, terms),
        };
        match kept.map(|until| left + until).filter(|until| *until > now) {
            Some(until) => Verdict::Keep { until: until.min(end) },
            None => Verdict::LetGo { return_at: self.come_back(level, now, terms) },
        }
    }

    /// The next call that is known of, or likely because they are regular.
    fn expected(&self, now: Instant, terms: &Terms) -> Option<Expected> {
        let scheduled = terms.scheduled.filter(|at| now < *at + SCHEDULE_TOLERANCE);
        let scheduled = scheduled.map(|at| Expected { at, tolerance: SCHEDULE_TOLERANCE });
        match (scheduled, self.rhythm.next(now)) {
            (Some(a), Some(b)) if b.at + b.tolerance < a.at => Some(b),
            (Some(a), _) => Some(a),
            (None, b) => b,
        }
    }

    fn come_back(&self, level: usize, now: Instant, terms: &Terms) -> Option<Return> {
        if level != 1 {
            return None;
        }
        if let Some(expected) = self.expected(now, terms) {
            return match wait_or_return(expected, now, now, terms) {
                Verdict::LetGo { return_at } => return_at,
                Verdict::Keep { .. } => None,
            };
        }
        let level = self.levels.first()?;
        let left = level.left?;
        let stretch = level.gaps.return_in(now.saturating_duration_since(left), terms)?;
        let at = (left + stretch.from).checked_sub(terms.cold + LEAD).unwrap_or(now).max(now);
        Some(Return { at, until: left + stretch.to })
    }
}

/// For a call whose time is about known: to wait for it, to go and come back, or neither.
fn wait_or_return(expected: Expected, end: Instant, now: Instant, terms: &Terms) -> Verdict {
    let until = expected.at + expected.tolerance;
    let early = expected.tolerance + terms.cold + LEAD;
    let at = expected.at.checked_sub(early).unwrap_or(now).max(now);
    let rent = |time: Duration| terms.rent_ms() * time.as_secs_f64();
    let wait = rent(expected.at.saturating_duration_since(now));
    let back = rent(early) + terms.cold_ms() * START_SHARE;
    let worth = terms.cold_ms();
    if wait < worth && wait <= back && until <= end {
        Verdict::Keep { until }
    } else if back < worth && early + expected.tolerance <= terms.most {
        Verdict::LetGo { return_at: Some(Return { at, until }) }
    } else {
        Verdict::LetGo { return_at: None }
    }
}

#[cfg(test)]
mod tests;
