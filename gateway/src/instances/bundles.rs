//! The code of live versions as files on this machine, so that a cold start only has to open or mount one.
//!
//! A bundle is fetched when its version becomes live, checked against its digest, and renamed into place whole.
//! A file that was there before this process is checked once before it is trusted.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use davit_api::{Digest, InstanceId};
use davit_link::code::NotShared;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex as AsyncMutex;

use crate::instances::sharing::Sharing;

/// Where bundles come from when they are not here yet.
pub trait Source: Send + Sync {
    /// Writes the whole artifact to `to`.
    fn fetch<'a>(
        &'a self,
        digest: Digest,
        to: &'a Path,
    ) -> futures_util::future::BoxFuture<'a, io::Result<()>>;
}

/// A file is kept this long after its version was last live: a rollback finds it still there.
const KEPT: Duration = Duration::from_secs(600);

/// Bundles on this machine.
pub struct Bundles {
    dir: PathBuf,
    source: Box<dyn Source>,
    known: Mutex<Known>,
    sharing: Result<Sharing, NotShared>,
}

#[derive(Default)]
struct Known {
    /// Checked in this process's life.
    verified: HashSet<Digest>,
    /// One fetch at a time per bundle.
    fetching: HashMap<Digest, Arc<AsyncMutex<()>>>,
}

impl Bundles {
    /// Bundles in `dir`, which is created. Instances unpack them.
    pub fn new(dir: PathBuf, source: Box<dyn Source>) -> io::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let sharing = Err(NotShared("it is not asked for".into()));
        Ok(Self { dir, source, known: Mutex::default(), sharing })
    }

    /// The same, unpacked here if `sharing` is there.
    pub fn shared(self, sharing: Result<Sharing, NotShared>) -> Self {
        Self { sharing, ..self }
    }

    /// How code reaches instances, in words.
    pub fn way(&self) -> String {
        match &self.sharing {
            Ok(sharing) => {
                sharing.stopped().map_or("shared".into(), |why| format!("unpacked in each instance: {why}"))
            }
            Err(why) => format!("unpacked in each instance: {why}"),
        }
    }

    /// Shows an instance its code, read-only. False when it has to be sent the bundle alone.
    pub fn give(&self, instance: InstanceId, digest: Digest) -> bool {
        self.sharing.as_ref().is_ok_and(|sharing| sharing.give(instance, digest))
    }

    /// An instance did not find the code it was given, and unpacked the bundle.
    pub fn missed(&self) {
        if let Ok(sharing) = &self.sharing {
            sharing.missed();
        }
    }

    /// Whether everything that makes a cold start short has been done for a bundle.
    pub fn is_prepared(&self, digest: Digest) -> bool {
        self.has(digest) && self.sharing.as_ref().map_or(true, |sharing| sharing.settled(digest))
    }

    /// Has it here, checked, and unpacked where instances share code.
    pub async fn prepare(&self, digest: Digest) -> io::Result<()> {
        self.ensure(digest).await?;
        if let Ok(sharing) = &self.sharing {
            sharing.prepare(digest, &self.path(digest)).await;
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{}.tar", digest.hex()))
    }

    /// The bundle, opened for reading from its start.
    pub async fn open(&self, digest: Digest, size: u64) -> io::Result<File> {
        self.ensure(digest).await?;
        // An open and a stat of a file that was just used: microseconds, not worth a thread.
        let file = File::open(self.path(digest))?;
        if file.metadata()?.len() != size {
            self.known.lock().verified.remove(&digest);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the bundle has another size than its version says",
            ));
        }
        Ok(file)
    }

    /// Whether it is here and has been checked.
    pub fn has(&self, digest: Digest) -> bool {
        self.known.lock().verified.contains(&digest) && self.path(digest).exists()
    }

    /// Has it here and checked.
    pub async fn ensure(&self, digest: Digest) -> io::Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        let gate = self.known.lock().fetching.entry(digest).or_default().clone();
        let _one = gate.lock().await;
        if !self.has(digest) {
            let path = self.path(digest);
            if !verified(path.clone(), digest).await {
                let part = self.dir.join(format!("{}.{}.part", digest.hex(), uuid::Uuid::new_v4().simple()));
                let fetched = self.fetch_checked(digest, &part).await;
                let moved = match fetched {
                    Ok(()) => tokio::fs::rename(&part, &path).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = moved {
                    let _ = tokio::fs::remove_file(&part).await;
                    return Err(error);
                }
            }
            self.known.lock().verified.insert(digest);
        }
        self.known.lock().fetching.remove(&digest);
        Ok(())
    }

    async fn fetch_checked(&self, digest: Digest, part: &Path) -> io::Result<()> {
        self.source.fetch(digest, part).await?;
        if verified(part.to_owned(), digest).await {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{digest}: what was read has another digest")))
    }

    /// Removes files of versions that have not been live for a while, and what a killed fetch left.
    pub fn prune(&self, live: &HashSet<Digest>) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = name
                .to_str()
                .and_then(|n| n.strip_suffix(".tar"))
                .and_then(|hex| format!("sha256:{hex}").parse().ok());
            let path = entry.path();
            if digest.is_none() && !name.as_encoded_bytes().ends_with(b".part") {
                continue;
            }
            if digest.is_some_and(|d| live.contains(&d)) {
                // Its age counts from the last time it was seen live.
                let _ = File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|f| f.set_modified(std::time::SystemTime::now()));
                continue;
            }
            let old = entry
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT));
            if old && std::fs::remove_file(&path).is_ok() {
                digest.map(|d| self.known.lock().verified.remove(&d));
            }
        }
        if let Ok(sharing) = &self.sharing {
            // A tree goes after its bundle.
            sharing.prune(|name| self.dir.join(format!("{name}.tar")).exists(), KEPT);
        }
    }
}

/// Whether the file is there and is what its name says.
async fn verified(path: PathBuf, digest: Digest) -> bool {
    let hash = tokio::task::spawn_blocking(move || {
        let mut file = File::open(path).ok()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match io::Read::read(&mut file, &mut buffer).ok()? {
                0 => return Some(<[u8; 32]>::from(hash.finalize())),
                n => hash.update(&buffer[..n]),
            }
        }
    });
    hash.await.ok().flatten().is_some_and(|h| Digest::from_bytes(h) == digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::BoxFuture;

    struct Gives(&'static [u8]);
    impl Source for Gives {
        fn fetch<'a>(&'a self, _: Digest, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
            Box::pin(async move { std::fs::write(to, self.0) })
        }
    }

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Sha256::digest(bytes).into())
    }

    #[tokio::test]
    async fn a_bundle_is_fetched_checked_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(dir.path().join("b"), Box::new(Gives(b"code"))).unwrap();
        let file = bundles.open(digest_of(b"code"), 4).await.unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4);
        assert!(bundles.open(digest_of(b"code"), 5).await.is_err(), "another size is refused");
    }

    #[tokio::test]
    async fn wrong_bytes_are_refused_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let bundles = Bundles::new(dir.path().to_owned(), Box::new(Gives(b"evil"))).unwrap();
        assert!(bundles.open(digest_of(b"code"), 4).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_damaged_file_from_before_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let digest = digest_of(b"code");
        std::fs::write(dir.path().join(format!("{}.tar", digest.hex())), b"bits").unwrap();
        let bundles = Bundles::new(dir.path().to_owned(), Box::new(Gives(b"code"))).unwrap();
        bundles.ensure(digest).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join(format!("{}.tar", digest.hex()))).unwrap(), b"code");
    }
}
