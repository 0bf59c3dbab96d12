//! The gateway's lease: while it beats, the gateway's instances and jobs are its own. With each beat it tells the other
//! gateways what they must know, and learns who they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use davit_api::GatewayId;
use davit_daemon::Latch;
use davit_registry::{Changes, GatewayWord, Registry, Topic};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::instances::Instances;
use crate::peers::Known;

mod seat;

pub use seat::Seat;

/// Between two beats; the lease lasts ten seconds, so two may be lost.
const BEAT: Duration = Duration::from_secs(3);
/// Least time between two beats: whoever joins makes everybody speak.
const FLOOR: Duration = Duration::from_millis(20);

/// What beats.
pub struct Lease {
    /// Where.
    pub registry: Registry,
    /// Whose lease it is.
    pub gateway: GatewayId,
    /// The address that clients use.
    pub public_url: String,
    /// Where other gateways reach it.
    pub address: Option<SocketAddr>,
    /// What is held under it.
    pub instances: Instances,
    /// It takes no more calls.
    pub leaving: CancellationToken,
}

/// One life of the lease, from one joining to its being given up.
struct Life {
    join: i64,
    known: Known,
}

impl Lease {
    /// Registers the gateway and keeps its lease until `stop`, then gives it back. `ready` opens once the others have
    /// taken this gateway into account, so that it may serve.
    ///
    /// A gateway that was given up while it could not beat (its machine slept, the registry was away) registers
    /// again: the controller has destroyed what it owned, it sees those links close, and its jobs' receipts are no
    /// longer good, so nothing of its former life can do harm.
    pub async fn run(self, changes: Changes, ready: Arc<Latch>, stop: CancellationToken) {
        let mut told = changes.subscribe(Topic::Gateways);
        let mut tick = tokio::time::interval(BEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut life, mut ready, mut said_leaving) = (None, Some(ready), false);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                Ok(()) = told.changed() => {}
                () = self.leaving.cancelled(), if !said_leaving => {}
                () = stop.cancelled() => break,
            }
            tokio::time::sleep_until(next).await;
            next = Instant::now() + FLOOR;
            said_leaving = self.leaving.is_cancelled();
            match tokio::time::timeout(BEAT, self.beat(&mut life)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "no heartbeat"),
                Err(_) => tracing::warn!("no heartbeat: the registry does not answer in time"),
            }
            if life.as_ref().is_some_and(|life| life.known.view.is_active()) {
                ready = None;
            }
        }
        drop(ready);
        match tokio::time::timeout(BEAT, self.registry.drop_gateway(self.gateway)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "lease not given back; it will lapse"),
            Err(_) => tracing::debug!("lease not given back in time; it will lapse"),
        }
    }

    /// Speaks and listens until there is nothing new to say.
    async fn beat(&self, life: &mut Option<Life>) -> davit_registry::Result<()> {
        loop {
            let Life { join, known } = match life {
                Some(life) => life,
                None => life.insert(self.join().await?),
            };
            let before = known.view.adopted().to_vec();
            let word = GatewayWord {
                adopted: before.clone(),
                over: self.instances.over(),
                address: self.address.map(|address| address.to_string()),
                leaving: self.leaving.is_cancelled(),
            };
            let Some(peers) = self.registry.beat_gateway(self.gateway, *join, &word).await? else {
                tracing::warn!("this gateway was given up while it was silent; it registers again");
                *life = None;
                continue;
            };
            let was_active = known.view.is_active();
            *known = known.read(self.gateway, &peers);
            self.instances.adopt(known.clone());
            if known.view.is_active() && !was_active {
                tracing::info!(others = known.others.len(), "this gateway has its share");
            }
            if known.view.adopted() == before {
                return Ok(());
            }
            // Who has joined waits for this word; the one that says so is said at once.
            self.registry.poke(Topic::Gateways);
        }
    }

    async fn join(&self) -> davit_registry::Result<Life> {
        let join = self.registry.register_gateway(self.gateway, &self.public_url).await?;
        let known = Known::joining(self.gateway, join);
        self.instances.adopt(known.clone());
        Ok(Life { join, known })
    }
}
