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
/// The first of them, whose pace is measured.
const MEASURED: usize = 15_000;
/// Filling the queue takes most of the time, so a million is put there only so often.
const MOST_REPEATS: usize = 3;

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    deploy_native(
        &platform,
        &bench.native,
        "deep",
        "concurrency = 64\nmax_instances = 2\nkeep_alive_seconds = 600\n",
    )?;
    platform.routed(1).await?;
    // What is measured first pays for instances that start.
    pace(&platform, SHALLOW).await?;
    let mut pairs = Vec::new();
    for _ in 0..bench.repeats.min(MOST_REPEATS) {
        pairs.push((pace(&platform, DEEP).await?, pace(&platform, SHALLOW).await?));
    }
    bench.report.pairs(&FIGURE, &pairs);
    Ok(())
}

/// Jobs per second among the first that end of so many that become due at one instant, by the database's clock. The
/// rest is taken away afterwards.
async fn pace(platform: &Platform, depth: usize) -> crate::Result<f64> {
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
    let mut rate = None;
    for _ in 0..600 {
        let done: usize = sql.run(&format!("select count(*) {ended}"))?.parse()?;
        if done >= MEASURED {
            let first = format!("select ended_at {ended} order by ended_at limit {MEASURED}");
            rate = Some(sql.run(&format!(
                "select {MEASURED} / extract(epoch from max(ended_at) - min(ended_at)) from ({first}) as first"
            ))?);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    empty(platform).await?;
    Ok(rate.ok_or("the jobs were not done within a minute")?.parse()?)
}

/// Takes away what waits, and lets what runs end.
async fn empty(platform: &Platform) -> crate::Result<()> {
    platform.sql.run("delete from invocations where state = 'queued'")?;
    for _ in 0..300 {
        if platform.sql.run("select count(*) from invocations")? == "0" {
            platform.sql.run_in("davit", &[], "vacuum invocations")?;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err("what ran did not end within half a minute".into())
}
