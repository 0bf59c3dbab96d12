//! The loop that makes containers match the registry. It takes no input: whatever woke it, it reads
//! everything, lets [`plan`] compute the difference and `apply` carry it out. Start-up, a missed
//! notification, a restart of the engine and a normal run are therefore one code path.

mod apply;
mod obstacles;
pub mod plan;
mod read;
mod resize;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use davit_daemon::Tasks;
use davit_registry::Topic;
use tokio::sync::watch;

use crate::acting::Acting;
use crate::world::World;

pub use plan::Bounds;

/// Longest time between two looks.
const TICK: Duration = Duration::from_secs(2);
/// Shortest: many changes at once are answered by one look.
const PAUSE: Duration = Duration::from_millis(20);

/// What the last look saw and did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Status {
    /// Whether this process acts; the rest is old if not.
    pub acting: bool,
    /// Looks so far.
    pub looks: u64,
    /// Containers seen.
    pub containers: usize,
    /// Rows that are not `removed`.
    pub instances: usize,
    /// Starts that run.
    pub starting: usize,
    /// Calls that wait for an image or for room.
    pub unmet: u32,
    /// Calls whose start waits until another has ended.
    pub queued: u32,
    /// Why the last look came to nothing.
    pub error: Option<String>,
}

/// Starts the loop.
pub fn spawn(world: Arc<World>, mut acting: Acting, tasks: &Tasks) -> watch::Receiver<Status> {
    let (sender, receiver) = watch::channel(Status::default());
    let stopping = tasks.stopping();
    let tasks_of_apply = tasks.clone();
    tasks.spawn_loop("reconcile", async move {
        // Subscribed before the first look, so that no change falls in between.
        let mut instances = world.changes.subscribe(Topic::Instances);
        let mut demand = world.changes.subscribe(Topic::Demand);
        let mut reader = read::Reader::new(world.clone());
        let applier = apply::Applier::new(world.clone(), acting.clone(), tasks_of_apply);
        let mut looks = 0;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = acting.wait() => {}
            }
            instances.mark_unchanged();
            demand.mark_unchanged();
            looks += 1;
            let status = look(&mut reader, &applier).await;
            if let Some(error) = &status.error {
                tracing::warn!(%error, "reconcile: cannot see the world");
            }
            sender.send_replace(Status { looks, acting: true, ..status });
            tokio::select! {
                () = stopping.cancelled() => return,
                Ok(()) = instances.changed() => {}
                Ok(()) = demand.changed() => {}
                () = applier.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    receiver
}

async fn look(reader: &mut read::Reader, applier: &apply::Applier) -> Status {
    let seen = match reader.read(applier).await {
        Ok(seen) => seen,
        Err(error) => return Status { error: Some(error), ..Status::default() },
    };
    let plan = plan::plan(&seen);
    let status = Status {
        containers: seen.containers.len(),
        instances: seen.instances.len(),
        starting: seen.starting_here.len(),
        unmet: plan.unmet,
        queued: plan.queued,
        ..Status::default()
    };
    reader.remember(&plan);
    applier.apply(plan).await;
    status
}
