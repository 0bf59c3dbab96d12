//! The gateway's lease: while it beats, the gateway's instances and jobs are its own.

use std::path::Path;
use std::time::Duration;

use davit_api::GatewayId;
use davit_registry::Registry;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Between two beats; the lease lasts ten seconds, so two may be lost.
const BEAT: Duration = Duration::from_secs(3);

/// Gives up what the process before this one held, and notes this one for the next. Whoever calls this knows that
/// the other is gone: then nobody need wait for its lease to lapse, its jobs are free at once, and no instance
/// is started for it.
pub async fn succeed(registry: &Registry, file: &Path, gateway: GatewayId) -> std::io::Result<()> {
    let before = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(before) = before {
        match tokio::time::timeout(BEAT, registry.drop_gateway(before)).await {
            Ok(Ok(())) => tracing::debug!(gateway = %before, "the gateway before this one is given up"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the gateway before this one keeps its lease until it lapses")
            }
            Err(_) => tracing::warn!("the gateway before this one keeps its lease until it lapses"),
        }
    }
    std::fs::write(file, gateway.to_string())
}

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

#[cfg(test)]
mod tests {
    use davit_registry::testing::TestDatabase;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_gateway_is_given_up_by_the_next_and_not_ten_seconds_later() {
        let database = TestDatabase::new().await;
        let registry = database.registry();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway-id");
        let (killed, next, stranger) = (GatewayId::new(), GatewayId::new(), GatewayId::new());
        registry.register_gateway(stranger, "http://c").await.unwrap();
        succeed(registry, &file, killed).await.unwrap();
        registry.register_gateway(killed, "http://a").await.unwrap();
        succeed(registry, &file, next).await.unwrap();
        registry.register_gateway(next, "http://b").await.unwrap();
        let left: Vec<GatewayId> = registry.gateways().await.unwrap().into_iter().map(|row| row.id).collect();
        assert_eq!(left, [stranger, next]);
    }
}
