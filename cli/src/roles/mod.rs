//! The roles that a server runs: everything in one process, or controller and gateway by themselves.
//!
//! Each says the same five verbs: read settings, build (connect and bind), spawn, wait, drain.

pub(crate) mod controller;
pub(crate) mod engine;
pub(crate) mod gateway;
pub(crate) mod migrate;
mod parts;
mod process;
mod state;
pub(crate) mod up;

use std::time::Duration;

use clap::Args;
use davit_daemon::telemetry;

use crate::failure::{Failure, Result};

/// How a role logs.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// What to log, in the syntax of RUST_LOG
    #[arg(long, env = "DAVIT_LOG", default_value = "info,sqlx=warn", value_name = "FILTER")]
    log: String,
    /// auto (text on a terminal, else JSON), text or json
    #[arg(long, env = "DAVIT_LOG_FORMAT", default_value = "auto", value_name = "FORMAT")]
    log_format: telemetry::Format,
}

/// Starts logging and a runtime, and runs the role in it.
fn run(log: &Log, role: impl Future<Output = Result<()>>) -> Result<()> {
    telemetry::init(log.log_format, &log.log).map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("davit")
        .build()
        .map_err(|e| Failure::while_doing("runtime", e))?;
    let outcome = runtime.block_on(role);
    // What is still blocked (a file, a resolver) must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}
