//! Sending an archive: in pieces, with progress, and going on where it was when the connection breaks off.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use davit_api::{ArtifactReceived, ErrorCode};
use reqwest::{Body, Method};

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// What is handed to the connection at a time, in bytes.
const PIECE: usize = 256 * 1024;
/// Connections that may break off one after the other without anything having arrived.
const TRIES: u32 = 6;
/// For one connection: a large archive over a slow line.
const PATIENCE: Duration = Duration::from_secs(900);
/// Smaller archives, in bytes, are there before anybody could read how far they are.
const WATCHED: usize = 4 * 1024 * 1024;

/// Why an archive did not arrive, and whether another connection may help.
struct Ended {
    failure: Failure,
    again: bool,
}

/// Sends `archive` to its `path`.
pub(crate) async fn send(client: &Client, path: &str, archive: Bytes, progress: &Progress) -> Result<()> {
    let (mut from, mut tries) = (0, 0);
    loop {
        let Err(ended) = rest(client, path, &archive, from, progress).await else { return Ok(()) };
        tries += 1;
        if !ended.again || tries == TRIES {
            return Err(ended.failure);
        }
        tokio::time::sleep(pause(tries)).await;
        // Who cannot be asked cannot be sent to either, and the next try says so.
        let Ok(answer) = client.get::<ArtifactReceived>(path).await else { continue };
        let here = usize::try_from(answer.received).unwrap_or(0).min(archive.len());
        if here > from {
            tries = 0;
            progress.step(&format!("the connection broke off; going on after {}", mib(here)));
        }
        from = here;
    }
}

fn pause(tries: u32) -> Duration {
    (Duration::from_millis(100) * 2_u32.saturating_pow(tries)).min(Duration::from_secs(5))
}

async fn rest(
    client: &Client,
    path: &str,
    archive: &Bytes,
    from: usize,
    progress: &Progress,
) -> Result<(), Ended> {
    let (rest, total) = (archive.slice(from..), archive.len());
    let left = rest.len();
    let told = progress.teller();
    let pieces = (0..left).step_by(PIECE).map(move |at| {
        if total >= WATCHED {
            told(&format!("uploading: {} of {}", mib(from + at), mib(total)));
        }
        Ok::<_, Infallible>(rest.slice(at..(at + PIECE).min(left)))
    });
    let mut request = client
        .request(Method::PUT, path)
        .timeout(PATIENCE)
        .header("content-type", "application/gzip")
        .header("content-length", left)
        .body(Body::wrap_stream(futures_util::stream::iter(pieces)));
    if from > 0 {
        request = request.header("upload-offset", from);
    }
    let answer = request.send().await.map_err(|error| Ended {
        failure: client.unreachable(&error),
        // Where nobody has answered yet, an address may be wrong.
        again: from > 0 || !error.is_connect(),
    })?;
    match client.success(answer).await {
        Ok(_) => Ok(()),
        Err(failure) => {
            let code = if let Failure::Refused(body) = &failure { Some(body.code) } else { None };
            let again =
                code == Some(ErrorCode::Unavailable) || (code == Some(ErrorCode::Conflict) && from > 0);
            Err(Ended { failure, again })
        }
    }
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
