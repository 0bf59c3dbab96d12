//! A debugger's connection after the 101: the client's end and the runtime's are joined byte for byte.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::instances::Attached;
use crate::metrics::Metrics;

/// A connection over which nothing passes for so long is closed, and holds its instance no longer.
const QUIET: Duration = Duration::from_secs(3_600);
/// Bytes that are under way in one direction.
const WINDOW: usize = 64 * 1024;

/// Carries bytes both ways until either end closes, the instance is let go, or the process ends.
pub(super) async fn pass(
    attached: Attached,
    client: OnUpgrade,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    metrics.upgrades_open.add(1);
    let (debugger, held) = attached.split();
    let joined = async {
        let Ok(client) = client.await else { return };
        let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
        join((from_client, to_client), debugger.into_split(), QUIET).await;
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = held.ended() => {}
        () = joined => {}
    }
    metrics.upgrades_open.sub(1);
}

/// Ends with the first direction that does: a debugger has no use for half a connection.
async fn join<A, B, C, D>(client: (A, B), debugger: (C, D), quiet: Duration)
where
    A: AsyncRead + Unpin,
    B: AsyncWrite + Unpin,
    C: AsyncRead + Unpin,
    D: AsyncWrite + Unpin,
{
    let last = Mutex::new(Instant::now());
    let silence = async {
        loop {
            let until = *last.lock() + quiet;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    // How it ended matters to nobody: both ends see that it did.
    tokio::select! {
        _ = copy(client.0, debugger.1, &last) => {}
        _ = copy(debugger.0, client.1, &last) => {}
        () = silence => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    last: &Mutex<Instant>,
) -> io::Result<()> {
    let mut window = vec![0; WINDOW];
    loop {
        let read = from.read(&mut window).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&window[..read]).await?;
        to.flush().await?;
        *last.lock() = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_both_ways_until_one_end_closes_or_all_is_quiet() {
        let (mut ide, client) = tokio::io::duplex(64);
        let (mut runtime, debugger) = tokio::io::duplex(64);
        let (client, debugger) = (tokio::io::split(client), tokio::io::split(debugger));
        let joined = tokio::spawn(join(client, debugger, QUIET));
        let mut got = [0; 4];
        for _ in 0..3 {
            ide.write_all(b"step").await.unwrap();
            runtime.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"step");
            runtime.write_all(b"stop").await.unwrap();
            ide.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"stop");
            // Somebody thinks.
            tokio::time::sleep(QUIET / 2).await;
        }
        assert!(!joined.is_finished());
        tokio::time::sleep(QUIET).await;
        joined.await.unwrap();
        assert_eq!(ide.read(&mut got).await.unwrap(), 0, "both ends see that it is over");
        assert_eq!(runtime.read(&mut got).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_arrives() {
        let (mut ide, client) = tokio::io::duplex(8);
        let (mut runtime, debugger) = tokio::io::duplex(8);
        let joined = tokio::spawn(join(tokio::io::split(client), tokio::io::split(debugger), QUIET));
        let written = tokio::spawn(async move {
            runtime.write_all(&[7; 1_000]).await.unwrap();
        });
        let mut all = Vec::new();
        ide.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 1_000);
        written.await.unwrap();
        joined.await.unwrap();
    }
}
