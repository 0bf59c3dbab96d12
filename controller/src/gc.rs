//! Collects what nobody wants any more: artifacts, old log lines, invocations and messages, directories without a
//! container, the workshop of a build that was killed. Containers are reconcile's.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use davit_daemon::Tasks;
use davit_registry::Retention;

use crate::acting::Acting;
use crate::build::workshop;
use crate::world::World;

const EVERY: Duration = Duration::from_secs(60);
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const LINES_KEPT: u32 = 100_000;
/// Younger ones may be about to get their container.
const DIR_AGE: Duration = Duration::from_secs(120);
/// Longer than any build may take.
const WORKSHOP_AGE: Duration = Duration::from_secs(3 * 3600);

/// Starts the loop.
pub(crate) fn spawn(world: Arc<World>, mut acting: Acting, tasks: &Tasks) {
    let stopping = tasks.stopping();
    tasks.spawn_loop("collect", async move {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = acting.wait() => {}
            }
            collect(&world).await;
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    });
}

/// One round; each part is tried even when another fails.
async fn collect(world: &World) {
    match world.registry.collect_versions().await {
        Ok(0) => {}
        Ok(versions) => tracing::info!(versions, "removed versions that nobody keeps"),
        Err(error) => tracing::warn!(%error, "cannot remove old versions"),
    }
    match world.registry.gc_artifacts().await {
        Ok(report) if report != Default::default() => tracing::info!(?report, "collected"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot collect artifacts"),
    }
    if let Err(error) = world.registry.prune_logs(LOGS_KEPT, LINES_KEPT).await {
        tracing::warn!(%error, "cannot remove old log lines");
    }
    match world.registry.keep_invocations(world.settings.invocation_days.get()).await {
        Ok(done) if done != Retention::default() => tracing::info!(?done, "looked after ended invocations"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot look after ended invocations"),
    }
    let fires = Duration::from_secs(u64::from(world.settings.fire_days) * 24 * 3600);
    if let Err(error) = world.registry.prune_fires(fires).await {
        tracing::warn!(%error, "cannot remove old instants of schedules");
    }
    match world.registry.keep_messages(world.settings.message_days.get()).await {
        Ok(done) if done != Retention::default() => tracing::info!(?done, "looked after messages of topics"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot look after messages of topics"),
    }
    if let Err(error) = world.registry.prune_route_changes().await {
        tracing::warn!(%error, "cannot remove old notes of changed routes");
    }
    if let Err(error) = world.registry.prune_obstacles().await {
        tracing::warn!(%error, "cannot remove old notes of what stood in the way of starts");
    }
    audit(world).await;
    if let Err(error) = images(world).await {
        tracing::warn!(%error, "cannot remove images that no version runs in");
    }
    if let Err(error) = directories(world).await {
        tracing::warn!(%error, "cannot collect instance directories");
    }
    workshops(world);
}

/// A batch a round; what is left has waited for a year and can wait for a minute.
async fn audit(world: &World) {
    let Some(days) = world.settings.audit_days else { return };
    match world.registry.prune_audit(days.get()).await {
        Ok(0) => {}
        Ok(entries) => tracing::info!(entries, days, "removed old audit entries"),
        Err(error) => tracing::warn!(%error, "cannot remove old audit entries"),
    }
}

/// Images that no version runs in any more: functions' own ones go, and earlier ones of a runtime. The names are read
/// first: what is kept after that is not among them. While something is built its image may have a name already, and no version on record yet.
async fn images(world: &World) -> Result<(), String> {
    let kept = world.backend.kept_images().await.map_err(|e| e.to_string())?;
    if kept.is_empty() || world.spares.building() {
        return Ok(());
    }
    let wanted = world.registry.images_of_versions().await.map_err(|e| e.to_string())?;
    let wanted: HashSet<String> = wanted.into_iter().collect();
    for kept in kept.into_iter().filter(|kept| !wanted.contains(&kept.id.0)) {
        tracing::info!(image = %kept.id.0, name = %kept.name, "no version runs in it any more: an image loses the name that kept it");
        world.backend.drop_image(kept).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

async fn directories(world: &World) -> Result<(), crate::backend::BackendError> {
    // Directories first: one that is made after this line is not in the list.
    let dirs = world.backend.leftover_dirs(DIR_AGE)?;
    let seen = world.backend.observe().await?;
    let mut wanted: HashSet<_> = seen.into_iter().filter_map(|c| c.instance).collect();
    wanted.extend(world.starting.now());
    wanted.extend(world.errands.now());
    for dir in dirs.into_iter().filter(|id| !wanted.contains(id)) {
        tracing::debug!(instance = %dir, "removing a directory without a container");
        world.backend.remove_dir(dir)?;
    }
    Ok(())
}

fn workshops(world: &World) {
    let Ok(entries) = std::fs::read_dir(workshop(&world.settings.state_dir)) else { return };
    for entry in entries.flatten().filter(|entry| older(&entry.path(), WORKSHOP_AGE)) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "cannot remove an old build's files");
        }
    }
}

fn older(path: &std::path::Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|old| old > age))
}
