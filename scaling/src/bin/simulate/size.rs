//! What a great many functions come to on several gateways: instances, memory and starts, by the library's own
//! decisions, and how functions and calls lie over the gateways that they are gathered on.
//!
//! Calls come at random (Poisson), the functions' rates follow Zipf's law with exponent 1, run times a logarithmic
//! normal distribution. Functions do not influence each other here, so each is replayed by itself.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use davit_scaling::keep_alive::Price;
use davit_scaling::shares::{Id, order};

use crate::engine::{self, Cold};
use crate::policy::Policy;
use crate::trace::{Function, Random};

/// What a start takes out of a pool.
const COLD: Duration = Duration::from_millis(50);
/// Half of the functions run for less.
const MEDIAN_RUN_MS: f64 = 100.0;
/// Deviation of the run time's logarithm.
const RUN_SPREAD: f64 = 1.0;
const MEMORY_MB: u32 = 256;
/// `max_instances` of each function.
const LIMIT: usize = 1_000;

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    functions: usize,
    calls_a_second: f64,
    gateways: usize,
    seconds: u64,
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text}: four numbers are wanted, such as 100000,50000,8,480");
        let words: Vec<&str> = text.split(',').collect();
        let [functions, calls, gateways, seconds] = words[..] else { return Err(bad()) };
        let size = Self {
            functions: functions.parse().map_err(|_| bad())?,
            calls_a_second: calls.parse().map_err(|_| bad())?,
            gateways: gateways.parse().map_err(|_| bad())?,
            seconds: seconds.parse().map_err(|_| bad())?,
        };
        if size.functions == 0 || size.gateways < 2 || size.seconds < 2 || size.calls_a_second <= 0.0 {
            return Err(bad());
        }
        Ok(size)
    }
}

/// What it came to, of the second half of the time.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    size: Option<Size>,
    calls: u64,
    cold: u64,
    ahead: u64,
    idle_gib: f64,
    busy: f64,
    waited_s: f64,
    /// Most instances of the function that has most.
    widest: usize,
    /// Functions that need more than one gateway's share at their peak.
    spread: usize,
    /// Calls a second of each gateway, were every call at the gateway that it belongs to.
    load: Vec<f64>,
    /// Calls a second of each gateway when the first one is gone.
    load_without: Vec<f64>,
    /// Share of the functions whose first gateway is another one then.
    moved: f64,
}

/// Replays everything.
pub(crate) fn run(size: Size) -> Outcome {
    let harmonic: f64 = (1..=size.functions).map(|rank| 1.0 / rank as f64).sum();
    let gateways: Vec<Id> =
        (1..=size.gateways as u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)).collect();
    let mut out = Outcome {
        size: Some(size),
        load: vec![0.0; size.gateways],
        load_without: vec![0.0; size.gateways],
        ..Outcome::default()
    };
    let policy = Policy::Davit { price: Price::default(), schedules: false, budget_mb: None };
    let (whole, half) = (Duration::from_secs(size.seconds), Duration::from_secs(size.seconds / 2));
    let rest_s = (whole - half).as_secs_f64();
    for rank in 1..=size.functions {
        let rate = size.calls_a_second / (rank as f64 * harmonic);
        let mut random = Random(rank as u64);
        let function = function(rate, whole, &mut random);
        let later = engine::run_for(whole, std::slice::from_ref(&function), policy, Cold::Uniform(COLD));
        let first = engine::run_for(half, std::slice::from_ref(&function), policy, Cold::Uniform(COLD));
        let calls = later.calls - first.calls;
        out.calls += calls;
        out.cold += later.cold_starts - first.cold_starts;
        out.ahead += later.ahead - first.ahead;
        out.idle_gib += (later.idle_gib_s - first.idle_gib_s) / rest_s;
        out.busy += calls as f64 / rest_s * function.run.as_secs_f64();
        out.waited_s += later.waited_s - first.waited_s;
        out.widest = out.widest.max(later.peak);
        out.place(&gateways, rank as Id, rate, later.peak);
    }
    out
}

