//! PID 1 of every function container.
//!
//! It takes the function's code and settings from a gateway, starts the language runtime, speaks the Lambda
//! Runtime API to it, enforces deadlines, sends output home, freezes and thaws. It knows nothing else of
//! davit, and it has four settings: `DAVIT_RUNTIME_COMMAND`, which a runtime's image sets, `DAVIT_IMAGE`, which
//! says what a user's own image starts, `DAVIT_LINK_SECRET`, with which its gateway comes by TCP, and `DAVIT_BUILDER`,
//! which makes it a builder's. As `agent copy PATH` it puts itself there and ends.

mod agent;
mod asks;
mod builder;
mod calls;
mod door;
mod environment;
mod failure;
mod image;
mod limits;
mod link;
mod logs;
mod oom;
mod process;
mod runtime_api;
mod secrets;
mod server;
mod start;
mod stream;

use std::io::Write;
use std::process::ExitCode;

/// Where the function's code lies and where its programs run.
const TASK_ROOT: &str = "/var/task";
/// Where the Runtime API listens, on the container's own loopback.
const RUNTIME_API: &str = "127.0.0.1:9001";
/// Where server functions listen.
const SERVER_PORT: u16 = 8080;
/// The gateway's way in where it is on this machine. It appears when the runtime is warm.
const LINK_SOCKET: &str = "/run/davit/agent.sock";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, to] = &words[..]
        && verb == "copy"
    {
        return copy(to);
    }
    // Signals go to "everybody", and peers are judged by whether they are outside our PID namespace.
    // Both are only right for the first process of a namespace.
    if !rustix::process::getpid().is_init() {
        say("must be the first process of a container");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, agent::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            process::signal_all(rustix::process::Signal::KILL);
            ExitCode::FAILURE
        }
    }
}

/// Puts this program where another container has it: how it comes into pods whose image has none. A tool of the image for
/// that would be one more thing that an image has to have.
fn copy(to: &str) -> ExitCode {
    match std::fs::copy("/proc/self/exe", to) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("cannot copy itself to {to}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line in the container's own log, for operators.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "davit-agent: {text}");
}
