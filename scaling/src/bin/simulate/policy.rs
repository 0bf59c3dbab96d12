//! The keep-alive policies that are compared. davit's is not written here: it is the library's.

use std::time::{Duration, Instant};

use davit_scaling::fleet::Pilot;
use davit_scaling::keep_alive::{Price, Return, Terms, Verdict};
use davit_scaling::scale_in::Limits;

/// Which policy, with its one knob.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Policy {
    /// Every idle instance stays as long.
    Fixed(Duration),
    /// The hybrid histogram policy of "Serverless in the Wild" (ATC 2020) with this histogram range.
    Hybrid(Duration),
    /// davit's, at this price of memory; whether it knows the functions' schedules; a bound on memory.
    Davit { price: Price, schedules: bool, budget_mb: Option<u64> },
}

impl Policy {
    pub(crate) fn budget_mb(self) -> Option<u64> {
        match self {
            Self::Davit { budget_mb, .. } => budget_mb,
            _ => None,
        }
    }
}

/// What a policy knows of one function.
pub(crate) struct Keeper {
    policy: Policy,
    pub(crate) pilot: Pilot,
    hybrid: Option<Hybrid>,
}

impl Keeper {
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        let hybrid = match policy {
            Policy::Hybrid(range) => Some(Hybrid::new(range)),
            _ => None,
        };
        Self { policy, pilot: Pilot::new(now), hybrid }
    }

    pub(crate) fn working(&mut self, busy: usize, now: Instant) {
        self.pilot.working(busy, busy, now);
        if let Some(hybrid) = &mut self.hybrid {
            hybrid.working(busy, now);
        }
    }

    pub(crate) fn judge(&mut self, idle: Idle, terms: &Terms, now: Instant) -> Verdict {
        match (self.policy, &self.hybrid) {
            (Policy::Fixed(keep), _) if now < idle.since + keep => Verdict::Keep { until: idle.since + keep },
            (Policy::Hybrid(_), Some(hybrid)) => hybrid.judge(now),
            (Policy::Davit { price, schedules, .. }, _) => {
                let scheduled = terms.scheduled.filter(|_| schedules);
                let terms = Terms { price, scheduled, ..*terms };
                let limits = Limits { concurrency: 1, busy: idle.busy, provisioned: 0, most: usize::MAX };
                self.pilot.judge(idle.level, idle.since, limits, &terms, now)
            }
            _ => Verdict::LetGo { return_at: None },
        }
    }
}

/// An idle instance that is judged.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) level: usize,
    pub(crate) since: Instant,
    pub(crate) busy: usize,
}

/// The paper's policy: a histogram of idle times with bins of a minute; unload, come back before the 5th
/// percentile, stay until the 99th, both with a margin of 10 %. While the histogram is not representative
/// (coefficient of variation of its bins up to 2) everything stays for the whole range. For functions whose
/// idle times mostly lie beyond the range the paper forecasts by ARIMA; here the mean of the last five idle
/// times stands in, with the paper's margin of 15 %.
struct Hybrid {
    range: Duration,
    bins: Vec<u32>,
    beyond: u32,
    last: Vec<f64>,
    busy: usize,
    idle_since: Option<Instant>,
}

impl Hybrid {
    fn new(range: Duration) -> Self {
        let bins = vec![0; range.as_secs() as usize / 60];
        Self { range, bins, beyond: 0, last: Vec::new(), busy: 0, idle_since: None }
    }

    fn working(&mut self, busy: usize, now: Instant) {
        if self.busy == 0
            && busy > 0
            && let Some(since) = self.idle_since.take()
        {
            let idle = (now - since).as_secs_f64();
            match self.bins.get_mut((idle / 60.0) as usize) {
                Some(bin) => *bin += 1,
                None => self.beyond += 1,
            }
            self.last.push(idle);
            if self.last.len() > 5 {
                self.last.remove(0);
            }
        }
        if busy == 0 {
            self.idle_since = Some(now);
        }
        self.busy = busy;
    }

    /// From when to when after the last call an instance should be there.
    fn window(&self) -> (Duration, Duration) {
        let inside: u32 = self.bins.iter().sum();
        if self.beyond > inside {
            let mean = self.last.iter().sum::<f64>() / self.last.len() as f64;
            return (Duration::from_secs_f64(mean * 0.85), Duration::from_secs_f64(mean * 1.15));
        }
        let mean = f64::from(inside) / self.bins.len() as f64;
        let variance = self.bins.iter().map(|b| (f64::from(*b) - mean).powi(2)).sum::<f64>();
        let deviation = (variance / self.bins.len() as f64).sqrt();
        if inside == 0 || deviation / mean <= 2.0 {
            return (Duration::ZERO, self.range);
        }
        let percentile = |share: f64| {
            let mut left = (f64::from(inside) * share).ceil().max(1.0) as u32;
            self.bins.iter().position(|b| {
                left = left.saturating_sub(*b);
                left == 0
            })
        };
        let head = percentile(0.05).unwrap_or(0) as f64 * 60.0 * 0.9;
        let tail = (percentile(0.99).unwrap_or(self.bins.len()) + 1) as f64 * 60.0 * 1.1;
        (Duration::from_secs_f64(head), Duration::from_secs_f64(tail))
    }

    fn judge(&self, now: Instant) -> Verdict {
        let (head, tail) = self.window();
        let since = self.idle_since.unwrap_or(now);
        if head.is_zero() || now >= since + head {
            return if now < since + tail {
                Verdict::Keep { until: since + tail }
            } else {
                Verdict::LetGo { return_at: None }
            };
        }
        Verdict::LetGo { return_at: Some(Return { at: since + head, until: since + tail }) }
    }
}
