//! The programs that the bench measures or measures with, as one static binary that runs in any container.
//!
//! `serve [port]` is a server function that is quick enough not to be the bottleneck, `pause <ms>` one whose answers take
//! that long; `answer [socket]` is the same answer
//! from a process that was just started; `starter <socket>` starts processes on request inside a container;
//! `emulator <address> <api address> <runtime>...` is the smallest Runtime API with a runtime. Started by `davit-bench` and `scripts/bench.sh`.

mod emulator;
mod serve;
mod starter;

use std::io::Write;
use std::time::Duration;

/// What both the server and the just started process answer.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nhello\n";

/// Where a function is told to listen.
fn own_port() -> std::io::Result<String> {
    std::env::var("PORT").map_err(std::io::Error::other)
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve::run(&own_port()?, Duration::ZERO),
        ["serve", port] => serve::run(port, Duration::ZERO),
        ["pause", ms] => {
            let ms = ms.parse().map_err(std::io::Error::other)?;
            serve::run(&own_port()?, Duration::from_millis(ms))
        }
        ["answer"] => std::io::stdout().write_all(ANSWER),
        ["answer", socket] => std::os::unix::net::UnixStream::connect(socket)?.write_all(ANSWER),
        ["starter", socket] => starter::run(socket.as_ref()),
        ["emulator", front, api, ref runtime @ ..] => emulator::run(front, api, runtime),
        _ => Err(std::io::Error::other(
            "usage: serve [port] | pause <ms> | answer [socket] | starter <socket> | emulator <address> <address> <runtime>...",
        )),
    }
}
