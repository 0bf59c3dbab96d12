//! How gateways on one machine know that one of them is gone: each holds a lock on a file of its own, below the state
//! directory, for as long as its process lives. Whoever finds a file that nobody holds gives up what that gateway
//! held, so that nobody need wait for its lease to lapse.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use davit_api::GatewayId;
use davit_registry::Registry;

use super::BEAT;

/// A gateway's file. Dropping it says that the gateway is gone; so does the end of the process.
#[derive(Debug)]
pub struct Seat {
    path: PathBuf,
    _lock: File,
}

impl Seat {
    /// Takes a seat in a state directory.
    pub fn take(state_dir: &Path, gateway: GatewayId) -> io::Result<Self> {
        let dir = folder(state_dir);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(gateway.to_string());
        let lock = File::create(&path)?;
        // At most one that looks for empty seats has it, and only for the moment in which it is new.
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    /// Gives up the gateways that left their seats in this state directory without a word.
    pub async fn clear(registry: &Registry, state_dir: &Path) -> io::Result<()> {
        for (gateway, path, _lock) in empty(state_dir)? {
            match tokio::time::timeout(BEAT, registry.drop_gateway(gateway)).await {
                Ok(Ok(())) => {
                    tracing::debug!(%gateway, "a gateway whose process is gone is given up");
                    std::fs::remove_file(path)?;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%gateway, %error, "a gateway that is gone keeps its lease until it lapses");
                }
                Err(_) => tracing::warn!(%gateway, "a gateway that is gone keeps its lease until it lapses"),
            }
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("gateways")
}

/// Seats that nobody holds, with a lock on each.
fn empty(state_dir: &Path) -> io::Result<Vec<(GatewayId, PathBuf, File)>> {
    let mut empty = Vec::new();
    let files = match std::fs::read_dir(folder(state_dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty),
        files => files?,
    };
    for file in files {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(gateway) = name.and_then(|name| name.parse().ok()) else { continue };
        // One that is gone by now left it in order.
        let Ok(lock) = File::open(&path) else { continue };
        match lock.try_lock() {
            Ok(()) => empty.push((gateway, path, lock)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(empty)
}

#[cfg(test)]
mod tests {
    use davit_registry::testing::TestDatabase;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_killed_gateway_is_given_up_by_the_next_and_one_that_lives_is_not() {
        let database = TestDatabase::new().await;
        let registry = database.registry();
        let dir = tempfile::tempdir().unwrap();
        let (killed, alive, left, elsewhere) =
            (GatewayId::new(), GatewayId::new(), GatewayId::new(), GatewayId::new());
        for gateway in [killed, alive, elsewhere] {
            registry.register_gateway(gateway, "http://g").await.unwrap();
        }
        let _alive = Seat::take(dir.path(), alive).unwrap();
        drop(Seat::take(dir.path(), left).unwrap());
        // A kill leaves the file and no lock.
        std::fs::write(dir.path().join("gateways").join(killed.to_string()), "").unwrap();
        std::fs::write(dir.path().join("gateways/notes.txt"), "not a gateway").unwrap();
        for _ in 0..2 {
            Seat::clear(registry, dir.path()).await.unwrap();
            let rows: Vec<GatewayId> =
                registry.gateways().await.unwrap().into_iter().map(|row| row.id).collect();
            assert_eq!(rows, [alive, elsewhere]);
        }
        assert_eq!(empty(dir.path()).unwrap().len(), 0);
    }
}
