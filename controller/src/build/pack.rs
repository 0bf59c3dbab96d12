//! Writes a bundle as the runtime images' own `pack` does (`runtime-images/base/build-lib.sh`), byte for byte: GNU
//! tar's posix format, names in the order of their bytes, no owner and no time. The same content has then the same
//! digest whoever packed it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Longest name that fits a header; longer ones need an extension header, which is left to the build program.
const NAME_BYTES: usize = 100;
const BLOCK: u64 = 512;
/// GNU tar writes whole records of twenty blocks.
const RECORD: u64 = 20 * BLOCK;

/// What a file or folder of the bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Whether it may be executed.
        executable: bool,
        /// In bytes.
        size: u64,
    },
}

/// Whether a header holds this name as it is.
pub(super) fn fits(path: &str, kind: Kind) -> bool {
    path.is_ascii() && path.len() + usize::from(kind == Kind::Folder) <= NAME_BYTES
}

/// Writes all entries; `content` opens a file.
pub(super) fn write<R: Read>(
    entries: &BTreeMap<String, Kind>,
    mut content: impl FnMut(&str) -> io::Result<R>,
    mut out: impl Write,
) -> io::Result<()> {
    let mut total = 0;
    for (path, kind) in entries {
        out.write_all(header(path, *kind)?.as_bytes())?;
        total += BLOCK;
        if let Kind::File { size, .. } = kind {
            let copied = io::copy(&mut content(path)?.take(*size), &mut out)?;
            if copied != *size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            total += zeros(&mut out, size.next_multiple_of(BLOCK) - size)? + size;
        }
    }
    let end = (total + 2 * BLOCK).next_multiple_of(RECORD);
    zeros(&mut out, end - total)?;
    out.flush()
}

fn zeros(out: &mut impl Write, count: u64) -> io::Result<u64> {
    io::copy(&mut io::repeat(0).take(count), out)
}

fn header(path: &str, kind: Kind) -> io::Result<tar::Header> {
    if !fits(path, kind) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path}: the name does not fit a header"),
        ));
    }
    let mut header = tar::Header::new_ustar();
    let name = &mut header.as_old_mut().name;
    name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match kind {
        Kind::Folder => {
            header.as_old_mut().name[path.len()] = b'/';
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
        }
        Kind::File { executable, size } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(size);
        }
    }
    // Six digits, an end mark and a space: the field is one digit shorter than the others.
    header.as_old_mut().cksum = *b"        ";
    let sum: u32 = header.as_bytes().iter().map(|b| u32::from(*b)).sum();
    header.as_old_mut().cksum.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_back_as_it_was_written() {
        let entries = BTreeMap::from([
            ("a".to_owned(), Kind::Folder),
            ("a.py".to_owned(), Kind::File { executable: false, size: 3 }),
            ("a/run".to_owned(), Kind::File { executable: true, size: 600 }),
        ]);
        let mut bytes = Vec::new();
        write(&entries, |path| Ok(io::repeat(path.len() as u8)), &mut bytes).unwrap();
        assert_eq!(bytes.len() as u64 % RECORD, 0);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap(), entry.size())
            })
            .collect();
        let expected = [("a/", 0o755, 0), ("a.py", 0o644, 3), ("a/run", 0o755, 600)];
        assert_eq!(found, expected.map(|(path, mode, size)| (path.to_owned(), mode, size)));
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_is_noticed() {
        let entries = BTreeMap::from([("a".to_owned(), Kind::File { executable: false, size: 3 })]);
        assert!(write(&entries, |_| Ok(io::empty()), io::sink()).is_err());
    }

    #[test]
    fn odd_names_are_left_to_the_build_program() {
        assert!(fits(&"n".repeat(100), Kind::File { executable: false, size: 0 }));
        assert!(!fits(&"n".repeat(100), Kind::Folder));
        assert!(!fits("ä", Kind::Folder));
    }
}
