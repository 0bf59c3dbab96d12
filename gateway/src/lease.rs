//! The gateway's lease: while it beats, the gateway's instances and jobs are its own.

use std::time::Duration;

use davit_api::GatewayId;
use davit_registry::Registry;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Between two beats; the lease lasts ten seconds, so two may be lost.
const BEAT: Duration = Duration::from_secs(3);

/// Registers the gateway and keeps its lease until `stop`, then gives it back.
///
/// A gateway that was given up while it could not beat (its machine slept, the registry was away) registers
/// again: the controller destroys what it owned then, it sees those links close, and its jobs' receipts are no
/// longer good, so nothing of its former life can do harm.
pub async fn run(registry: Registry, gateway: GatewayId, public_url: String, stop: CancellationToken) {
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut registered = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => break,
        }
        let beat = async {
            if registered && registry.heartbeat_gateway(gateway).await? {
                return Ok(());
            }
            if registered {
                tracing::warn!("this gateway was given up while it was silent; it registers again");
            }
            registry.register_gateway(gateway, &public_url).await
        };
        match tokio::time::timeout(BEAT, beat).await {
            Ok(Ok(())) => registered = true,
            Ok(Err(error)) => tracing::warn!(%error, "no heartbeat"),
            Err(_) => tracing::warn!("no heartbeat: the registry does not answer in time"),
        }
    }
    match tokio::time::timeout(BEAT, registry.drop_gateway(gateway)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "lease not given back; it will lapse"),
        Err(_) => tracing::debug!("lease not given back in time; it will lapse"),
    }
}
