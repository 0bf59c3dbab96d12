//! Reaching the socket, and checking the descriptor that an agent hands over.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::UnixStream;

use super::LinkError;

/// What fits into a socket address, less its end mark.
const ADDRESS_BYTES: usize = 107;

/// Connects, also where the path is too long for a socket address.
pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= ADDRESS_BYTES {
        return UnixStream::connect(path).await;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}

/// Accepts nothing but a connected TCP stream socket: whatever is handed over gets requests written to it.
pub(super) fn checked(descriptor: OwnedFd) -> Result<std::net::TcpStream, LinkError> {
    let bad = |what: &str| LinkError::Protocol(format!("the handed descriptor is {what}"));
    let kind = sockopt::socket_type(&descriptor).map_err(|_| bad("no socket"))?;
    let family = sockopt::socket_domain(&descriptor).map_err(|_| bad("no socket"))?;
    if kind != SocketType::STREAM || !matches!(family, AddressFamily::INET | AddressFamily::INET6) {
        return Err(bad("no TCP socket"));
    }
    if sockopt::socket_acceptconn(&descriptor).map_err(|_| bad("no socket"))? {
        return Err(bad("a listener"));
    }
    rustix::net::getpeername(&descriptor).map_err(|_| bad("not connected"))?;
    let stream = std::net::TcpStream::from(descriptor);
    stream.set_nonblocking(true).map_err(|_| bad("unusable"))?;
    Ok(stream)
}
