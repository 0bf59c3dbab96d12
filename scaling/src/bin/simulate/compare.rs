//! The two comparisons: cold starts against idle memory for several keep-alive policies, and the time that a
//! step in the load takes to be answered.

use std::time::Duration;

use davit_scaling::keep_alive::Price;

use crate::engine::{self, Cold, Totals};
use crate::policy::Policy;
use crate::step::{self, Scaler, Step};
use crate::trace::Function;

/// Difference in memory that still counts as equal.
const EQUAL: f64 = 0.005;

/// What a start takes where one figure stands for all: a container start without a pool.
pub(crate) const UNIFORM: Cold = Cold::Uniform(Duration::from_millis(500));
/// davit's own classes: a pooled instance, and an image of one's own.
pub(crate) const MIXED: Cold =
    Cold::Mixed { pooled: Duration::from_millis(50), custom: Duration::from_millis(1_500) };

/// A point of a curve.
pub(crate) struct Point {
    pub(crate) knob: String,
    pub(crate) totals: Totals,
}

/// A policy at several settings.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<Point>,
}

/// davit against fixed keep-alive at the same idle memory.
pub(crate) struct Equal {
    pub(crate) control: Totals,
    pub(crate) davit: Totals,
    pub(crate) price: f64,
}

impl Equal {
    pub(crate) fn ratio(&self) -> f64 {
        self.davit.cold_starts as f64 / self.control.cold_starts as f64
    }
    /// With the starts that nobody waited for.
    pub(crate) fn ratio_of_all_starts(&self) -> f64 {
        (self.davit.cold_starts + self.davit.ahead) as f64 / self.control.cold_starts as f64
    }
    pub(crate) fn ratio_of_waiting(&self) -> f64 {
        self.davit.waited_s / self.control.waited_s
    }
}

fn davit(price: f64, schedules: bool) -> Policy {
    Policy::Davit { price: Price(price), schedules, budget_mb: None }
}

pub(crate) fn fixed(minutes: u64) -> Policy {
    Policy::Fixed(Duration::from_secs(60 * minutes))
}

/// Finds the price at which davit holds as much idle memory as `control`: more price, less memory.
pub(crate) fn at_equal_memory(functions: &[Function], control: Policy, cold: Cold, schedules: bool) -> Equal {
    let control = engine::run(functions, control, cold);
    let (mut low, mut high) = (1e-3f64, 1e3f64);
    let mut best: Option<Equal> = None;
    for _ in 0..24 {
        let price = (low * high).sqrt();
        let davit = engine::run(functions, davit(price, schedules), cold);
        let off = davit.idle_gib_s / control.idle_gib_s - 1.0;
        if off > 0.0 {
            low = price;
        } else {
            high = price;
            // Only what holds no more than the control counts.
            best = Some(Equal { control: control.clone(), davit, price });
            if off > -EQUAL {
                break;
            }
        }
    }
    best.unwrap_or_else(|| Equal { davit: control.clone(), control, price: f64::NAN })
}

/// All curves of the plot.
pub(crate) fn curves(functions: &[Function], cold: Cold) -> Vec<Curve> {
    let curve = |name, settings: Vec<(String, Policy)>| {
        let points = settings.into_iter();
        let points =
            points.map(|(knob, policy)| Point { knob, totals: engine::run(functions, policy, cold) });
        Curve { name, points: points.collect() }
    };
    let prices = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
    let with = |schedules| prices.map(|p| (format!("price {p}"), davit(p, schedules))).to_vec();
    let budget = |gib: u64| {
        let budget_mb = Some(gib * 1024);
        (format!("{gib} GiB"), Policy::Davit { price: Price(0.0), schedules: false, budget_mb })
    };
    vec![
        curve("fixed", [1, 5, 10, 20, 60].map(|m| (format!("{m} min"), fixed(m))).to_vec()),
        curve(
            "hybrid",
            [1, 2, 3, 4].map(|h| (format!("{h} h"), Policy::Hybrid(Duration::from_secs(3600 * h)))).to_vec(),
        ),
        curve("greedy-dual only", [64, 72, 80, 96].map(budget).to_vec()),
        curve("davit", with(true)),
        curve("davit, schedules unknown", with(false)),
    ]
}

/// A step, davit's answer and Knative's.
pub(crate) struct StepRow {
    pub(crate) service: Duration,
    pub(crate) cold: Duration,
    pub(crate) davit: Duration,
    pub(crate) knative: Duration,
    pub(crate) davit_wait: Duration,
    pub(crate) knative_wait: Duration,
    /// The largest ratio over all positions of the step within the autoscaler's tick.
    pub(crate) worst: f64,
}

impl StepRow {
    pub(crate) fn ratio(&self) -> f64 {
        self.davit.as_secs_f64() / self.knative.as_secs_f64()
    }
}

/// Steps with short and long calls, cheap and dear starts; each at eight positions within a tick.
pub(crate) fn steps() -> Vec<StepRow> {
    let mut rows = Vec::new();
    for service in [20, 100, 500, 2_000].map(Duration::from_millis) {
        for cold in [50, 250, 500, 1_000, 2_000].map(Duration::from_millis) {
            let pairs = (0..8).map(|eighth| {
                let phase = Duration::from_millis(250 * eighth);
                let step = Step { service, cold, phase };
                (step::run(step, Scaler::Davit), step::run(step, Scaler::Knative))
            });
            let pairs: Vec<_> = pairs.collect();
            let median = |pick: fn(&(step::Outcome, step::Outcome)) -> Duration| {
                let mut all: Vec<Duration> = pairs.iter().map(pick).collect();
                all.sort_unstable();
                all[all.len() / 2]
            };
            let ratio = |p: &(step::Outcome, step::Outcome)| p.0.fits.as_secs_f64() / p.1.fits.as_secs_f64();
            rows.push(StepRow {
                service,
                cold,
                davit: median(|p| p.0.fits),
                knative: median(|p| p.1.fits),
                davit_wait: median(|p| p.0.longest_wait),
                knative_wait: median(|p| p.1.longest_wait),
                worst: pairs.iter().map(ratio).fold(0.0, f64::max),
            });
        }
    }
    rows
}
