//! Idle times of one level of one fleet: a histogram of fixed size, and the judgement that is read from it.

use std::sync::LazyLock;
use std::time::Duration;

use super::{Stretch, Terms};

/// Bins in each doubling of the idle time: 9 % resolution, at any length.
const PER_OCTAVE: usize = 8;
/// From one second to 2^16 s (18 hours); shorter gaps are never worth a decision, longer ones never worth a
/// wait.
const BINS: usize = 16 * PER_OCTAVE;
/// Weight, in observed gaps, of what is assumed before anything is known: each doubling of the idle time
/// equally likely, which is a chance of a call that falls with the time already idle, as the Azure trace shows.
const PRIOR: f64 = 2.0;
/// Share of the prior for "never again".
const PRIOR_NEVER: f64 = 0.4;

static EDGES: LazyLock<[f64; BINS + 1]> =
    LazyLock::new(|| std::array::from_fn(|i| (i as f64 / PER_OCTAVE as f64).exp2()));

/// Counts of idle times. About half a KiB, whatever happens.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[f32; BINS]>,
    beyond: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0.0; BINS]), beyond: 0.0 }
    }
}

/// A part of the idle time with what keeping an instance through it gains (in ms of avoided waiting, per gap).
struct Piece {
    from: f64,
    to: f64,
    gain: f64,
    /// Gaps that were really seen to end in it.
    seen: f64,
}

impl Histogram {
    /// Takes a gap in.
    pub fn note(&mut self, gap: Duration) {
        let seconds = gap.as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        let bin = (seconds.log2() * PER_OCTAVE as f64) as usize;
        match self.counts.get_mut(bin) {
            Some(count) => *count += 1.0,
            None => self.beyond += 1.0,
        }
    }

    /// Halves what is remembered, so that habits can change.
    pub fn fade(&mut self) {
        self.counts.iter_mut().for_each(|c| *c *= 0.5);
        self.beyond *= 0.5;
    }

    /// The idle time, counted like `age`, up to which keeping pays; `None` when letting go now is better.
    ///
    /// Each piece of time has a gain of its own: the calls that come in it, times what each would have waited,
    /// minus the memory that all gaps hold which last that long. So the best time to let go is the end of the
    /// prefix with the greatest sum.
    pub fn keep_until(&self, age: Duration, terms: &Terms) -> Option<Duration> {
        let (mut sum, mut best, mut until) = (0.0, 0.0, None);
        let most = terms.most.as_secs_f64();
        for piece in self.pieces(age.as_secs_f64(), terms).take_while(|p| p.from < most) {
            sum += piece.gain;
            if sum > best {
                (best, until) = (sum, Some(piece.to.min(most)));
            }
        }
        until.map(Duration::from_secs_f64)
    }

    /// The later stretch in which an instance would earn more than it costs, for one that is let go at `age`.
    /// Counted like `age`. Needs evidence: what is merely assumed brings nothing up.
    pub fn return_in(&self, age: Duration, terms: &Terms) -> Option<Stretch> {
        let most = terms.most.as_secs_f64();
        let start_cost = terms.cold_ms() * super::START_SHARE;
        let (mut sum, mut seen, mut from) = (-start_cost, 0.0, None);
        let mut best: Option<(f64, Stretch)> = None;
        for piece in self.pieces(age.as_secs_f64(), terms) {
            // The best stretch that ends here either goes on or starts here.
            if sum <= -start_cost || from.is_some_and(|from| piece.to - from > most) {
                (sum, seen, from) = (-start_cost, 0.0, Some(piece.from));
            }
            sum += piece.gain;
            seen += piece.seen;
            let start = from.unwrap_or(piece.from);
            if sum > best.as_ref().map_or(0.0, |b| b.0) && seen >= super::EVIDENCE {
                best = Some((sum, Stretch::of(start, piece.to)));
            }
        }
        best.map(|(_, stretch)| stretch)
    }

    fn pieces(&self, age: f64, terms: &Terms) -> impl Iterator<Item = Piece> {
        let first = if age < 1.0 { 0 } else { ((age.log2() * PER_OCTAVE as f64) as usize).min(BINS) };
        let prior = PRIOR * (1.0 - PRIOR_NEVER) / BINS as f64;
        let mut alive = f64::from(self.beyond) + PRIOR * PRIOR_NEVER;
        alive += self.counts[first..].iter().map(|c| f64::from(*c) + prior).sum::<f64>();
        let (cold, rent) = (terms.cold_ms(), terms.rent_ms());
        let whole = alive.max(f64::MIN_POSITIVE);
        (first..BINS).map(move |i| {
            let (from, to) = (EDGES[i].max(age), EDGES[i + 1]);
            // Of the bin that the present falls into only the rest is left.
            let left = ((to - from) / (to - EDGES[i])).clamp(0.0, 1.0);
            let seen = f64::from(self.counts[i]) * left;
            let ended = seen + prior * left;
            // Those that end in it hold the memory for half of it.
            let held = (alive - ended).max(0.0) + ended / 2.0;
            alive -= f64::from(self.counts[i]) + prior;
            Piece { from, to, gain: (cold * ended - rent * (to - from) * held) / whole, seen }
        })
    }
}
