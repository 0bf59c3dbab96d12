//! Unpacked bundles on the host: `<state>/bundles/<digest>`, made once, owned by root, never changed.
//!
//! A tree gets its name when it is complete. After a power cut a complete name may stand over files that never
//! reached the disk, so trees do not outlive the boot of the machine in which they were made.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::unpack;

/// Ends the name of a tree that is being made.
const PART: &str = "part";
/// The file that holds the id of the boot in which the trees were made.
const BOOT: &str = "boot";

/// The trees of one state directory. Gateway and controller each have one.
#[derive(Debug, Clone)]
pub struct Trees {
    dir: PathBuf,
}

impl Trees {
    /// Trees in `dir`, which is made. Those of an earlier boot are removed.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        make_private_dir(&dir)?;
        let trees = Self { dir };
        trees.forget_other_boots()?;
        Ok(trees)
    }

    fn forget_other_boots(&self) -> io::Result<()> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(self.dir.join(BOOT))?;
        // Another process may be about to do the same; the second finds the id.
        flock(&file, FlockOperation::LockExclusive)?;
        let mut known = String::new();
        io::Read::read_to_string(&mut file, &mut known)?;
        if known == boot && !boot.is_empty() {
            return Ok(());
        }
        for name in self.names()? {
            std::fs::remove_dir_all(self.dir.join(name))?;
        }
        file.set_len(0)?;
        std::os::unix::fs::FileExt::write_all_at(&file, boot.as_bytes(), 0)
    }

    /// Names of folders, complete trees and others.
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.dir)?.flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Whether the tree `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_dir()
    }

    /// Unpacks a bundle of `size` bytes, whose digest the caller has checked, as the tree `name`. Blocks; what
    /// goes wrong leaves nothing behind.
    pub fn make(&self, name: &str, bundle: File, size: u64) -> io::Result<()> {
        if self.has(name) {
            return Ok(());
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let part = self.dir.join(format!("{name}.{}-{number}.{PART}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o755).create(&part)?;
        let made =
            unpack(bundle, size, &part).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what));
        // Whatever the file mode mask is: the function's user must be able to enter.
        let made = made.and_then(|()| Ok(rustix::fs::chmod(&part, 0o755.into())?));
        let made = made.and_then(|()| std::fs::rename(&part, self.dir.join(name)));
        if made.is_err() {
            let _ = std::fs::remove_dir_all(&part);
        }
        // Another process may have been first; one tree is as good as the other.
        if self.has(name) { Ok(()) } else { made }
    }

    /// Removes what is older than `age` and either a tree that `unused` says nobody needs, or half of one.
    pub fn prune(&self, unused: impl Fn(&str) -> bool, age: Duration) -> io::Result<()> {
        for name in self.names()? {
            let path = self.dir.join(&name);
            if !older(&path, age) || !(name.ends_with(PART) || unused(&name)) {
                continue;
            }
            // Out of the way first: half a tree must never be found under a complete name.
            let out = self.dir.join(format!("{name}.{}-out.{PART}", std::process::id()));
            std::fs::rename(&path, &out)?;
            std::fs::remove_dir_all(&out)?;
        }
        Ok(())
    }
}

fn older(path: &Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|old| old > age))
}

/// A folder that only this user enters; what it holds reaches others by mounts alone.
pub(super) fn make_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
