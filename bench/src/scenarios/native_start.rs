//! Pooled cold start of a native server against fork, exec and first byte of the same program, which then answers
//! without listening first: the least that a start can cost.

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::platform::Setup;
use crate::programs::deploy_native;
use crate::starter::Starter;

static FIGURE: Figure = Figure {
    id: "S6",
    name: "native cold start: pooled / fork + exec → first byte",
    unit: "ms",
    goal: Goal::AtMost { target: 10.0, stretch: 5.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "native-start",
    about: "pooled cold start of a native server function / fork and exec of the same program",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    deploy_native(&platform, &bench.native, "native", "")?;
    platform.copy("native", bench.repeats).await?;
    let starter = Starter::up(&bench.docker, &bench.native, "provided", &[]).await?;
    let command = ["/s/native", "answer"];
    starter.time(&command).await?;
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        let davit = cold::start(&platform, "provided", &format!("native-{n}")).await?;
        platform.rested("provided", 1).await?;
        pairs.push((davit, starter.time(&command).await?));
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}
