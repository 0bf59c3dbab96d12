//! From `queued` to `ready`: claim a version, make its bundle (in a builder container, or without one where the
//! source only has to be packed), store it, start it once, and only then let it go live. A controller that dies in
//! between leaves a lease that lapses; the next one starts over, since every step may be done twice.

mod bundle;
mod deps;
mod direct;
mod image;
mod log;
mod pack;
mod prepare;
mod recipe;
mod run;
mod settings;
mod smoke;
mod spares;
mod warm;

use std::sync::Arc;
use std::time::Duration;

use davit_daemon::{Backoff, Tasks};
use davit_registry::{BuildJob, Topic};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::acting::Acting;
use crate::world::World;

pub(crate) use recipe::{LABEL as TOML_LABEL, Recipes, is_resizable};
pub(crate) use run::workshop;
pub use settings::BuildSettings;
pub(crate) use spares::{Spares, spawn as spawn_spares};

const TICK: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Attempts when davit itself, not the user's code, is what failed.
const ATTEMPTS: u32 = 3;

/// Why a version did not become ready.
#[derive(Debug)]
enum Failed {
    /// The function's owner has to change something; the text says what.
    User(String),
    /// davit, the engine or the registry failed; the same build may succeed later.
    Platform(String),
}

impl Failed {
    fn platform(error: impl std::fmt::Display) -> Self {
        Self::Platform(error.to_string())
    }
}

/// Starts the loop.
pub fn spawn(world: Arc<World>, mut acting: Acting, tasks: &Tasks) {
    let stopping = tasks.stopping();
    let spawner = tasks.clone();
    // A new id each time: the registry lets no builder take over from itself, and after a crash this one must.
    let builder = Uuid::new_v4();
    let slots = Arc::new(Semaphore::new(world.settings.build.parallel.max(1)));
    tasks.spawn_loop("build", async move {
        let mut builds = world.changes.subscribe(Topic::Builds);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = acting.wait() => {}
            }
            builds.mark_unchanged();
            let claimed = claim(&world, builder, &slots).await;
            if let Some((job, slot)) = claimed {
                let (world, stopping) = (world.clone(), stopping.clone());
                spawner.spawn("build-version", async move {
                    let _slot = slot;
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        () = carry_out(&world, job) => {}
                    }
                });
                continue;
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                Ok(()) = builds.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    });
}

async fn claim(
    world: &World,
    builder: Uuid,
    slots: &Arc<Semaphore>,
) -> Option<(BuildJob, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().try_acquire_owned().ok()?;
    match world.registry.claim_build(builder).await {
        Ok(job) => job.map(|job| (job, slot)),
        Err(error) => {
            tracing::warn!(%error, "cannot look for versions to build");
            None
        }
    }
}

/// Builds one version to `ready` or `failed`, keeping its lease meanwhile.
async fn carry_out(world: &Arc<World>, job: BuildJob) {
    let name = format!("{}/{} version {}", job.namespace, job.function, job.number);
    tracing::info!(version = %job.version_id, "building {name}");
    let begun = std::time::Instant::now();
    let _building = world.spares.build();
    let heartbeat = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(error) = world.registry.heartbeat_build(job.version_id).await {
                tracing::warn!(%error, "cannot keep a build's lease");
            }
        }
    };
    let verdict = tokio::select! {
        verdict = attempts(world, &job) => verdict,
        () = heartbeat => return,
        // Its containers and files go with what is dropped here.
        () = cancelled(world, &job) => return tracing::info!(version = %job.version_id, "{name} was cancelled"),
    };
    match verdict {
        Ok(()) => tracing::info!(version = %job.version_id, took = ?begun.elapsed(), "{name} is live"),
        Err(message) => {
            tracing::info!(version = %job.version_id, %message, "{name} failed");
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
            // Without this word the user would wait for ever, so it is repeated until it is heard.
            while let Err(error) = world.registry.fail_version(job.version_id, &message).await {
                tracing::warn!(%error, "cannot say that a build failed");
                if matches!(error, davit_registry::RegistryError::Refused(_)) {
                    break;
                }
                backoff.wait().await;
            }
        }
    }
}

/// Until nobody wants the build any more.
async fn cancelled(world: &World, job: &BuildJob) {
    let mut builds = world.changes.subscribe(Topic::Builds);
    loop {
        builds.mark_unchanged();
        if let Ok(false) = world.registry.is_being_built(job.version_id).await {
            return;
        }
        tokio::select! {
            Ok(()) = builds.changed() => {}
            // A notification may be lost.
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
    }
}

async fn attempts(world: &Arc<World>, job: &BuildJob) -> Result<(), String> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
    let mut attempt = 1;
    loop {
        match run::run(world, job).await {
            Ok(()) => return Ok(()),
            Err(Failed::User(message)) => return Err(message),
            Err(Failed::Platform(message)) if attempt >= ATTEMPTS => {
                return Err(format!("davit could not build it: {message}"));
            }
            Err(Failed::Platform(message)) => {
                tracing::warn!(attempt, %message, "a build did not get through; trying again");
                attempt += 1;
                backoff.wait().await;
            }
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
