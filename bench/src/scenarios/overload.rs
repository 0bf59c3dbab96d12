//! Five times what a function can take: what it still gets done, what the refused are told and when, what that costs
//! the gateway in memory, and what another function notices.
//!
//! The function's bound is its concurrency: each of its answers waits for 50 ms. So the bound is reached at a few hundred
//! requests a second, and five times that leaves most of two cores idle: what another function notices is the gateway's
//! doing, not that of a load generator which takes the processors from everybody.

use std::time::{Duration, Instant};

use super::Scenario;
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::offered::{Offer, Outcome, offer};
use crate::platform::Setup;
use crate::process;
use crate::programs::{deploy_native, deploy_native_as};

static GOODPUT: Figure = Figure {
    id: "D5",
    name: "answers per second at 5 times the peak load / at the peak",
    unit: "/s",
    goal: Goal::AtLeast { target: 0.8, stretch: 0.95 },
};
static REFUSAL: Figure = Figure {
    id: "D5a",
    name: "p99 latency of refusals at 5 times the peak load",
    unit: "ms",
    goal: Goal::AtMost { target: 50.0, stretch: 10.0 },
};
static MEMORY: Figure = Figure {
    id: "D5b",
    name: "most memory of davit at 5 times the peak load / at nine tenths of it, with as many connections",
    unit: "MB",
    goal: Goal::AtMost { target: 1.1, stretch: 1.05 },
};
static NEIGHBOUR: Figure = Figure {
    id: "D5c",
    name: "p99 of another function at 5 times the peak load / at nine tenths of it",
    unit: "ms",
    goal: Goal::AtMost { target: 1.2, stretch: 1.1 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "overload",
    about: "5 times a function's peak load: its goodput, refusals, memory, and another function, against less than the peak",
    figures: &[&GOODPUT, &REFUSAL, &MEMORY, &NEIGHBOUR],
    run: |bench| Box::pin(run(bench)),
};

const CONCURRENCY: usize = 32;
const PAUSE_MS: usize = 50;
/// More than slots and places in line together (32 and 128), so that the bound is hit.
const CONNECTIONS: usize = 800;
/// Closed rounds that give the peak; two seconds of them.
const ROUNDS: usize = 40;
const MEASURED: Duration = Duration::from_secs(5);
/// Time between two requests of the other function.
const OTHER_EVERY: Duration = Duration::from_millis(2);

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.own_platform(Setup::default()).await?;
    let more = format!("concurrency = {CONCURRENCY}\nmax_instances = 1\nkeep_alive_seconds = 600\n");
    let command = format!(r#"["./native", "pause", "{PAUSE_MS}"]"#);
    deploy_native_as(&platform, &bench.native, "busy", &command, &more)?;
    deploy_native(&platform, &bench.native, "other", "max_instances = 1\nkeep_alive_seconds = 600\n")?;
    let port = platform.gateway()?;
    let (busy, other) = (Request::get(port, "/default/busy"), Request::get(port, "/default/other"));
    load::once(&busy).await?;
    load::once(&other).await?;
    let (mut goodput, mut refusals, mut memory, mut neighbour) = (vec![], vec![], vec![], vec![]);
    let mut alone = vec![];
    for _ in 0..bench.repeats {
        let from = Instant::now();
        load::closed_loop(&busy, CONCURRENCY, CONCURRENCY * ROUNDS).await?;
        let peak = (CONCURRENCY * ROUNDS) as f64 / from.elapsed().as_secs_f64();
        alone.push(load::paced(&other, OTHER_EVERY, MEASURED / 2).await?.percentile(0.99));
        let below = under(&busy, &other, 0.9 * peak, platform.pid()).await?;
        let above = under(&busy, &other, 5.0 * peak, platform.pid()).await?;
        if above.outcome.refused.is_empty() {
            return Err("nothing was refused: this was no overload".into());
        }
        goodput.push((above.outcome.good as f64 / MEASURED.as_secs_f64(), peak));
        refusals.push(load::percentile(&above.outcome.refused, 0.99));
        memory.push((above.memory, below.memory));
        neighbour.push((above.other, below.other));
    }
    bench.report.pairs(&GOODPUT, &goodput);
    bench.report.values(&REFUSAL, &refusals);
    bench.report.pairs(&MEMORY, &memory);
    bench.report.pairs(&NEIGHBOUR, &neighbour);
    alone.sort_by(f64::total_cmp);
    bench.report.note(format!(
        "D5c: the other function's p99 without any load beside it: {:.2} ms",
        alone[alone.len() / 2]
    ));
    Ok(())
}

/// What was seen under a load.
struct Seen {
    outcome: Outcome,
    /// p99 of the other function, in milliseconds.
    other: f64,
    /// The most memory at any look, in MB.
    memory: f64,
}

async fn under(busy: &Request, other: &Request, rate: f64, pid: u32) -> crate::Result<Seen> {
    let load = offer(busy, Offer { connections: CONNECTIONS, rate, time: MEASURED });
    let watch = async {
        let (from, mut most) = (Instant::now(), 0.0_f64);
        while from.elapsed() < MEASURED {
            most = most.max(process::resident_kb(pid)? * 1.024 / 1e3);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        crate::Result::Ok(most)
    };
    let (outcome, seen, memory) = tokio::join!(load, load::paced(other, OTHER_EVERY, MEASURED), watch);
    let outcome = outcome?;
    match outcome.wrong {
        Some((text, n)) => {
            Err(format!("{n} answers were neither good nor clean refusals, such as: {text}").into())
        }
        None => Ok(Seen { outcome, other: seen?.percentile(0.99), memory: memory? }),
    }
}
