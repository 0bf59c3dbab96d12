//! Warm calls through the gateway against nginx, both in front of the same server program in a container, with one
//! core and with two. The program is native, so that it is not what limits them; its own rate is printed.

use super::Scenario;
use crate::bench::Bench;
use crate::docker::{Container, Control, Docker, free_port, image, until_ok};
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::nginx::Nginx;
use crate::platform::Setup;
use crate::programs::deploy_native;
use crate::wrk;

const LATENCY: Goal = Goal::AtMost { target: 1.5, stretch: 1.0 };
const THROUGHPUT: Goal = Goal::AtLeast { target: 0.85, stretch: 1.0 };

static ONE_ADDED: Figure = Figure {
    id: "S1.1",
    name: "warm, added latency at 1 connection, one core: gateway / nginx",
    unit: "ms",
    goal: LATENCY,
};
static ONE_RATE: Figure = Figure {
    id: "S2.1",
    name: "warm, throughput at 64 connections, one core: gateway / nginx",
    unit: "/s",
    goal: THROUGHPUT,
};
static TWO_ADDED: Figure = Figure {
    id: "S1.2",
    name: "warm, added latency at 1 connection, two cores: gateway / nginx",
    unit: "ms",
    goal: LATENCY,
};
static TWO_RATE: Figure = Figure {
    id: "S2.2",
    name: "warm, throughput at 64 connections, two cores: gateway / nginx",
    unit: "/s",
    goal: THROUGHPUT,
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "warm",
    about: "warm calls of a server function: latency and throughput of the gateway / nginx with keep-alive",
    figures: &[&ONE_ADDED, &ONE_RATE, &TWO_ADDED, &TWO_RATE],
    run: |bench| Box::pin(run(bench)),
};

const CONNECTIONS: usize = 64;
/// Requests of one latency measurement; a quarter of a second or so.
const REQUESTS: usize = 3_000;
const SECONDS: u32 = 2;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    for (cores, workers, added, rate) in [("0", 1, &ONE_ADDED, &ONE_RATE), ("0,1", 2, &TWO_ADDED, &TWO_RATE)]
    {
        compare(bench, cores, workers, added, rate).await?;
    }
    Ok(())
}

async fn compare(
    bench: &mut Bench,
    cores: &'static str,
    workers: usize,
    added: &'static Figure,
    rate: &'static Figure,
) -> crate::Result<()> {
    let platform = bench.platform(Setup { cores: Some(cores), ..Setup::default() }).await?;
    let more = "concurrency = 64\nmax_instances = 1\ncpu_millis = 2000\nkeep_alive_seconds = 600\n";
    deploy_native(&platform, &bench.native, "warm", more)?;
    let (container, port) = upstream(&bench.docker, &bench.native).await?;
    let nginx = Nginx::start(port, workers, cores).await?;
    let ours = Request::get(platform.gateway()?, "/default/warm");
    let theirs = Request::get(nginx.port, "/");
    let direct = Request::get(port, "/");
    for request in [&ours, &theirs, &direct] {
        load::closed_loop(request, 4, 400).await?;
    }
    let median = async |request: &Request| {
        crate::Result::Ok(load::closed_loop(request, 1, REQUESTS).await?.percentile(0.5))
    };
    let per_second =
        async |request: &Request, path: &str| wrk::rate(request.port, path, CONNECTIONS, SECONDS).await;
    let (mut rates, mut latencies, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        let (a, b, c) = (median(&ours).await?, median(&theirs).await?, median(&direct).await?);
        latencies.push((a - c, b - c));
        rates.push((per_second(&ours, "/default/warm").await?, per_second(&theirs, "/").await?));
        bare.push((c, per_second(&direct, "/").await?));
    }
    bench.report.pairs(added, &latencies);
    bench.report.pairs(rate, &rates);
    bare.sort_by(|a, b| a.1.total_cmp(&b.1));
    let middle = bare[bare.len() / 2];
    bench.report.note(format!(
        "{}: the same program without a proxy: {:.0} /s at {CONNECTIONS} connections, {:.3} ms at one",
        rate.id, middle.1, middle.0
    ));
    drop((nginx, container));
    platform.clear().await
}

/// The program in a container of its own, on a port of the host's loopback.
async fn upstream(docker: &Docker, native: &std::path::Path) -> crate::Result<(Container, u16)> {
    let port = free_port()?;
    let container = docker
        .start(&Control {
            image: &image("provided"),
            command: &["/s/native", "serve", &port.to_string()],
            programs: &[("native", native)],
            cpu_millis: 2_000,
            host_network: true,
            ..Control::default()
        })
        .await?;
    until_ok("the control server", async || load::once(&Request::get(port, "/")).await).await?;
    Ok((container, port))
}
