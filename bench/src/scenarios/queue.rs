//! Jobs per second through davit's queue, from the client's request until they are recorded as done, against the
//! least that a queue in Postgres does: insert, claim with `skip locked`, mark as done, each with its own commit.

use std::process::Stdio;

use super::Scenario;
use crate::bench::Bench;
use crate::figure::{Figure, Goal};
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::programs::deploy_native;

static FIGURE: Figure = Figure {
    id: "S13",
    name: "queue, jobs per second from accepted to done: davit / raw SQL",
    unit: "/s",
    goal: Goal::AtLeast { target: 0.5, stretch: 0.8 },
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "queue",
    about: "asynchronous jobs per second through davit / a skip-locked loop of pgbench on the same Postgres",
    figures: &[&FIGURE],
    run: |bench| Box::pin(run(bench)),
};

const CLIENTS: usize = 32;
const JOBS: usize = 3_200;
const RAW: &str = "raw";
const TABLE: &str = "create table jobs (id bigint generated always as identity primary key, payload bytea not null,
        state text not null default 'queued', run_at timestamptz not null default clock_timestamp(), lease_until timestamptz, ended_at timestamptz)
        with (fillfactor = 70);
    create index jobs_due on jobs (run_at) where state = 'queued'";
/// A claim that finds nothing leaves the id as it was; with as many rows as clients that is rare.
const LOOP: &str = "\\set id 0
insert into jobs (payload) values ('{}');
update jobs set state = 'running', lease_until = clock_timestamp() + interval '30 seconds' where id = (select id from jobs where state = 'queued' order by run_at limit 1 for update skip locked) returning id \\aset
update jobs set state = 'done', ended_at = clock_timestamp() where id = :id;
";

async fn run(bench: &mut Bench) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    deploy_native(
        &platform,
        &bench.native,
        "queue",
        "concurrency = 64\nmax_instances = 2\nkeep_alive_seconds = 600\n",
    )?;
    platform.routed(1).await?;
    platform.sql.run_in("postgres", &[], &format!("create database {RAW}"))?;
    platform.sql.run_in(RAW, &[], TABLE)?;
    let mut pairs = Vec::new();
    // The first round warms both up and does not count.
    for n in 0..=bench.repeats {
        let pair = (davit(&platform).await?, raw(&platform).await?);
        if n > 0 {
            pairs.push(pair);
        }
    }
    bench.report.pairs(&FIGURE, &pairs);
    platform.sql.run_in("postgres", &[], &format!("drop database {RAW}"))?;
    Ok(())
}

/// From the first acceptance to the last end, by the database's clock.
async fn davit(platform: &Platform) -> crate::Result<f64> {
    let since = platform.sql.run("select clock_timestamp()")?;
    let bearer = format!("Bearer {}", platform.token()?);
    let path = "/v1/namespaces/default/functions/queue/invocations?async=true";
    let request = Request::post(platform.gateway()?, path, &[("Authorization", &bearer)], "{}");
    load::closed_loop(&request, CLIENTS, JOBS).await?;
    let of_this_run = format!("where accepted_at >= '{since}'");
    for _ in 0..600 {
        let open = format!("select count(*) from invocations {of_this_run}");
        if platform.sql.run(&open)? == "0" {
            let failed =
                format!("select count(*) from ended_invocations {of_this_run} and state <> 'succeeded'");
            let wrong = platform.sql.run(&failed)?;
            if wrong != "0" {
                return Err(format!("{wrong} jobs failed").into());
            }
            let rate = format!(
                "select count(*) / extract(epoch from max(ended_at) - min(accepted_at)) from ended_invocations {of_this_run}"
            );
            return Ok(platform.sql.run(&rate)?.parse()?);
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err("the jobs were not done within a minute".into())
}

async fn raw(platform: &Platform) -> crate::Result<f64> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("loop.sql");
    std::fs::write(&script, LOOP)?;
    let each = JOBS / CLIENTS;
    let output = tokio::process::Command::new(pgbench())
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &CLIENTS.to_string(), "-t", &each.to_string(), "-f"])
        .arg(&script)
        .args(platform.sql.connection(RAW))
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| format!("pgbench: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text.lines().find_map(|l| l.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    if !output.status.success() || rate.is_none() {
        return Err(format!("pgbench:\n{text}{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let left: f64 =
        platform.sql.run_in(RAW, &[], "select count(*) from jobs where state <> 'done'")?.parse()?;
    if left > 0.01 * JOBS as f64 {
        return Err(format!("{left} jobs of the control were not done").into());
    }
    platform.sql.run_in(RAW, &[], "truncate jobs")?;
    rate.ok_or_else(|| "pgbench said no rate".into())
}

/// Debian keeps it beside the server, outside the path.
fn pgbench() -> std::path::PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = folders.map(|f| f.path().join("bin/pgbench")).filter(|p| p.exists()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| "pgbench".into())
}
