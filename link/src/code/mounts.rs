//! Where the containers' `/var/task` come from, on the host.
//!
//! `<state>/tasks` is a mount of its own, shared, so that what is mounted below it later also appears in running
//! containers. In it, `<state>/tasks/<instance>` is a small memory file system that one container has as its
//! `/var/task`; the agent may unpack a bundle there. [`Mounts::give`] lays a bundle's tree over it instead, in one
//! system call. `<state>/tasks/bundles` shows the trees read-only; a mount made of a part of it is read-only from
//! its first moment, so there is none in which somebody could write.
//!
//! Nothing of an instance but mount points lies here, and they are removed by unmounting and `rmdir`: no recursive
//! removal ever comes near a bundle.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};

use super::mountinfo;

/// The one name in the folder that is no instance's.
const STORE: &str = "bundles";
/// Mounts on top of each other at one place, at most: the memory file system and one bundle, and a margin.
const STACKED: usize = 8;
/// Not below what a container's user needs to unpack a bundle into it: user and group 993.
const OWNER: u32 = 993;

/// Code cannot be shared on this host, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NotShared(pub String);

/// The mount points of one state directory. Controller and gateway each have one.
#[derive(Debug, Clone)]
pub struct Mounts {
    dir: PathBuf,
}

impl Mounts {
    /// Prepares `<state>/tasks` unless somebody did already, and tries a mount like the ones to come.
    pub fn open(state: &Path) -> Result<Self, NotShared> {
        let failed = |what: &str, e: io::Error| NotShared(format!("{what}: {e}"));
        let (dir, bundles) = (state.join("tasks"), state.join("bundles"));
        for path in [&dir, &bundles] {
            super::trees::make_private_dir(path).map_err(|e| failed(&path.display().to_string(), e))?;
        }
        let dir = dir.canonicalize().map_err(|e| failed("tasks", e))?;
        let mounts = Self { dir };
        // Gateway and controller may do this at the same time; a mount on top of a mount would hide what is there.
        let _one = mounts.lock().map_err(|e| failed("tasks", e))?;
        mounts.share().map_err(|e| failed("a shared mount", e))?;
        mounts.forget_killed(state).map_err(|e| failed("what was left", e))?;
        mounts.show(&bundles).map_err(|e| failed("a read-only mount", e))?;
        mounts.try_one().map_err(|e| failed("a trial", e))?;
        Ok(mounts)
    }

