//! How a connection to an agent is made, by whichever way its [`Place`] says.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::LinkError;
use super::handover;
use crate::place::{InstanceSecret, Place};
use crate::proof::{Claimant, GREETING_BYTES, Nonce, Purpose, REPLY_BYTES, Unproven};
use crate::socket::{self, Wire};

const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// The link's own connection. Waits for a socket that is not there yet, or that nobody listens to.
pub(super) async fn link(place: &Place) -> Result<Wire, LinkError> {
    let mut pause = PAUSE;
    loop {
        let error = match place {
            Place::Socket(path) => match handover::connect(path).await {
                Ok(stream) => {
                    // The agent takes no second connection and unlinks its socket, unless the folder is closed to
                    // it by now; from this side it can always be removed, so that a function sees nothing to try.
                    let _ = std::fs::remove_file(path);
                    return Ok(Wire::Unix(stream));
                }
                Err(error) => error,
            },
            Place::Tcp { address, secret } => match TcpStream::connect(address).await {
                Ok(stream) => {
                    return Ok(Wire::Tcp(proven(stream, *address, secret, Purpose::Link).await?));
                }
                Err(error) => error,
            },
        };
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            return Err(LinkError::Protocol(format!("connect to {place}: {error}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A connection of its own to something inside, through the agent.
pub(super) async fn inside(
    address: SocketAddr,
    secret: &InstanceSecret,
    purpose: Purpose,
) -> Result<std::net::TcpStream, LinkError> {
    let unreachable = |error| LinkError::Protocol(format!("connect to {address}: {error}"));
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let stream = proven(stream, address, secret, purpose).await?;
    stream.into_std().map_err(unreachable)
}

/// Proves and has proven: from here on the connection is the instance, whatever has its address later.
async fn proven(
    mut stream: TcpStream,
    address: SocketAddr,
    secret: &InstanceSecret,
    purpose: Purpose,
) -> Result<TcpStream, LinkError> {
    let failed = |error: std::io::Error| LinkError::Protocol(format!("{address}: {error}"));
    let unproven = |error: Unproven| LinkError::Protocol(format!("{address}: {error}"));
    socket::mind(&stream).map_err(failed)?;
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting).await.map_err(failed)?;
    let mut nonce: Nonce = Nonce::default();
    socket::fill_random(&mut nonce).map_err(failed)?;
    let claimant = Claimant::new(secret.clone(), &greeting, nonce, purpose).map_err(unproven)?;
    stream.write_all(&claimant.claim()).await.map_err(failed)?;
    let mut head = [0; REPLY_BYTES];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        // Who does not take a claim hangs up without a word.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(unproven(Unproven::WrongSecret));
        }
        Err(error) => return Err(failed(error)),
    }
    let mut text = vec![0; Claimant::text_bytes(&head)];
    stream.read_exact(&mut text).await.map_err(failed)?;
    let verdict = claimant.judge(&head, &text).map_err(unproven)?;
    verdict.map_err(LinkError::Protocol)?;
    Ok(stream)
}
