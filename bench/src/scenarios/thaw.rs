//! What a frozen instance costs more than a running one, against the engine's own way: unpause, then the call.

use std::time::{Duration, Instant};

use super::Scenario;
use crate::bench::Bench;
use crate::docker::{Control, free_port, image, until_ok};
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::programs::deploy_native;

static FIGURE: Figure = Figure {
    id: "S10",
    name: "thaw: (first call after a freeze − warm call) / engine unpause + call",
    unit: "ms",
    goal: Goal::AtMost { target: 1.0 / 10.0, stretch: 1.0 / 20.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "thaw",
    about: "extra time of the first call after a freeze / unpausing a container through the engine and calling it",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

/// Calls of one side in a repeat; their median counts.
const TRIES: usize = 5;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    deploy_native(&platform, &bench.native, "thaw", "max_instances = 1\nkeep_alive_seconds = 600\n")?;
    let ours = Request::get(platform.gateway()?, "/default/thaw");
    let port = free_port()?;
    let container = bench
        .docker
        .start(&Control {
            image: &image("provided"),
            command: &["/s/native", "serve", &port.to_string()],
            programs: &[("native", &bench.native)],
            host_network: true,
            ..Control::default()
        })
        .await?;
    let theirs = Request::get(port, "/");
    until_ok("the control server", async || load::once(&theirs).await).await?;
    load::once(&ours).await?;
    let mut pairs = Vec::new();
    for _ in 0..bench.repeats {
        let (mut frozen, mut warm, mut engine) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TRIES {
            frozen.push(frozen_call(&platform, &ours).await?);
            warm.push(load::once(&ours).await?.0);
            bench.docker.act(&container, "pause").await?;
            let start = Instant::now();
            bench.docker.act(&container, "unpause").await?;
            load::once(&theirs).await?;
            engine.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let middle = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            load::percentile(times, 0.5)
        };
        // On a busy machine the difference of two short times may fall below nothing.
        let extra = (middle(&mut frozen) - middle(&mut warm)).max(0.0);
        pairs.push((extra, middle(&mut engine)));
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}

/// Waits until the instance is frozen, and calls it. The instance must not have been let go meanwhile.
async fn frozen_call(platform: &Platform, request: &Request) -> crate::Result<f64> {
    load::once(request).await?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let status = platform.status().await?;
        let fleets = status["gateway"]["fleets"].as_array();
        if fleets.into_iter().flatten().any(|fleet| fleet["frozen"].as_u64() == Some(1)) {
            // The mark is set before the agent has said that every process is stopped.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let cold = platform.counter("davit_calls_cold_total").await?;
            let (ms, _) = load::once(request).await?;
            if platform.counter("davit_calls_cold_total").await? > cold {
                return Err("the frozen instance was let go before its call".into());
            }
            return Ok(ms);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err("the instance was not frozen within 10 s".into())
}