    fn lock(&self) -> io::Result<std::os::fd::OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.dir, flags, Mode::empty())?;
        rustix::fs::flock(&folder, FlockOperation::LockExclusive)?;
        Ok(folder)
    }

    /// Removes mount points that a killed davit left. An instance's own folder is made before its mount point and
    /// removed after it, so one without the other is nobody's.
    fn forget_killed(&self, state: &Path) -> io::Result<()> {
        let left = Self::left(state).into_iter();
        left.filter(|name| !state.join("instances").join(name).exists())
            .try_for_each(|name| self.remove(&name))
    }

    /// Makes the folder a shared mount.
    fn share(&self) -> io::Result<()> {
        match mountinfo::at(&mountinfo::read()?, &self.dir) {
            Some(found) if found.shared => return Ok(()),
            Some(_) => {}
            None => {
                mount_bind(&self.dir, &self.dir)?;
                // Out of the group of the mount it was made from, which may be that of the whole host.
                mount_change(&self.dir, MountPropagationFlags::PRIVATE)?;
            }
        }
        Ok(mount_change(&self.dir, MountPropagationFlags::SHARED)?)
    }

    /// Makes the trees visible read-only.
    fn show(&self, bundles: &Path) -> io::Result<()> {
        let store = self.dir.join(STORE);
        match std::fs::create_dir(&store) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let known = mountinfo::at(&mountinfo::read()?, &store).is_some();
        let same = |a: &Path, b: &Path| {
            let (a, b) = (rustix::fs::stat(a)?, rustix::fs::stat(b)?);
            Ok::<_, io::Error>((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        };
        // Somebody may have removed the folder of bundles, and it was made anew.
        if known && same(&store, bundles)? && read_only(&store)? {
            return Ok(());
        }
        clear(&store)?;
        mount_bind(bundles, &store)?;
        mount_change(&store, MountPropagationFlags::PRIVATE)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        Ok(mount_remount(&store, flags, "")?)
    }

    /// What every claim will do, with nobody watching.
    fn try_one(&self) -> io::Result<()> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("trial-{}-{number}", std::process::id());
        let tried = (|| {
            let point = self.make(&name, 1)?;
            mount_bind(self.dir.join(STORE), &point)?;
            match read_only(&point)? {
                true => Ok(()),
                false => Err(io::Error::other("a part of a read-only mount is not read-only here")),
            }
        })();
        self.remove(&name)?;
        tried
    }

    /// Makes the mount point of an instance whose container does not exist yet: an empty memory file system of at
    /// most `size_mb` MiB, which the container's user may write to.
    pub fn make(&self, instance: &str, size_mb: u64) -> io::Result<PathBuf> {
        let point = self.point(instance)?;
        std::fs::create_dir(&point)?;
        let options = format!("size={size_mb}m,mode=0755,uid={OWNER},gid={OWNER}");
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match mount("davit-code", &point, "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Ok(point),
            Err(error) => {
                let _ = std::fs::remove_dir(&point);
                Err(error.into())
            }
        }
    }

    /// Shows an instance the tree `name`, instead of what is at its `/var/task`. Some ten microseconds; `NotFound`
    /// when there is no such tree, or no such instance that code can be shared with.
    pub fn give(&self, instance: &str, name: &str) -> io::Result<()> {
        Ok(mount_bind(checked(&self.dir.join(STORE), name)?, self.point(instance)?)?)
    }

    /// Whether some instance of this host sees the tree `name`.
    pub fn in_use(&self, name: &str) -> io::Result<bool> {
        let mounts = mountinfo::read()?;
        Ok(mounts.iter().any(|m| m.point.starts_with(&self.dir) && m.root.ends_with(name)))
    }

    /// Removes the mount point of an instance that has no container any more. One that is gone is a success.
    pub fn remove(&self, instance: &str) -> io::Result<()> {
        remove_point(&self.point(instance)?)
    }

    /// As [`Self::remove`], on a host where code may not be shared any more but was.
    pub fn remove_left(state: &Path, instance: &str) -> io::Result<()> {
        remove_point(&checked(&state.join("tasks"), instance)?)
    }

    /// Instances that have a mount point in this state directory.
    pub fn left(state: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(state.join("tasks"));
        let names = entries.into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|name| name != STORE).collect()
    }

    /// Undoes [`Self::open`] if no instance has a mount point any more.
    pub fn close(&self) -> io::Result<()> {
        let _one = self.lock()?;
        if !Self::left(self.dir.parent().unwrap_or(&self.dir)).is_empty() {
            return Ok(());
        }
        remove_point(&self.dir.join(STORE))?;
        clear(&self.dir)
    }

    fn point(&self, instance: &str) -> io::Result<PathBuf> {
        checked(&self.dir, instance)
    }
}

/// The path of a name that is one plain part of it, and not the trees' own.
fn checked(dir: &Path, name: &str) -> io::Result<PathBuf> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain || name == STORE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name here")));
    }
    Ok(dir.join(name))
}

fn read_only(path: &Path) -> io::Result<bool> {
    let wanted = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV;
    Ok(statvfs(path)?.f_flag.contains(wanted))
}

/// Takes away every mount at this place. Lazily: whoever is still in one keeps it until he leaves.
fn clear(point: &Path) -> io::Result<()> {
    for _ in 0..STACKED {
        match unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // No mount, or nothing at all.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(format!("{}: too many mounts on top of each other", point.display())))
}

fn remove_point(point: &Path) -> io::Result<()> {
    // The usual case on a host that does not share code, where unmounting is not permitted either.
    if !std::fs::symlink_metadata(point).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    clear(point)?;
    match std::fs::remove_dir(point) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
