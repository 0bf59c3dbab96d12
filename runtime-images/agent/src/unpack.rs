//! Unpacks a bundle, which is a tar archive, into a folder that nobody else writes to.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, EntryType};

const ENTRIES: usize = 100_000;
const UNPACKED_BYTES: u64 = 262_144_000;

/// Reads from the start whatever the descriptor's position: it is shared with the gateway's.
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

/// Unpacks, or says what is wrong with the bundle.
pub(crate) fn unpack(bundle: File, size: u64, root: &Path) -> Result<(), String> {
    let actual = bundle.metadata().map_err(|e| format!("the bundle is unreadable: {e}"))?.len();
    if actual != size {
        return Err(format!("the bundle has {actual} bytes, {size} were announced"));
    }
    let reader = io::BufReader::with_capacity(256 * 1024, FromStart { file: bundle, at: 0 });
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
        let target = root.join(&inside);
        let failed = |e: io::Error| told(&e.to_string());
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target).map_err(failed)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                bytes += entry.size();
                if bytes > UNPACKED_BYTES {
                    return Err("the bundle is too large unpacked".into());
                }
                // Owners must be able to read and replace what they brought; set-user bits mean nothing here.
                let mode = entry.header().mode().unwrap_or(0o644) & 0o755 | 0o644;
                write_file(&target, mode, &mut entry).map_err(failed)?;
            }
            EntryType::Symlink | EntryType::Link => {
                let to = entry
                    .link_name()
                    .ok()
                    .flatten()
                    .ok_or_else(|| told("a link without a target"))?
                    .into_owned();
                links.push((inside, to, entry.header().entry_type()));
            }
            EntryType::XGlobalHeader => {}
            _ => return Err(told("neither a file, a folder nor a link")),
        }
    }
    // Links come last, so that nothing is ever written through one.
    for (inside, to, kind) in links {
        link(root, &inside, &to, kind).map_err(|what| format!("{}: {what}", inside.display()))?;
    }
    Ok(())
}

fn write_file(target: &Path, mode: u32, content: &mut impl Read) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(target)?;
    io::copy(content, &mut file)?;
    file.flush()?;
    file.set_permissions(Permissions::from_mode(mode))
}

fn link(root: &Path, inside: &Path, to: &Path, kind: EntryType) -> Result<(), String> {
    let at = root.join(inside);
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).map_err(|e| e.to_string())?;
    }
    if kind == EntryType::Link {
        let source = root.join(plain(to).ok_or("the link leaves the bundle")?);
        if !fs::symlink_metadata(&source).is_ok_and(|m| m.is_file()) {
            return Err("a hard link to something that is no file of the bundle".into());
        }
        return fs::hard_link(source, at).map_err(|e| e.to_string());
    }
    let depth = inside.components().count() - 1;
    if !stays_inside(depth, to) {
        return Err("the link leaves the bundle".into());
    }
    symlink(to, at).map_err(|e| e.to_string())
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
}
