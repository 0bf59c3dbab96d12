//! The mount points of containers that share code with others: see [`davit_link::code`]. What sharing needs is
//! tried once, when the engine is connected, and then by the first container; without it containers get a memory
//! file system from the engine, and everything else stays the same.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use davit_api::{Digest, InstanceId};
use davit_link::code::{Mounts, NotShared, Trees};
use parking_lot::RwLock;

use super::BackendError;
use crate::backend::spec;

pub(super) struct Sharing {
    state: PathBuf,
    mounts: RwLock<Option<Mounts>>,
}

impl Sharing {
    /// Tries it, if `wanted`.
    pub(super) fn open(state: &Path, wanted: bool) -> Self {
        let mounts = match wanted.then(|| Mounts::open(state)) {
            Some(Ok(mounts)) => Some(mounts),
            Some(Err(NotShared(why))) => {
                tracing::info!("containers are started without a place for shared code: {why}");
                None
            }
            None => None,
        };
        Self { state: state.to_owned(), mounts: RwLock::new(mounts) }
    }

    /// The mount point for a container that is about to be made; `None` when the engine shall provide.
    pub(super) fn make(&self, instance: InstanceId) -> Option<PathBuf> {
        let made = self.mounts.read().as_ref()?.make(&instance.to_string(), spec::TASK_MB);
        made.inspect_err(|error| tracing::warn!(%error, "no mount point for shared code")).ok()
    }

    /// The engine refused a container because of its mount point: it sees other mounts than this process.
    pub(super) fn give_up(&self, why: &BackendError) {
        if self.mounts.write().take().is_some() {
            tracing::warn!("code is not shared, the engine does not take its mount point: {why}");
        }
    }

    /// Removes the mount point of a container that is gone, if it had one.
    pub(super) fn remove(&self, instance: InstanceId) -> Result<(), BackendError> {
        let removed = Mounts::remove_left(&self.state, &instance.to_string());
        removed.map_err(|e| BackendError::Host(format!("mount point of {instance}: {e}")))
    }

    /// Removes every mount point and their folder; there are no containers any more.
    pub(super) fn close(&self) -> Result<(), BackendError> {
        let host = |e: io::Error| BackendError::Host(format!("mount points: {e}"));
        for instance in Mounts::left(&self.state) {
            Mounts::remove_left(&self.state, &instance).map_err(host)?;
        }
        self.mounts.read().as_ref().map_or(Ok(()), Mounts::close).map_err(host)
    }

    /// Unpacks the bundle on this host, where gateways will find it too, and shows it to a container. False when that
    /// cannot be had.
    pub(super) async fn share(&self, instance: InstanceId, digest: Digest, bundle: File) -> bool {
        let Some(mounts) = self.mounts.read().clone() else { return false };
        let bundles = self.state.join("bundles");
        let shared = tokio::task::spawn_blocking(move || {
            let size = bundle.metadata()?.len();
            Trees::open(bundles)?.make(&digest.hex(), bundle, size)?;
            mounts.give(&instance.to_string(), &digest.hex())
        });
        match shared.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%instance, %error, "code is not shared with a first start; it unpacks its own");
                false
            }
        }
    }
}
