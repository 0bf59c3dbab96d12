//! The one binary of davit: the command-line client, and the roles that a server runs.
//!
//! Each command is a file under `commands/`. Data goes to standard output, everything else to standard
//! error, and the exit code says what kind of failure it was (see [`failure::Failure`]).

mod api;
mod client;
mod commands;
mod context;
mod escape;
mod failure;
mod openapi;
mod output;
mod own_image;
mod pack;
mod prebuilt;
mod progress;
mod prompt;
#[cfg(feature = "server")]
mod roles;
mod time;
mod upload;

use std::process::ExitCode;

/// A call on its way makes a dozen small allocations, some freed by another thread than the one that made them: that
/// is what this allocator is good at, and the C library's is not.
#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use clap::Parser;

const AFTER_HELP: &str = "\
Start here:
  davit doctor                          is this machine ready?
  davit up                              run a whole davit on it
  davit init hello --template python    make a function
  cd hello && davit deploy              build it and make it live
  davit invoke hello '{\"name\":\"Ada\"}'   call it

Exit codes:
  0  done                        4  not authenticated, or not allowed
  1  failed                      5  not found
  2  wrong use of the command    6  davit does not answer, or has no capacity now
  3  the function itself failed      7  `davit apply --plan` found something to do";

/// Functions that run only while somebody calls them, on your own machines.
#[derive(Parser)]
#[command(name = "davit", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Davit {
    #[command(flatten)]
    globals: context::Globals,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let davit = Davit::parse();
    // Plain HTTP needs no provider, but the client refuses to be built without one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match commands::run(davit.command, davit.globals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests;
