//! A burst of distinct cold functions as large as the pool, against a single cold start; and one of twice the pool,
//! of which every call must be answered.

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::load::{self, Request, percentile};
use crate::platform::{Platform, Setup};
use crate::programs::{PYTHON, manifest};

static LATENCY: Figure = Figure {
    id: "S9",
    name: "burst of 8 cold functions on a pool of 8: p99 / single cold p50",
    unit: "ms",
    goal: Goal::AtMost { target: 6.0, stretch: 4.0 },
};
static ANSWERED: Figure = Figure {
    id: "S9a",
    name: "burst of 16 cold functions on a pool of 8: share answered",
    unit: "",
    goal: Goal::AtLeast { target: 1.0, stretch: 1.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "burst",
    about: "p99 of as many cold functions at once as the pool holds / one cold start; and twice as many",
    figures: &[&LATENCY, &ANSWERED],
    run: |bench| Box::pin(run(bench)),
};

const RUNTIME: &str = "python3.13";
const POOL: usize = 8;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup { pool_base: Some(POOL as u32), ..Setup::default() }).await?;
    platform.deploy(&[
        ("davit.toml", &manifest("burst", RUNTIME, "handler = \"app.handler\"\n")),
        ("app.py", PYTHON),
    ])?;
    platform.copy("burst", 2 * POOL).await?;
    let (mut singles, mut bursts) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        platform.rested(RUNTIME, POOL as u64).await?;
        singles.push(cold::start(&platform, RUNTIME, "burst-1").await?);
        platform.rested(RUNTIME, POOL as u64).await?;
        let (times, failed) = burst(&platform, POOL).await?;
        if let Some(error) = failed.first() {
            return Err(format!("a call of the burst failed: {error}").into());
        }
        bursts.push(percentile(&times, 0.99));
    }
    singles.sort_by(f64::total_cmp);
    let single = percentile(&singles, 0.5);
    bench.report.pairs(&LATENCY, &bursts.iter().map(|burst| (*burst, single)).collect::<Vec<_>>());
    let (mut answered, mut asked, mut slowest) = (0, 0, 0.0_f64);
    for _ in 0..3 {
        platform.rested(RUNTIME, POOL as u64).await?;
        let (times, failed) = burst(&platform, 2 * POOL).await?;
        answered += times.len();
        asked += times.len() + failed.len();
        slowest = slowest.max(times.last().copied().unwrap_or_default());
    }
    // One share of all: a median would hide a round in which some were not.
    bench.report.values(&ANSWERED, &[f64::from(answered as u32) / f64::from(asked as u32)]);
    bench.report.note(format!(
        "S9a: the slowest of all waited {slowest:.0} ms; half of them need a container that is not there"
    ));
    Ok(())
}

/// Ascending times of those that were answered, and what the others got.
async fn burst(platform: &Platform, size: usize) -> crate::Result<(Vec<f64>, Vec<String>)> {
    let gateway = platform.gateway()?;
    let mut calls = tokio::task::JoinSet::new();
    for n in 1..=size {
        let request = Request::get(gateway, &format!("/default/burst-{n}"));
        calls.spawn(async move { load::once(&request).await });
    }
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    while let Some(call) = calls.join_next().await {
        match call? {
            Ok((ms, _)) => times.push(ms),
            Err(error) => failed.push(error.to_string()),
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times, failed))
}
