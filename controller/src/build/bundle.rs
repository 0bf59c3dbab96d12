//! What a builder left is as little to be trusted as what a user sent: it is checked before it is stored.

use std::io::{self, Read as _};
use std::path::{Component, Path};

use davit_api::{Digest, limits};
use sha2::{Digest as _, Sha256};

/// A bundle that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Digest and size of a file.
pub(super) fn measure(path: &Path) -> io::Result<Bundle> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Bundle { digest: Digest::from_bytes(hash.finalize().into()), size });
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// Checks every entry; the error is a sentence for the function's owner.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let damaged = |e: io::Error| format!("the build left a bundle that is no tar file: {e}");
    let mut archive = tar::Archive::new(std::fs::File::open(path).map_err(damaged)?);
    let mut entries = 0;
    let mut bytes = 0;
    for entry in archive.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        entries += 1;
        bytes += entry.size();
        if entries > limits::ARCHIVE_ENTRIES {
            return Err(format!("the bundle has more than {} entries", limits::ARCHIVE_ENTRIES));
        }
        if bytes > limits::UNPACKED_BYTES {
            return Err(format!("the bundle is larger than {} MiB unpacked", limits::UNPACKED_BYTES >> 20));
        }
        check_entry(&entry)?;
    }
    if entries == 0 { Err("the bundle is empty".into()) } else { Ok(()) }
}

fn check_entry<R: io::Read>(entry: &tar::Entry<'_, R>) -> Result<(), String> {
    use tar::EntryType as Kind;
    let path = entry.path().map_err(|e| format!("the bundle has a name that cannot be read: {e}"))?;
    let name = path.display();
    if depth(&path, 0).is_none() {
        return Err(format!("the bundle has an entry outside of itself: {name}"));
    }
    match entry.header().entry_type() {
        Kind::Regular | Kind::Continuous | Kind::Directory | Kind::XGlobalHeader => Ok(()),
        Kind::Symlink => {
            let target = entry.link_name().ok().flatten();
            let parents =
                path.components().filter(|c| matches!(c, Component::Normal(_))).count().saturating_sub(1);
            let inside = target.is_some_and(|target| depth(&target, parents).is_some());
            inside.then_some(()).ok_or_else(|| format!("the bundle has a link that leads out of it: {name}"))
        }
        other => {
            Err(format!("the bundle has an entry that is neither file, folder nor link: {name} ({other:?})"))
        }
    }
}

/// How deep a relative path ends below a starting depth; `None` when it is absolute or ever climbs out.
fn depth(path: &Path, start: usize) -> Option<usize> {
    path.components().try_fold(start, |depth, part| match part {
        Component::Normal(_) => Some(depth + 1),
        Component::CurDir => Some(depth),
        Component::ParentDir => depth.checked_sub(1),
        Component::RootDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(kind: tar::EntryType, name: &str, target: Option<&str>) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.reopen().unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(0);
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        if let Some(target) = target {
            header.set_link_name_literal(target).unwrap();
        }
        header.set_cksum();
        tar.append(&header, io::empty()).unwrap();
        tar.finish().unwrap();
        check(file.path())
    }

    #[test]
    fn files_folders_and_inner_links_pass() {
        use tar::EntryType as Kind;
        assert_eq!(bundle(Kind::Regular, "./a/b.py", None), Ok(()));
        assert_eq!(bundle(Kind::Directory, "a/", None), Ok(()));
        assert_eq!(bundle(Kind::Symlink, "node_modules/.bin/x", Some("../x/cli.js")), Ok(()));
    }

    #[test]
    fn whatever_leads_out_is_refused() {
        use tar::EntryType as Kind;
        for (kind, name, target) in [
            (Kind::Regular, "../a", None),
            (Kind::Regular, "/a", None),
            (Kind::Symlink, "a", Some("/etc/passwd")),
            (Kind::Symlink, "a/b", Some("../../c")),
            (Kind::Link, "a", Some("b")),
            (Kind::Block, "a", None),
            (Kind::Fifo, "a", None),
        ] {
            assert!(bundle(kind, name, target).is_err(), "{name} {target:?}");
        }
    }
}
