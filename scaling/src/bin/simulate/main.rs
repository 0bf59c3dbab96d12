//! Replays a day of calls in a simulated clock through the library's own decisions and through others, and
//! prints how they compare; writes the same as JSON, and a plot. `docs/scaling.md` explains the figures.
//!
//! Usage: `cargo run --release -p davit-scaling --bin simulate -- [--trace FILE] [--out FOLDER]`, or with
//! `--size FUNCTIONS,CALLS_A_SECOND,GATEWAYS,SECONDS` for what so many functions come to (`docs/scale.md`).
#![expect(clippy::print_stdout, reason = "this program's product is what it prints")]

mod compare;
mod engine;
mod knative;
mod plot;
mod policy;
mod report;
mod size;
mod step;
#[cfg(test)]
mod tests;
mod trace;

use std::path::PathBuf;

use compare::{MIXED, UNIFORM};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let (mut trace, mut out) =
        (PathBuf::from("scaling/traces/azure2019-like.trace"), "scaling/results".into());
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--trace" => trace = value.into(),
            "--out" => out = PathBuf::from(value),
            "--size" => {
                let size = value.parse::<size::Size>()?;
                println!("{}", size::run(size));
                return Ok(());
            }
            _ => {
                return Err(format!(
                    "{flag} is not known; there are --trace FILE, --out FOLDER and --size NUMBERS"
                )
                .into());
            }
        }
    }
    let text = std::fs::read_to_string(&trace).map_err(|e| format!("{}: {e}", trace.display()))?;
    let functions = trace::read(&text)?;
    let calls: usize = functions.iter().map(|f| f.calls.len()).sum();
    let ten = compare::fixed(10);
    let report = report::Report {
        trace: format!("{}: {} functions, {calls} calls in a day", trace.display(), functions.len()),
        curves: compare::curves(&functions, UNIFORM),
        equal: vec![
            ("fixed 10 min, every start 500 ms", compare::at_equal_memory(&functions, ten, UNIFORM, true)),
            (
                "the same, davit not told of schedules",
                compare::at_equal_memory(&functions, ten, UNIFORM, false),
            ),
            (
                "fixed 10 min, 4 of 5 pooled (50 ms), 1 of 5 an image of its own (1,500 ms)",
                compare::at_equal_memory(&functions, ten, MIXED, true),
            ),
        ],
        steps: compare::steps(),
    };
    println!("{}", report.table());
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("simulation.json"), serde_json::to_vec_pretty(&report.json())?)?;
    std::fs::write(out.join("cold-starts.svg"), plot::svg(&report.curves))?;
    println!("written to {}", out.display());
    Ok(())
}
