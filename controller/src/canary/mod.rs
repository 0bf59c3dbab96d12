//! The canaries that run: looked at once a second by the acting controller, which carries out what [`judge`] decides.
//!
//! No step is taken twice, whoever acts: a step's transaction says which step it goes on from, and the database's clock
//! says for how long that has been (`registry/src/canaries.rs`). A controller that comes back reads where each one stands.

pub(crate) mod judge;

use std::sync::Arc;
use std::time::Duration;

use davit_daemon::Tasks;
use davit_registry::{RegistryError, RunningCanary};

use crate::acting::Acting;
use crate::world::World;
use judge::{Step, Verdict};

/// Between two looks. Gateways report twice a second.
const EVERY: Duration = Duration::from_secs(1);

/// Starts the loop.
pub(crate) fn spawn(world: Arc<World>, mut acting: Acting, tasks: &Tasks) {
    let stopping = tasks.stopping();
    tasks.spawn_loop("canaries", async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = acting.wait() => {}
            }
            if let Err(error) = look(&world).await {
                tracing::warn!(%error, "canaries cannot be looked at");
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    });
}

/// One look at all of them; one that cannot be carried on does not hold up the others.
async fn look(world: &World) -> Result<(), RegistryError> {
    for canary in world.registry.running_canaries().await? {
        let verdict = judge::judge(&Step::of(&canary));
        if let Err(error) = carry_out(world, &canary, &verdict).await {
            tracing::warn!(%error, canary = %canary.id, "a canary cannot be carried on; it will be tried again");
        }
    }
    Ok(())
}

async fn carry_out(world: &World, canary: &RunningCanary, verdict: &Verdict) -> Result<(), RegistryError> {
    let RunningCanary { id, namespace, function, version, step, .. } = canary;
    let done = match verdict {
        Verdict::Wait => return Ok(()),
        Verdict::Advance(reason) => {
            world.registry.as_davit("canary.advance").advance_canary(*id, *step, reason).await?
        }
        Verdict::RollBack(reason) => {
            world.registry.as_davit("canary.roll_back").roll_back_canary(*id, reason).await?
        }
    };
    if done {
        tracing::info!(%namespace, %function, version, step = step + 1, ?verdict, "canary");
    }
    Ok(())
}
