//! Tells the registry what this gateway waits for, so that the controller can size the pools.
//!
//! At once when a start begins to wait or no longer does, in batches while there are many, else once a second, and
//! not at all while nothing changes. A registry that is away only delays it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{GatewayId, InstanceId, PoolKey};
use davit_registry::Registry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::instances::{Instances, Wanted};

/// Wakes the writer.
#[derive(Clone, Default)]
pub struct Demand {
    edge: Arc<Notify>,
}

/// Rows that did not change are written again this often, so that the controller can tell them from a dead gateway's.
const AGAIN: Duration = Duration::from_secs(10);
/// Least time between two writes: the calls of a burst come within milliseconds, and so does what serves them.
const FLOOR: Duration = Duration::from_millis(50);

impl Demand {
    /// Somebody began to wait, or no longer does.
    pub fn wake(&self) {
        self.edge.notify_one();
    }

    /// Whether somebody has begun to wait since this was asked last.
    #[cfg(test)]
    pub(crate) fn woken(&self) -> bool {
        use futures_util::FutureExt as _;
        self.edge.notified().now_or_never().is_some()
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
        let mut next = Instant::now();
        // Without the registry nothing gets another size, and so nothing is taken out of its pool for that.
        let mut answers = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.edge.notified() => {}
                _ = tick.tick() => {}
            }
            tokio::time::sleep_until(next.into()).await;
            // Read first: a start that begins to wait in between is told of when an instance was looked for for it.
            let wanted = instances.wanted();
            let wishes = instances.wishes(answers);
            // Written first: who reads that calls wait, reads what becomes of other instances for them.
            if !wishes.is_empty() {
                next = Instant::now() + FLOOR;
                match registry.wish_sizes(gateway, &wishes).await {
                    Ok(()) => {
                        instances.wished(&wishes);
                        answers = true;
                        for (id, key) in wishes {
                            confirm(&registry, &instances, id, key);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "wishes for other sizes not written; will try again");
                        answers = false;
                        continue;
                    }
                }
            }
            let Some(rows) = news(wanted, &written) else { continue };
            next = Instant::now() + FLOOR;
            match registry.write_demand(gateway, &rows).await {
                Ok(()) => {
                    answers = true;
                    for (key, waiting, recent) in rows {
                        written.insert(key, (waiting, recent, Instant::now()));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "demand not written; will try again");
                    answers = false;
                }
            }
        }
    }
}

/// Says that an instance has its other size as soon as its agent sees that; the cluster says so a second later.
fn confirm(registry: &Registry, instances: &Instances, instance: InstanceId, key: PoolKey) {
    let (registry, instances) = (registry.clone(), instances.clone());
    tokio::spawn(async move {
        if instances.has_size(instance, &key).await
            && let Err(error) = registry.finish_resize(instance, &key).await
        {
            tracing::debug!(%error, %instance, "not said that it has another size; the controller will");
        }
    });
}

/// Every row that says something, if any of them has news: a write replaces them all.
fn news(
    wanted: Vec<Wanted>,
    written: &HashMap<PoolKey, (u32, u32, Instant)>,
) -> Option<Vec<(PoolKey, u32, u32)>> {
    if !wanted.iter().any(|w| due(written.get(&w.key), w.waiting, w.recent)) {
        return None;
    }
    let telling = |w: &Wanted| w.waiting > 0 || w.recent > 0 || written.contains_key(&w.key);
    Some(wanted.into_iter().filter(telling).map(|w| (w.key, w.waiting, w.recent)).collect())
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

#[cfg(test)]
mod tests {
    use davit_api::NetworkClass;

    use super::*;

    fn wanted(memory_mb: u32, waiting: u32) -> Wanted {
        let network = NetworkClass::Egress;
        let key = PoolKey { image: "i".into(), memory_mb, cpu_millis: 1, ephemeral_mb: 1, network };
        Wanted { key, waiting, recent: 0, ready: 0 }
    }

    #[test]
    fn news_of_one_key_does_not_take_back_what_another_waits_for() {
        let at = Instant::now();
        let written = HashMap::from([(wanted(128, 1).key, (1, 0, at))]);
        assert_eq!(news(vec![wanted(128, 1)], &written), None);
        let rows = news(vec![wanted(128, 1), wanted(256, 2)], &written).unwrap();
        assert_eq!(rows.iter().map(|r| (r.0.memory_mb, r.1)).collect::<Vec<_>>(), [(128, 1), (256, 2)]);
    }
}
