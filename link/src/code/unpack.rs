//! Unpacks a bundle, which is a tar archive, into a folder that nobody else writes to. The agent does it inside
//! its container, [`super::Trees`] on the host, there as root: so every folder is opened from the one above it
//! and no link is ever followed, whatever the archive says.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use tar::{Archive, EntryType};

/// Entries of a bundle, and folders made for them, at most.
const ENTRIES: usize = 100_000;
/// Bytes of all files together, at most: AWS's limit of 250 MiB.
const UNPACKED_BYTES: u64 = 262_144_000;

/// Reads from the start whatever the descriptor's position: it may be shared with another process.
struct FromStart {
    file: File,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Unpacks a bundle of `size` bytes into the folder `root`, as [`unpack_stream`] does.
pub fn unpack(bundle: File, size: u64, root: &Path) -> Result<(), String> {
    let actual = bundle.metadata().map_err(|e| format!("the bundle is unreadable: {e}"))?.len();
    if actual != size {
        return Err(format!("the bundle has {actual} bytes, {size} were announced"));
    }
    unpack_stream(FromStart { file: bundle, at: 0 }, root)
}

/// Unpacks a bundle into the folder `root` as it comes in, or says what is wrong with it; then `root` may hold
/// a part of it. Files come out as 0644 or 0755, folders as 0755, links as they are if they stay inside.
pub fn unpack_stream(bundle: impl Read, root: &Path) -> Result<(), String> {
    let mut folders = Folders::at(root).map_err(|e| format!("{}: {e}", root.display()))?;
    let reader = io::BufReader::with_capacity(256 * 1024, bundle);
    let mut archive = Archive::new(reader);
    let mut links = Vec::new();
    let mut bytes = 0;
    let entries = archive.entries().map_err(|e| format!("the bundle is no tar archive: {e}"))?;
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|e| format!("the bundle is damaged: {e}"))?;
        let name = entry.path().map_err(|e| format!("a name in the bundle is unreadable: {e}"))?.into_owned();
        let told = |what: &str| format!("{}: {what}", name.display());
        if count >= ENTRIES {
            return Err("the bundle has too many entries".into());
        }
        let Some(inside) = plain(&name) else { return Err(told("the name leaves the bundle")) };
        let failed = |e: io::Error| told(&e.to_string());
        match entry.header().entry_type() {
            EntryType::Directory => drop(folders.open(&inside).map_err(failed)?),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                bytes += entry.size();
                if bytes > UNPACKED_BYTES {
                    return Err("the bundle is too large unpacked".into());
                }
                // Everybody must be able to read what was brought; set-user bits mean nothing here.
                let mode = entry.header().mode().unwrap_or(0o644) & 0o755 | 0o644;
                folders.write(&inside, mode, &mut entry).map_err(failed)?;
            }
            kind @ (EntryType::Symlink | EntryType::Link) => {
                let to = entry.link_name().ok().flatten();
                let to = to.ok_or_else(|| told("a link without a target"))?.into_owned();
                links.push((inside, to, kind));
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(told("neither a file, a folder nor a link")),
        }
    }
    // Links come last, so that none is in the way of a file.
    for (inside, to, kind) in links {
        folders.link(&inside, &to, kind).map_err(|what| format!("{}: {what}", inside.display()))?;
    }
    Ok(())
}

/// The folders of one unpacked bundle.
struct Folders {
    root: OwnedFd,
    /// The folder of the last entry; archives are sorted, so it is most often that of the next one.
    last: Option<(PathBuf, OwnedFd)>,
    made: usize,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Folders {
    fn at(root: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, root, FOLDER, Mode::empty())?;
        Ok(Self { root, last: None, made: 0 })
    }

