//! Whether the queue's pace depends on how much waits in it: jobs per second from the front of a million that are due,
//! against those from the front of twenty thousand.

use std::time::Duration;

use super::Scenario;
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::platform::{Platform, Setup};
use crate::programs::deploy_native;

static FIGURE: Figure = Figure {
    id: "S13a",
    name: "queue, jobs per second with 1,000,000 due / with 20,000",
    unit: "/s",
    goal: Goal::AtLeast { target: 0.8, stretch: 0.95 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "queue-depth",
    about: "jobs done per second with a million waiting / with twenty thousand",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const DEEP: usize = 1_000_000;
const SHALLOW: usize = 20_000;
/// Jobs of one measurement.
const MEASURED: usize = 15_000;
/// Measurements on each side. Filling the queue with a million takes longer than all of them, so it is done once: the
/// sides do not take turns, and drift of the machine is in the figure.
const WINDOWS: usize = 3;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    deploy_native(
        &platform,
        &bench.native,
        "deep",
        "concurrency = 64\nmax_instances = 2\nkeep_alive_seconds = 600\n",
    )?;
    platform.routed(1).await?;
    let mut shallow = Vec::new();
    // The first round pays for instances that start, and does not count.
    for n in 0..=WINDOWS {
        let pace = paces(&platform, SHALLOW, 1).await?;
        if n > 0 {
            shallow.extend(pace);
        }
        emptied(&platform).await?;
    }
    let deep = paces(&platform, DEEP, WINDOWS).await?;
    platform.sql.run("delete from invocations where state = 'queued'")?;
    emptied(&platform).await?;
    bench.report.pairs(&FIGURE, &deep.into_iter().zip(shallow).collect::<Vec<_>>());
    Ok(())
}

/// Makes so many jobs due at one instant. Answers the jobs per second among the first that end, the second, and so on,
/// by the database's clock.
async fn paces(platform: &Platform, depth: usize, windows: usize) -> crate::Result<Vec<f64>> {
    let sql = &platform.sql;
    let since = sql.run("select clock_timestamp()")?;
    sql.run(&format!(
        "insert into invocations (id, namespace_id, function_id, source, payload, policy, run_at)
            select gen_random_uuid(), f.namespace_id, f.id, 'async', '{{}}', v.spec->'retry', clock_timestamp()
            from functions f join aliases a on a.function_id = f.id and a.name = 'live'
            join versions v on v.id = a.version_id, generate_series(1, {depth})
            where f.name = 'deep' and f.deleted_at is null;
         select pg_notify('davit', 'queue')"
    ))?;
    let ended = format!("from ended_invocations where accepted_at >= '{since}'");
    for _ in 0..600 {
        let done: usize = sql.run(&format!("select count(*) {ended}"))?.parse()?;
        if done >= windows * MEASURED {
            let rates = sql.run(&format!(
                "select {MEASURED} / extract(epoch from max(ended_at) - min(ended_at))
                 from (select ended_at, (row_number() over (order by ended_at) - 1) / {MEASURED} as place {ended}) as e
                 where place < {windows} group by place order by place"
            ))?;
            return rates.lines().map(|rate| Ok(rate.parse()?)).collect();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("the jobs were not done within a minute".into())
}

/// Waits until nothing is left to do.
async fn emptied(platform: &Platform) -> crate::Result<()> {
    for _ in 0..600 {
        if platform.sql.run("select count(*) from invocations")? == "0" {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("what runs did not end within a minute".into())
}