fn function(rate: f64, length: Duration, random: &mut Random) -> Function {
    // A normal number as the sum of twelve even ones.
    let bell: f64 = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
    let run = Duration::from_secs_f64(MEDIAN_RUN_MS / 1_000.0 * (RUN_SPREAD * bell).exp());
    let (mut calls, mut at) = (Vec::new(), 0.0);
    loop {
        at -= (1.0 - random.unit()).ln() / rate;
        if at >= length.as_secs_f64() {
            return Function { memory_mb: MEMORY_MB, run, schedule: None, calls };
        }
        calls.push(Duration::from_secs_f64(at));
    }
}

impl Outcome {
    /// Lays a function over its gateways: the first ones of its order, as many as its peak fills.
    fn place(&mut self, gateways: &[Id], function: Id, rate: f64, peak: usize) {
        let lay = |gateways: &[Id], load: &mut [f64], all: &[Id]| {
            let share = (LIMIT / gateways.len()).max(1);
            let wide = peak.div_ceil(share).clamp(1, gateways.len());
            let order = order(function, gateways.iter().copied());
            for gateway in &order[..wide] {
                if let Some(at) = all.iter().position(|one| one == gateway) {
                    load[at] += rate / wide as f64;
                }
            }
            (wide, order[0])
        };
        let (wide, first) = lay(gateways, &mut self.load, gateways);
        let (_, other) = lay(&gateways[1..], &mut self.load_without, gateways);
        self.spread += usize::from(wide > 1);
        self.moved += f64::from(u8::from(first != other));
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(size) = self.size else { return Ok(()) };
        let seconds = (size.seconds - size.seconds / 2) as f64;
        let calls = self.calls as f64;
        let greatest = |load: &[f64]| load.iter().copied().fold(0.0, f64::max);
        let idle = self.idle_gib * 1024.0 / f64::from(MEMORY_MB);
        writeln!(
            f,
            "| {} functions, {} calls a second offered, {} gateways, {} s, the last {seconds:.0} s counted | |",
            size.functions, size.calls_a_second, size.gateways, size.seconds
        )?;
        writeln!(f, "|---|---|")?;
        writeln!(f, "| calls a second | {:.0} |", calls / seconds)?;
        writeln!(f, "| instances that work, on average | {:.0} |", self.busy)?;
        writeln!(f, "| instances that are idle, on average | {idle:.0} |")?;
        writeln!(
            f,
            "| memory of all of them | {:.0} GiB |",
            (self.busy + idle) * f64::from(MEMORY_MB) / 1024.0
        )?;
        writeln!(f, "| starts a second that a call waited for | {:.1} |", self.cold as f64 / seconds)?;
        writeln!(f, "| starts a second ahead of a call | {:.1} |", self.ahead as f64 / seconds)?;
        writeln!(f, "| calls per start | {:.0} |", calls / (self.cold + self.ahead).max(1) as f64)?;
        writeln!(f, "| waiting per call | {:.3} ms |", self.waited_s * 1_000.0 / calls)?;
        writeln!(f, "| most instances of one function | {} |", self.widest)?;
        writeln!(f, "| functions on more than one gateway | {} |", self.spread)?;
        let mean = size.calls_a_second / size.gateways as f64;
        writeln!(
            f,
            "| calls a second of the fullest gateway, and of the mean | {:.0}, {mean:.0} |",
            greatest(&self.load)
        )?;
        let mean = size.calls_a_second / (size.gateways - 1) as f64;
        writeln!(f, "| the same when one is gone | {:.0}, {mean:.0} |", greatest(&self.load_without))?;
        write!(
            f,
            "| functions that have another first gateway then | {:.1} % |",
            self.moved * 100.0 / size.functions as f64
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_goes_moves_its_own_functions_and_every_call_has_a_place() {
        let size: Size = "400,100,4,60".parse().unwrap();
        let out = run(size);
        assert!((0.15..0.35).contains(&(out.moved / 400.0)), "{}", out.moved);
        for load in [&out.load, &out.load_without] {
            assert!((load.iter().sum::<f64>() - 100.0).abs() < 1e-6);
        }
        assert!(out.load_without[0].abs() < 1e-9 && out.calls > 2_000 && out.cold > 0);
        assert!("1,2,3".parse::<Size>().is_err() && "400,100,1,60".parse::<Size>().is_err());
    }
}
