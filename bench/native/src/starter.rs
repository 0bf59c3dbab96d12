//! Starts processes inside a running container: `docker exec` would take longer than what is to be measured.
//!
//! A client connects and sends one line, a command with its arguments separated by tabs. The process gets the
//! connection as its standard output and answers there by itself; the connection ends with it. Small on purpose:
//! what a fork costs depends on the size of who forks.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

const LINE_BYTES: usize = 4096;

/// Serves one request after the other until it is killed.
pub(crate) fn run(socket: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o777))?;
    loop {
        let (stream, _) = listener.accept()?;
        // A client that went away is its own affair.
        let _ = start(stream);
    }
}

fn start(mut stream: UnixStream) -> io::Result<()> {
    let line = line(&mut stream)?;
    let mut words = line.split('\t');
    let program = words.next().unwrap_or_default();
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(stream)))
        .spawn()?;
    child.wait().map(drop)
}

/// Byte by byte, so that nothing of what follows is taken away from the process.
fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return String::from_utf8(line).map_err(io::Error::other);
        }
        if line.len() == LINE_BYTES {
            return Err(io::Error::other("line too long"));
        }
        line.push(byte[0]);
    }
}
