//! One controller acts, the others stand by: a lease in the registry, on the database's clock. Whoever holds
//! it starts and removes containers; losing sight of the registry for most of a lease counts as losing it.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
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
pub struct Acting(watch::Receiver<Option<Fence>>);

impl Acting {
    /// Whether it acts now.
    pub fn now(&self) -> bool {
        self.0.borrow().is_some()
    }
    /// What shows the registry that it does. A process that slept may have it and not act any more, so the registry looks
    /// at it with what must not be done twice.
    pub fn fence(&self) -> Option<Fence> {
        self.0.borrow().clone()
    }
    /// Returns once it acts. Never returns when the lease task has ended.
    pub async fn wait(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Competes for the lease until the tasks are stopped, then lets go of it.
pub fn spawn(registry: Registry, holder: Uuid, tasks: &Tasks) -> Acting {
    let (sender, receiver) = watch::channel(None);
    let stopping = tasks.stopping();
    tasks.spawn_loop("controller-lease", async move {
        let mut held: Option<(Fence, Instant)> = None;
        loop {
            held = step(&registry, holder, held).await;
            let fence = held.as_ref().map(|(fence, _)| fence.clone());
            sender.send_if_modified(|known| std::mem::replace(known, fence.clone()) != fence);
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep(RENEW) => {}
            }
        }
        sender.send_replace(None);
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

/// A holder's id, and the lock that keeps others on this machine from using the same.
#[derive(Debug)]
pub struct Holder {
    /// The id.
    pub id: Uuid,
    _lock: Option<File>,
}

/// A holder's id that outlives the process: a controller that was killed and comes back with the same state
/// directory has its lease at once instead of waiting for it to lapse. Only one process at a time has that id;
/// a standby beside it, which must not pass for it, gets one of its own.
pub fn holder(state_dir: &Path) -> std::io::Result<Holder> {
    let path = state_dir.join("controller-id");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Holder { id: Uuid::new_v4(), _lock: None }),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let id = match text.trim().parse() {
        Ok(id) => id,
        Err(_) => {
            let id = Uuid::new_v4();
            file.set_len(0)?;
            file.write_all_at(id.to_string().as_bytes(), 0)?;
            id
        }
    };
    Ok(Holder { id, _lock: Some(file) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_id_that_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = holder(dir.path()).unwrap();
        let standby = holder(dir.path()).unwrap();
        assert_ne!(first.id, standby.id);
        let id = first.id;
        drop(first);
        assert_eq!(holder(dir.path()).unwrap().id, id, "who comes back is the same");
    }
}
