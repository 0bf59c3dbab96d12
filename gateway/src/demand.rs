//! Tells the registry what this gateway waits for, so that the controller can size the pools.
//!
//! At once when the first start begins to wait, else one batched write a second, and none at all while nothing
//! changes. A registry that is away only delays it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{GatewayId, PoolKey};
use davit_registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::instances::Instances;

/// Wakes the writer.
#[derive(Clone, Default)]
pub struct Demand {
    edge: Arc<Notify>,
}

/// Rows that did not change are written again this often, so that the controller can tell them from a dead gateway's.
const AGAIN: Duration = Duration::from_secs(10);

impl Demand {
    /// Somebody began to wait.
    pub fn wake(&self) {
        self.edge.notify_one();
    }

    /// Writes until told to stop.
    pub async fn run(
        self,
        registry: Registry,
        gateway: GatewayId,
        instances: Instances,
        stop: CancellationToken,
    ) {
        let mut written: HashMap<PoolKey, (u32, u32, Instant)> = HashMap::new();
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.edge.notified() => {}
                _ = tick.tick() => {}
            }
            let rows: Vec<(PoolKey, u32, u32)> = instances
                .wanted()
                .into_iter()
                .filter(|w| due(written.get(&w.key), w.waiting, w.recent))
                .map(|w| (w.key, w.waiting, w.recent))
                .collect();
            if rows.is_empty() {
                continue;
            }
            match registry.write_demand(gateway, &rows).await {
                Ok(()) => {
                    for (key, waiting, recent) in rows {
                        written.insert(key, (waiting, recent, Instant::now()));
                    }
                }
                Err(error) => tracing::warn!(%error, "demand not written; will try again"),
            }
        }
    }
}

/// Whether a row has news worth a write.
fn due(written: Option<&(u32, u32, Instant)>, waiting: u32, recent: u32) -> bool {
    match written {
        None => waiting > 0 || recent > 0,
        Some(&(w, r, at)) => {
            (w, r) != (waiting, recent) || ((waiting, recent) != (0, 0) && at.elapsed() > AGAIN)
        }
    }
}
