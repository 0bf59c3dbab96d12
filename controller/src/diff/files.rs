//! Two source archives, file by file. Bounded in what is read, held and told.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::time::Duration;

use davit_api::{FileChange, limits};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use similar::TextDiff;

/// Largest file whose lines are compared.
const TEXT_BYTES: u64 = 256 * 1024;
/// Text of all files that is held at a time, of each archive.
const HELD_BYTES: usize = 16 * 1024 * 1024;
/// All lines of one answer.
const LINES_BYTES: usize = 1024 * 1024;
/// Files in one answer.
const FILES: usize = 1_000;
/// How long the lines of one file are compared. What takes longer is told more coarsely.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known of each file.
#[derive(PartialEq, Eq)]
struct File {
    bytes: u64,
    digest: [u8; 32],
}

/// Files that are not the same, by path, and whether there is more than is told.
pub(super) fn changes(old: &[u8], new: &[u8], lines: bool) -> io::Result<(Vec<FileChange>, bool)> {
    let (before, after) = (digests(old)?, digests(new)?);
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ: Vec<&String> =
        paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).collect();
    let mut cut = differ.len() > FILES;
    let told: BTreeSet<&str> = differ.into_iter().take(FILES).map(String::as_str).collect();
    let texts = if lines {
        let (old, missed) = texts(old, &told)?;
        let (new, also) = texts(new, &told)?;
        cut |= missed || also;
        Some((old, new))
    } else {
        None
    };
    let (mut found, mut room) = (Vec::with_capacity(told.len()), LINES_BYTES);
    for path in &told {
        let (old_bytes, new_bytes) = (before.get(*path).map(|f| f.bytes), after.get(*path).map(|f| f.bytes));
        let diff = texts.as_ref().and_then(|(old, new)| {
            let of = |texts: &BTreeMap<String, String>, bytes: Option<u64>| match bytes {
                None => Some(String::new()),
                Some(_) => texts.get(*path).cloned(),
            };
            let text = unified(path, &of(old, old_bytes)?, &of(new, new_bytes)?);
            let fits = text.len() <= room;
            cut |= !fits;
            fits.then_some(text)
        });
        room -= diff.as_ref().map_or(0, String::len);
        found.push(FileChange { path: (*path).to_owned(), old_bytes, new_bytes, diff });
    }
    Ok((found, cut))
}

fn unified(path: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    diff.unified_diff().context_radius(3).header(&format!("a/{path}"), &format!("b/{path}")).to_string()
}

/// Reads an archive's files one by one. It was checked when it came; the bounds hold all the same.
fn each(
    archive: &[u8],
    mut take: impl FnMut(String, u64, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    // Twice the files' bytes: headers and padding of many small ones.
    let mut archive = tar::Archive::new(GzDecoder::new(archive).take(2 * limits::UNPACKED_BYTES));
    for entry in archive.entries()?.take(limits::ARCHIVE_ENTRIES) {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path.strip_prefix("./").map(ToOwned::to_owned).unwrap_or(path);
        let size = entry.size();
        take(path, size, &mut entry)?;
    }
    Ok(())
}

fn digests(archive: &[u8]) -> io::Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    each(archive, |path, bytes, content| {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        files.insert(path, File { bytes, digest: hash.finalize().into() });
        Ok(())
    })?;
    Ok(files)
}

/// The texts among these files, and whether some found no room.
fn texts(archive: &[u8], wanted: &BTreeSet<&str>) -> io::Result<(BTreeMap<String, String>, bool)> {
    let (mut texts, mut held, mut missed) = (BTreeMap::new(), 0, false);
    each(archive, |path, bytes, content| {
        if bytes > TEXT_BYTES || !wanted.contains(path.as_str()) {
            return Ok(());
        }
        let mut content_bytes = Vec::new();
        content.take(TEXT_BYTES).read_to_end(&mut content_bytes)?;
        // What has a NUL in it, or is no UTF-8, has no lines to show.
        let text = String::from_utf8(content_bytes).ok().filter(|text| !text.contains('\0'));
        if let Some(text) = text {
            if held + text.len() > HELD_BYTES {
                missed = true;
            } else {
                held += text.len();
                texts.insert(path, text);
            }
        }
        Ok(())
    })?;
    Ok((texts, missed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn added_removed_and_changed_files_are_told_with_sizes_and_lines() {
        let old =
            archive(&[("app.py", b"a\nb\nc\n"), ("gone.txt", b"x\n"), ("same", b"s"), ("pic", b"\0old")]);
        let new =
            archive(&[("app.py", b"a\nB\nc\n"), ("new.txt", b"y\n"), ("same", b"s"), ("pic", b"\0new!")]);
        let (found, cut) = changes(&old, &new, true).unwrap();
        assert!(!cut);
        let told: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.old_bytes, f.new_bytes)).collect();
        assert_eq!(
            told,
            [
                ("app.py", Some(6), Some(6)),
                ("gone.txt", Some(2), None),
                ("new.txt", None, Some(2)),
                ("pic", Some(4), Some(5))
            ]
        );
        assert_eq!(
            found[0].diff.as_deref(),
            Some("--- a/app.py\n+++ b/app.py\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n")
        );
        assert!(found[1].diff.as_ref().unwrap().contains("-x\n") && found[3].diff.is_none());
        assert!(changes(&old, &new, false).unwrap().0.iter().all(|file| file.diff.is_none()));
        assert_eq!(changes(&old, &old, true).unwrap(), (vec![], false));
        assert!(changes(b"no archive", &new, false).is_err());
    }

    #[test]
    fn an_answer_has_an_end() {
        let long = vec![b'x'; TEXT_BYTES as usize];
        let names: Vec<String> = (0..FILES + 5).map(|n| format!("{n:05}")).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|name| (name.as_str(), &long[..if name < &"00020".to_owned() { long.len() } else { 1 }]))
            .collect();
        let (found, cut) = changes(&archive(&[("a", b"a")]), &archive(&files), true).unwrap();
        assert!(cut && found.len() == FILES);
        let bytes: usize = found.iter().filter_map(|file| file.diff.as_ref()).map(String::len).sum();
        assert!(bytes <= LINES_BYTES, "{bytes}");
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_differs(
            old in proptest::collection::btree_map("[a-c]", "[a-b\n]{0,6}", 0..4),
            new in proptest::collection::btree_map("[a-c]", "[a-b\n]{0,6}", 0..4),
        ) {
            let pack = |files: &BTreeMap<String, String>| {
                archive(&files.iter().map(|(p, c)| (p.as_str(), c.as_bytes())).collect::<Vec<_>>())
            };
            let (found, _) = changes(&pack(&old), &pack(&new), true).unwrap();
            let told: BTreeSet<&String> = found.iter().map(|file| &file.path).collect();
            let differ: BTreeSet<&String> =
                old.keys().chain(new.keys()).filter(|path| old.get(*path) != new.get(*path)).collect();
            prop_assert_eq!(told, differ);
        }
    }
}
