//! What a campaign prints and keeps: a table, and the same as JSON, in a folder of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::check::{Figures, Promise, Verdict, percentile};
use crate::plan::Size;

/// What stands above the table.
pub(crate) struct Head {
    pub(crate) size: Size,
    pub(crate) began: chrono::DateTime<chrono::Utc>,
    pub(crate) seconds: u64,
    /// What it ran on, as it was at the start.
    pub(crate) versions: Vec<String>,
    /// Things that a reader must know: what was not tried, what ended by itself.
    pub(crate) notes: Vec<String>,
    pub(crate) refusals: Vec<(String, u64)>,
}

/// The whole report as text.
pub(crate) fn text(head: &Head, verdict: &Verdict, figures: &Figures) -> String {
    let mut out = String::new();
    let size = head.size;
    let _ = writeln!(
        out,
        "campaign of {}, {} s, seed {}\n{}\n{} gateways, {} jobs, {} schedules, {} kills",
        head.began.format("%Y-%m-%d %H:%M UTC"),
        head.seconds,
        size.seed,
        head.versions.join("; "),
        size.gateways,
        size.jobs,
        size.schedules,
        size.kills
    );
    for note in &head.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let _ = writeln!(out, "\nbroken promises");
    for promise in Promise::ALL {
        let _ = writeln!(out, "  {:<44} {:>8}", promise.broken(), verdict.count(promise));
    }
    let counts = figures.counts.iter().map(|(name, n)| (*name, *n));
    list(&mut out, "what there was", counts);
    let repeated = figures.repeated.iter().map(|(name, n)| (*name, *n));
    list(&mut out, "started once more without a recorded failure, by the nearest fault", repeated);
    let refusals = head.refusals.iter().map(|(name, n)| (name.as_str(), *n));
    list(
        &mut out,
        "requests to accept jobs that were not answered with 202 (0: no answer; late: none in 10 s)",
        refusals,
    );
    let _ =
        writeln!(out, "\n{:<58} {:>6} {:>8} {:>8} {:>8}", "times in ms", "n", "median", "99 %", "longest");
    for (name, values) in figures.times.iter().filter(|(_, values)| !values.is_empty()) {
        let [half, most, all] = [50, 99, 100].map(|share| percentile(values, share));
        let _ = writeln!(out, "  {name:<56} {:>6} {half:>8} {most:>8} {all:>8}", values.len());
    }
    for (promise, seen) in &verdict.0 {
        let _ = writeln!(out, "\n{}:", promise.broken());
        for what in seen.iter().take(20) {
            let _ = writeln!(out, "  {what}");
        }
    }
    out
}

fn list<'a>(out: &mut String, title: &str, rows: impl Iterator<Item = (&'a str, u64)>) {
    let _ = writeln!(out, "\n{title}");
    for (name, n) in rows {
        let _ = writeln!(out, "  {name:<44} {n:>8}");
    }
}

fn json(head: &Head, verdict: &Verdict, figures: &Figures) -> Value {
    let times = |(name, values): &(String, Vec<i64>)| {
        let [half, most, all] = [50, 99, 100].map(|share| percentile(values, share));
        json!({"name": name, "n": values.len(), "median": half, "p99": most, "longest": all})
    };
    let size = head.size;
    json!({
        "began": head.began.to_rfc3339(), "seconds": head.seconds, "seed": size.seed, "versions": head.versions,
        "gateways": size.gateways, "jobs": size.jobs, "schedules": size.schedules, "kills": size.kills,
        "notes": head.notes,
        "broken": Promise::ALL.iter().map(|p| (p.broken(), verdict.count(*p))).collect::<std::collections::BTreeMap<_, _>>(),
        "examples": verdict.0.iter().map(|(p, seen)| (p.broken(), seen.iter().take(100).collect()))
            .collect::<std::collections::BTreeMap<_, Vec<_>>>(),
        "counts": figures.counts.iter().copied().collect::<std::collections::BTreeMap<_, _>>(),
        "repeated": figures.repeated,
        "refusals": head.refusals,
        "times_ms": figures.times.iter().map(times).collect::<Vec<_>>(),
    })
}

/// What it ran on.
pub(crate) fn versions() -> Vec<String> {
    let first = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let build = davit_e2e::binary_path();
    [
        Some(format!("{cores} cores")),
        first("uname", &["-srm"]),
        first("git", &["log", "-1", "--format=davit %h"]),
        build.parent().and_then(Path::file_name).map(|kind| format!("{} build", kind.display())),
        first("postgres", &["--version"]),
        first("dockerd", &["--version"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where results lie.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("campaign/results")
}

/// Writes text and JSON, and what the processes printed if a promise was broken; answers where.
pub(crate) fn keep(
    head: &Head,
    verdict: &Verdict,
    figures: &Figures,
    log: impl FnOnce() -> String,
) -> PathBuf {
    let folder = folder();
    fs::create_dir_all(&folder).expect("the folder is made");
    let stem = folder.join(format!("{}-seed-{}", head.began.format("%Y%m%d-%H%M%S"), head.size.seed));
    let write = |ending: &str, what: String| {
        fs::write(stem.with_extension(ending), what).expect("the result is written");
    };
    write("txt", text(head, verdict, figures));
    write("json", format!("{:#}\n", json(head, verdict, figures)));
    if !verdict.0.is_empty() {
        write("log", log());
    }
    stem.with_extension("txt")
}
