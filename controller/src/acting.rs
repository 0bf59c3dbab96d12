//! One controller acts, the others stand by: a lease in the registry, on the database's clock. Whoever holds
//! it starts and removes containers; losing sight of the registry for most of a lease counts as losing it.

use std::path::Path;
use std::time::Duration;

use davit_daemon::Tasks;
use davit_registry::{Fence, Registry};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

const LEASE: &str = "controller";
const RENEW: Duration = Duration::from_secs(3);
/// Less than the lease of ten seconds, so that we have stopped before anybody else starts.
const DOUBT: Duration = Duration::from_secs(7);

/// Whether this process acts; changes with the lease.
#[derive(Debug, Clone)]
pub struct Acting(watch::Receiver<bool>);

impl Acting {
    /// Whether it acts now.
    pub fn now(&self) -> bool {
        *self.0.borrow()
    }
    /// Returns once it acts. Never returns when the lease task has ended.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|acting| *acting).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Competes for the lease until the tasks are stopped, then lets go of it.
pub fn spawn(registry: Registry, holder: Uuid, tasks: &Tasks) -> Acting {
    let (sender, receiver) = watch::channel(false);
    let stopping = tasks.stopping();
    tasks.spawn_loop("controller-lease", async move {
        let mut held: Option<(Fence, Instant)> = None;
        loop {
            held = step(&registry, holder, held).await;
            sender.send_if_modified(|acting| std::mem::replace(acting, held.is_some()) != held.is_some());
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(RENEW) => {}
            }
        }
        sender.send_replace(false);
        if let Some((fence, _)) = held {
            let _ = tokio::time::timeout(RENEW, registry.release_lease(&fence)).await;
        }
    });
    Acting(receiver)
}

async fn step(registry: &Registry, holder: Uuid, held: Option<(Fence, Instant)>) -> Option<(Fence, Instant)> {
    let asked = Instant::now();
    let Some((fence, last)) = held else {
        return match registry.acquire_lease(LEASE, holder).await {
            Ok(Some(fence)) => {
                tracing::info!(fence = fence.number, "this controller acts");
                Some((fence, asked))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot ask for the controller's lease");
                None
            }
        };
    };
    match tokio::time::timeout(RENEW, registry.renew_lease(&fence)).await {
        Ok(Ok(true)) => Some((fence, asked)),
        Ok(Ok(false)) => {
            tracing::warn!("the controller's lease is lost");
            None
        }
        Ok(Err(_)) | Err(_) if last.elapsed() < DOUBT => Some((fence, last)),
        Ok(Err(_)) | Err(_) => {
            tracing::warn!("the controller's lease cannot be renewed; standing by");
            None
        }
    }
}

/// A holder's id that outlives the process: a controller that was killed and comes back with the same state
/// directory has its lease at once instead of waiting for it to lapse.
pub fn stable_holder(state_dir: &Path) -> std::io::Result<Uuid> {
    let path = state_dir.join("controller-id");
    if let Some(id) = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(id);
    }
    let id = Uuid::new_v4();
    std::fs::write(&path, id.to_string())?;
    Ok(id)
}
