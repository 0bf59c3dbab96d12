//! Code that instances share: each live version's bundle is unpacked once on this host, ahead of its first call,
//! and a cold start only mounts it. Where that cannot be had, or not yet, instances unpack for themselves; nobody
//! ever waits for a tree.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use davit_api::{Digest, InstanceId};
use davit_link::code::{Mounts, NotShared, Trees};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// After a failure, such as a full disk, a bundle is left alone for so long.
const REST: Duration = Duration::from_secs(60);

/// The means to share, on a host that has them.
pub struct Sharing {
    mounts: Mounts,
    trees: Trees,
    /// Unpacking is work for a core and the disk; one at a time leaves the rest to calls.
    one: Semaphore,
    resting: Mutex<HashMap<Digest, Instant>>,
    /// Why it is no longer tried.
    stopped: OnceLock<String>,
}

impl Sharing {
    /// Tries what sharing needs, in the state directory that the controller also uses.
    pub fn open(state_dir: &Path) -> Result<Self, NotShared> {
        let mounts = Mounts::open(state_dir)?;
        let trees = Trees::open(state_dir.join("bundles")).map_err(|e| NotShared(format!("bundles: {e}")))?;
        Ok(Self {
            mounts,
            trees,
            one: Semaphore::new(1),
            resting: Mutex::default(),
            stopped: OnceLock::new(),
        })
    }

    /// Whether there is nothing left to do, or to be done now, for this bundle.
    pub(super) fn settled(&self, digest: Digest) -> bool {
        let rests = |since: &Instant| since.elapsed() < REST;
        self.stopped.get().is_some()
            || self.trees.has(&digest.hex())
            || self.resting.lock().get(&digest).is_some_and(rests)
    }

    /// Unpacks a bundle, whose digest has been checked, unless that is done.
    pub(super) async fn prepare(&self, digest: Digest, bundle: &Path) {
        let Ok(_one) = self.one.acquire().await else { return };
        if self.settled(digest) {
            return;
        }
        let (trees, bundle, begun) = (self.trees.clone(), bundle.to_owned(), Instant::now());
        let made = tokio::task::spawn_blocking(move || {
            let file = File::open(bundle)?;
            let size = file.metadata()?.len();
            trees.make(&digest.hex(), file, size)
        });
        match made.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(()) => tracing::debug!(%digest, took = ?begun.elapsed(), "code unpacked for all instances"),
            Err(error) => {
                tracing::warn!(%digest, %error, "code is not shared; each instance unpacks it");
                let mut resting = self.resting.lock();
                resting.retain(|_, since| since.elapsed() < REST);
                resting.insert(digest, Instant::now());
            }
        }
    }

    /// Shows an instance its code. False when it has to unpack for itself.
    pub(super) fn give(&self, instance: InstanceId, digest: Digest) -> bool {
        if self.stopped.get().is_some() {
            return false;
        }
        match self.mounts.give(&instance.to_string(), &digest.hex()) {
            Ok(()) => true,
            // No tree yet, or an instance that was started without a mount point.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(%instance, %error, "code cannot be mounted; the instance unpacks it");
                false
            }
        }
    }

    /// An instance did not find what was mounted for it: the engine's mounts are not this process's.
    pub(super) fn missed(&self) {
        let why = "mounts made here do not appear in containers";
        if self.stopped.set(why.to_owned()).is_ok() {
            tracing::warn!("code is no longer shared, each instance unpacks its own: {why}");
        }
    }

    /// Removes the trees that `wanted` does not name any more and no instance sees.
    pub(super) fn prune(&self, wanted: impl Fn(&str) -> bool, age: Duration) {
        let unused = |name: &str| !wanted(name) && !self.mounts.in_use(name).unwrap_or(true);
        if let Err(error) = self.trees.prune(unused, age) {
            tracing::warn!(%error, "old code cannot be removed");
        }
    }

    /// Why sharing ended, if it did.
    pub(super) fn stopped(&self) -> Option<&str> {
        self.stopped.get().map(String::as_str)
    }
}
