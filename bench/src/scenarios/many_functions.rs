//! Ten thousand deployed functions that nobody calls, against ten: what they change for warm calls and for cold
//! starts, and what they take. They are copies of one function, registered by SQL; building them would take hours.

use std::time::Duration;

use super::{Scenario, cold};
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::process;
use crate::programs::{PYTHON, deploy_native, manifest};

static WARM: Figure = Figure {
    id: "C1",
    name: "warm p99 with 10,000 idle functions / with 10",
    unit: "ms",
    goal: Goal::AtMost { target: 1.10, stretch: 1.05 },
};
static MEMORY: Figure = Figure {
    id: "C1a",
    name: "memory of davit per idle function",
    unit: "KB",
    goal: Goal::AtMost { target: 3.5, stretch: 2.0 },
};
static CPU: Figure = Figure {
    id: "C1b",
    name: "processor time of an idle davit with 10,000 functions",
    unit: "% core",
    goal: Goal::AtMost { target: 1.0, stretch: 0.5 },
};
static COLD: Figure = Figure {
    id: "C5",
    name: "Python cold start with 10,000 idle functions / with 10",
    unit: "ms",
    // Flat, within what neighbouring cold starts differ by.
    goal: Goal::AtMost { target: 1.25, stretch: 1.10 },
};

static START: Figure = Figure {
    id: "C1c",
    name: "start of davit until it is ready, with 10,000 functions / with 10",
    unit: "ms",
    // Reading as many costs something; what must not be is that it costs more than all the rest.
    goal: Goal::AtMost { target: 3.0, stretch: 1.5 },
};
static CHANGE: Figure = Figure {
    id: "C1d",
    name: "a rollback until the gateway serves it, with 10,000 functions / with 10",
    unit: "ms",
    // The lookup structure of all functions is built anew for a change: some milliseconds beside some of two statements.
    goal: Goal::AtMost { target: 4.0, stretch: 2.0 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "many-functions",
    about: "warm and cold calls, start, a change of routes, memory and idle processor time with 10,000 functions / with 10",
    figures: &[&WARM, &MEMORY, &CPU, &COLD, &START, &CHANGE],
    run: |bench| Box::pin(run(bench)),
};

const FEW: usize = 10;
const MANY: usize = 10_000;
/// Longer than the time between two looks for changed routes, so that what a look costs is seen in each measurement.
const MEASURED: Duration = Duration::from_secs(4);
/// For a davit that has just started, or has just read ten thousand functions, to come to rest.
const SETTLE: Duration = Duration::from_secs(10);
/// Just the time between two full reads of the registry, so that one of them is in each measurement.
const IDLE: Duration = Duration::from_secs(30);
/// Each takes a minute and a half.
const IDLE_REPEATS: usize = 3;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    // A davit of its own: memory that earlier scenarios left behind would hide what is looked for.
    let mut platform = bench.own_platform(Setup::default()).await?;
    deploy_native(&platform, &bench.native, "warm", "max_instances = 1\nkeep_alive_seconds = 1\n")?;
    let toml = manifest("idle", "python3.13", "handler = \"app.handler\"\n");
    platform.deploy(&[("davit.toml", &toml), ("app.py", PYTHON)])?;
    // A second version, to roll back from and to.
    platform.deploy(&[("davit.toml", &toml), ("app.py", &format!("{PYTHON}\n"))])?;
    platform.copy("idle", FEW - 2).await?;
    platform.rested("python3.13", 1).await?;
    let warm = Request::get(platform.gateway()?, "/default/warm");
    platform.sql.copy_function("warm", MANY - FEW, "v.spec")?;
    let (mut latencies, mut colds, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.repeats {
        let mut sides = Vec::new();
        for many in [true, false] {
            show(&platform, many).await?;
            let cold = cold::start(&platform, "python3.13", "idle-1").await?;
            platform.rested("python3.13", 1).await?;
            load::once(&warm).await?;
            let p99 = load::steady(&warm, MEASURED).await?.percentile(0.99);
            let change = (platform.roll("idle", 1).await? + platform.roll("idle", 2).await?) / 2.0;
            sides.push((p99, cold, change));
        }
        latencies.push((sides[0].0, sides[1].0));
        colds.push((sides[0].1, sides[1].1));
        changes.push((sides[0].2, sides[1].2));
    }
    bench.report.pairs(&WARM, &latencies);
    bench.report.pairs(&COLD, &colds);
    bench.report.pairs(&CHANGE, &changes);
    idle(bench, &mut platform).await
}

/// Makes the many copies routed or not, and waits until the gateway has noticed.
async fn show(platform: &Platform, many: bool) -> crate::Result<()> {
    platform.sql.run(if many {
        "insert into aliases (function_id, name, version_id) select v.function_id, 'live', v.id from versions v
            join functions f on f.id = v.function_id where f.name like 'warm-%' on conflict do nothing"
    } else {
        "delete from aliases a using functions f where f.id = a.function_id and f.name like 'warm-%'"
    })?;
    platform.routed(if many { MANY } else { FEW } as u64).await
}

/// A process that has done nothing but start, each time: what an earlier load or deployment left in the allocator
/// would hide ten thousand functions, or count as them.
async fn idle(bench: &mut Bench, platform: &mut Platform) -> crate::Result<()> {
    let (mut memory, mut share, mut postgres) = (Vec::new(), Vec::new(), 0.0);
    let (mut starts, mut peak) = (Vec::new(), 0.0_f64);
    for _ in 0..bench.repeats.min(IDLE_REPEATS) {
        let (mut resident, mut ready) = (Vec::new(), Vec::new());
        for many in [true, false] {
            show(platform, many).await?;
            ready.push(platform.restart().await?);
            if many {
                peak = peak.max(process::peak_kb(platform.pid())?);
            }
            platform.routed(if many { MANY } else { FEW } as u64).await?;
            platform.rested("python3.13", 1).await?;
            tokio::time::sleep(SETTLE).await;
            let pid = platform.pid();
            if many {
                let (cpu, children) = (process::cpu_seconds(pid)?, process::cpu_seconds_of_children(pid));
                tokio::time::sleep(IDLE).await;
                let of_a_core = |seconds: f64| seconds / IDLE.as_secs_f64() * 100.0;
                share.push(of_a_core(process::cpu_seconds(pid)? - cpu));
                postgres += of_a_core(process::cpu_seconds_of_children(pid) - children);
            }
            resident.push(process::resident_kb(pid)?);
        }
        starts.push((ready[0], ready[1]));
        memory.push((resident[0] - resident[1]) * 1.024 / (MANY - FEW) as f64);
    }
    postgres /= share.len() as f64;
    bench.report.values(&MEMORY, &memory);
    bench.report.values(&CPU, &share);
    bench.report.pairs(&START, &starts);
    bench.report.note(format!(
        "C1c: the most memory that davit had until it was ready: {:.0} MB",
        peak * 1.024 / 1e3
    ));
    bench.report.note(format!(
        "C1b: its Postgres took another {postgres:.1} % of a core; the 10,000 were registered by SQL"
    ));
    Ok(())
}