    /// Opens a folder, made if it is not there. Something else in its place is an error, a link too.
    fn open(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(known, _)| known != path) {
            let mut at: Option<OwnedFd> = None;
            for part in path.iter() {
                let above = at.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
                let made = match rustix::fs::mkdirat(above, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) => true,
                    Err(rustix::io::Errno::EXIST) => false,
                    Err(error) => return Err(error.into()),
                };
                let folder = rustix::fs::openat(above, part, FOLDER, Mode::empty())?;
                if made {
                    self.made += 1;
                    if self.made > ENTRIES {
                        return Err(io::Error::other("the bundle has too many folders"));
                    }
                    // Whatever the file mode mask is.
                    rustix::fs::fchmod(&folder, Mode::from_raw_mode(0o755))?;
                }
                at = Some(folder);
            }
            self.last = at.map(|folder| (path.to_owned(), folder));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, folder)| folder.as_fd()))
    }

    /// The folder that `path` lies in, and its name there.
    fn parent<'p>(&mut self, path: &'p Path) -> io::Result<(BorrowedFd<'_>, &'p std::ffi::OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        Ok((self.open(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn write(&mut self, path: &Path, mode: u32, content: &mut impl Read) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let mut file = File::from(rustix::fs::openat(folder, name, flags, mode)?);
        io::copy(content, &mut file)?;
        file.flush()?;
        Ok(rustix::fs::fchmod(&file, mode)?)
    }

    fn link(&mut self, inside: &Path, to: &Path, kind: EntryType) -> Result<(), String> {
        let said = |e: &dyn std::fmt::Display| e.to_string();
        if kind == EntryType::Link {
            let source = plain(to).ok_or("the link leaves the bundle")?;
            let (folder, name) = self.parent(&source).map_err(|e| said(&e))?;
            let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            if !found.is_ok_and(|m| FileType::from_raw_mode(m.st_mode).is_file()) {
                return Err("a hard link to something that is no file of the bundle".into());
            }
            let folder = folder.try_clone_to_owned().map_err(|e| said(&e))?;
            let (at, new) = self.parent(inside).map_err(|e| said(&e))?;
            return rustix::fs::linkat(folder, name, at, new, AtFlags::empty()).map_err(|e| said(&e));
        }
        let depth = inside.components().count().saturating_sub(1);
        if !stays_inside(depth, to) {
            return Err("the link leaves the bundle".into());
        }
        let (folder, name) = self.parent(inside).map_err(|e| said(&e))?;
        rustix::fs::symlinkat(to, folder, name).map_err(|e| said(&e))
    }
}

/// The path without `.` parts, if it has no others than plain ones.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(inside)
}

/// Whether a link in a folder so deep stays inside. `..` may only stand in front: behind a name that is a
/// link itself, it would mean another folder than it seems.
fn stays_inside(depth: usize, to: &Path) -> bool {
    let mut ups = 0;
    let mut down = false;
    for part in to.components() {
        match part {
            Component::ParentDir if !down => ups += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            _ => return false,
        }
    }
    ups <= depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use tar::{Builder, Header};

    fn entry(
        builder: &mut Builder<File>,
        kind: EntryType,
        name: &str,
        mode: u32,
        link: &str,
        content: &[u8],
    ) {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        // Around the checks of the library: hostile archives are the point.
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn try_unpack(fill: impl FnOnce(&mut Builder<File>)) -> (tempfile::TempDir, Result<(), String>) {
        let mut builder = Builder::new(tempfile::tempfile().unwrap());
        fill(&mut builder);
        let bundle = builder.into_inner().unwrap();
        let root = tempfile::tempdir().unwrap();
        let size = bundle.metadata().unwrap().len();
        let result = unpack(bundle, size, root.path());
        (root, result)
    }

    #[test]
    fn files_folders_and_links_arrive() {
        let (root, result) = try_unpack(|b| {
            entry(b, EntryType::Symlink, "bin/run", 0, "../bootstrap", b"");
            entry(b, EntryType::Regular, "bootstrap", 0o755, "", b"#!/bin/sh");
            entry(b, EntryType::Regular, "lib/deep/x.py", 0o600, "", b"x = 1");
            entry(b, EntryType::Link, "copy", 0, "bootstrap", b"");
        });
        result.unwrap();
        assert_eq!(fs::read(root.path().join("bin/run")).unwrap(), b"#!/bin/sh");
        assert_eq!(fs::read(root.path().join("copy")).unwrap(), b"#!/bin/sh");
        let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("bootstrap"), mode("lib/deep/x.py")), (0o755, 0o644));
    }

    #[test]
    fn what_leaves_the_folder_is_refused() {
        for (kind, name, link) in [
            (EntryType::Regular, "../x", ""),
            (EntryType::Regular, "a/../../x", ""),
            (EntryType::Regular, "/etc/x", ""),
            (EntryType::Symlink, "l", "/etc/passwd"),
            (EntryType::Symlink, "l", "../etc/passwd"),
            (EntryType::Symlink, "a/l", "b/../../../etc"),
            (EntryType::Link, "l", "../etc/passwd"),
            (EntryType::Link, "l", "/etc/passwd"),
            (EntryType::Char, "null", ""),
            (EntryType::Fifo, "pipe", ""),
        ] {
            let (_root, result) = try_unpack(|b| entry(b, kind, name, 0o644, link, b""));
            assert!(result.is_err(), "{kind:?} {name} -> {link}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (root, result) = try_unpack(|b| {
            entry(b, EntryType::Directory, "real", 0o755, "", b"");
            entry(b, EntryType::Symlink, "l", 0, "real", b"");
            entry(b, EntryType::Regular, "l/x", 0o644, "", b"x");
        });
        assert!(result.is_err());
        assert!(!root.path().join("real/x").exists());
    }

    #[test]
    fn set_user_bits_and_an_odd_mask_mean_nothing() {
        let (root, result) = try_unpack(|b| {
            entry(b, EntryType::Directory, "d", 0o7777, "", b"");
            entry(b, EntryType::Regular, "d/su", 0o6755, "", b"x");
        });
        result.unwrap();
        let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d"), mode("d/su")), (0o755, 0o755));
    }

    #[test]
    fn a_link_that_was_there_before_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        for (name, link) in [("l/kept", "l"), ("kept", "kept")] {
            let root = tempfile::tempdir().unwrap();
            let to = if link == "l" { outside.path().to_owned() } else { outside.path().join("kept") };
            std::os::unix::fs::symlink(to, root.path().join(link)).unwrap();
            let mut builder = Builder::new(tempfile::tempfile().unwrap());
            entry(&mut builder, EntryType::Regular, name, 0o644, "", b"changed");
            let bundle = builder.into_inner().unwrap();
            let size = bundle.metadata().unwrap().len();
            assert!(unpack(bundle, size, root.path()).is_err(), "{name}");
            assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
        }
    }

    #[test]
    fn links_are_not_made_through_links() {
        let (root, result) = try_unpack(|b| {
            entry(b, EntryType::Directory, "real", 0o755, "", b"");
            entry(b, EntryType::Symlink, "l", 0, "real", b"");
            entry(b, EntryType::Symlink, "l/x", 0, "../y", b"");
        });
        assert!(result.is_err());
        assert!(!root.path().join("real/x").exists());
    }
}
