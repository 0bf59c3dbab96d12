//! WebSockets: after the server's 101 the two connections are joined byte for byte, until either side ends.

use std::sync::Arc;

use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::http::Body;
use crate::instances::{Instance, Slot};
use crate::metrics::Metrics;

/// What an upgraded connection holds on to: its place in the instance above all.
pub(super) struct Open {
    pub(super) slot: Slot,
    pub(super) instance: Arc<Instance>,
    pub(super) send: SendRequest<Body>,
    pub(super) metrics: Arc<Metrics>,
}

/// Carries bytes both ways. `stop` cuts it, because an upgraded connection knows no other end of the process.
pub(super) async fn pass(open: Open, client: OnUpgrade, server: OnUpgrade, stop: CancellationToken) {
    let Open { slot, instance, send, metrics } = open;
    if let Err(error) = join(client, server, &metrics, stop).await {
        tracing::debug!(instance = %instance.id, %error, "upgrade did not come about");
    }
    drop((slot, send));
}

/// Joins two connections byte for byte until either side ends, or `stop`. An error: one of them was not upgraded.
pub(crate) async fn join(
    client: OnUpgrade,
    server: OnUpgrade,
    metrics: &Metrics,
    stop: CancellationToken,
) -> hyper::Result<()> {
    metrics.upgrades_open.add(1);
    let joined = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        Ok(())
    };
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = joined => ended,
    };
    metrics.upgrades_open.sub(1);
    ended
}
