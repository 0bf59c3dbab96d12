//! Measures davit beside a control, interleaved in one run: A, B, A, B, … Each figure is the median of the
//! ratios of neighbouring repeats, with their minimum and maximum, because absolute times on a shared machine
//! drift by a factor of three. Prints a table and writes it as JSON.
#![expect(clippy::print_stdout, reason = "this program's product is what it prints")]

mod cold;
mod docker;
mod load;
mod nginx;
mod platform;
mod report;
mod warm;

use std::path::PathBuf;

use clap::Parser;

/// Any failure ends the run with its text: a figure that could not be measured is not printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What to measure, and against which davit.
#[derive(Parser)]
struct Args {
    /// Scenario: cold, warm or all.
    #[arg(default_value = "all")]
    scenario: String,
    /// Repeats of each pair.
    #[arg(long, default_value_t = 9)]
    repeats: usize,
    /// The davit binary.
    #[arg(long, default_value = "target/release/davit")]
    davit: PathBuf,
    /// Where the JSON goes.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Only loopback is spoken to, but the HTTP client wants to know how it would do TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if args.repeats < 3 {
        return Err("at least 3 repeats, or there is no spread to show".into());
    }
    let platform = platform::Platform::up(&args.davit).await?;
    let docker = docker::Docker::connect()?;
    let mut report = report::Report::new(docker.versions().await?);
    if matches!(args.scenario.as_str(), "cold" | "all") {
        cold::run(&platform, &docker, args.repeats, &mut report).await?;
    }
    if matches!(args.scenario.as_str(), "warm" | "all") {
        warm::run(&platform, &docker, args.repeats, &mut report).await?;
    }
    println!("{}", report.table());
    println!("written to {}", report.write(&args.out)?.display());
    Ok(())
}
