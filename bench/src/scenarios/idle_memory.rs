//! What a davit takes that has nothing to do.

use super::Scenario;
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::platform::{Platform, Setup};
use crate::process;

static FIGURE: Figure = Figure {
    id: "C2",
    name: "idle control plane: resident memory of `davit up` without Postgres",
    unit: "MB",
    goal: Goal::AtMost { target: 60.0, stretch: 40.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "idle-memory",
    about: "resident memory of an idle `davit up` with a filled pool, without its Postgres",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

/// Starts that are looked at.
const STARTS: usize = 3;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let mut values = Vec::new();
    for _ in 0..STARTS {
        bench.stop();
        let platform = bench.platform(Setup::default()).await?;
        rest(&platform).await?;
        values.push(process::resident_kb(platform.pid())? * 1024.0 / 1e6);
    }
    bench.report.values(&FIGURE, &values);
    Ok(())
}

async fn rest(platform: &Platform) -> crate::Result<()> {
    for runtime in ["python3.13", "node20", "provided"] {
        platform.rested(runtime, 2).await?;
    }
    Ok(())
}
