//! Measures davit beside a control, interleaved in one run: A, B, A, B, … Each figure is the median of the
//! ratios of neighbouring repeats, with their minimum and maximum, because absolute times on a shared machine
//! drift by a factor of three. Prints a table, writes it as JSON and as a plot. Run by `make bench`.
#![expect(clippy::print_stdout, reason = "this program's product is what it prints")]

mod bench;
mod docker;
mod figure;
mod load;
mod nginx;
mod offered;
mod platform;
mod plot;
mod process;
mod programs;
mod report;
mod scenarios;
mod sql;
mod starter;
mod versions;
mod wrk;

use std::path::PathBuf;

use clap::Parser;

/// Any failure ends its scenario with its text: a figure that could not be measured is not printed.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measure davit beside nginx, plain Docker and bare interpreters, interleaved in one run
#[derive(Parser)]
struct Args {
    /// Scenarios to run, by the names that --list shows
    #[arg(default_value = "all")]
    scenarios: Vec<String>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// Repeats of each pair
    #[arg(long, default_value_t = 7)]
    repeats: usize,
    /// The davit binary
    #[arg(long, default_value = "target/release/davit")]
    davit: PathBuf,
    /// The static program that is deployed as a server function and runs as the controls' part
    #[arg(long, default_value = "target/davit-scripts/davit-bench-native")]
    native: PathBuf,
    /// AWS's Runtime Interface Emulator; without it a minimal one of our own is the control for handlers
    #[arg(long)]
    emulator: Option<PathBuf>,
    /// Where JSON and plot go
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if args.list {
        for scenario in scenarios::ALL {
            println!("{:<14} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    // Only loopback is spoken to, but the HTTP client wants to know how it would do TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if args.repeats < 3 {
        return Err("at least 3 repeats, or there is no spread to show".into());
    }
    let chosen = scenarios::choose(&args.scenarios)?;
    let mut bench = bench::Bench::new(&args).await?;
    let mut failed = Vec::new();
    for scenario in chosen {
        println!("== {}: {}", scenario.name, scenario.about);
        let started = std::time::Instant::now();
        let outcome = (scenario.run)(&mut bench).await;
        if let Err(error) = outcome {
            println!("   failed: {error}");
            failed.push(scenario.name);
        }
        bench.clear().await;
        print!("{}", bench.report.since_last());
        println!("   ({:.0} s)", started.elapsed().as_secs_f64());
    }
    bench.stop();
    println!("\n{}", bench.report.table());
    for path in bench.report.write(&args.out)? {
        println!("written to {}", path.display());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
}
