//! Archives that must be refused, archives that must not, and properties over random ones.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;

fn small() -> ArchiveLimits {
    ArchiveLimits { entries: 100, unpacked: 1024 * 1024, ratio: 200, ratio_from: 64 * 1024 }
}

/// A tar written header by header, so that names and kinds can be as bad as an attacker's.
#[derive(Default)]
struct Evil(Vec<u8>);

impl Evil {
    fn entry(mut self, name: &[u8], kind: EntryType, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, 0o644, content)
    }
    fn gz(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        gzip(&self.0)
    }
    fn refused(self) -> String {
        refused(&self.gz())
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
/// A pax record; its length counts itself, which has two digits here.
fn record(text: &str) -> String {
    format!("{} {text}\n", text.len() + 4)
}
fn refused(archive: &[u8]) -> String {
    let error = check(archive, small()).unwrap_err();
    let api = ApiError::from(error);
    assert!((400..500).contains(&api.code.status()), "{api:?}");
    api.message
}

#[test]
fn a_plain_archive_is_copied_without_owner_times_and_set_uid() {
    let archive = Evil::default()
        .entry(b"./", EntryType::Directory, 0o777, b"")
        .entry(b"./pkg/", EntryType::Directory, 0o700, b"")
        .entry(b"./pkg/run", EntryType::Regular, 0o6755, b"#!/bin/sh\n")
        .file(b"app.py", b"x = 1\n")
        .gz();
    let mut clean = Vec::new();
    let checked = sanitise(&archive[..], &mut clean, small()).unwrap();
    assert_eq!(checked, Checked { files: 2, bytes: 16 });
    let mut seen = Vec::new();
    for entry in tar::Archive::new(&clean[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (0, 0));
        seen.push((entry.path().unwrap().display().to_string(), header.mode().unwrap(), content));
    }
    let file = |name: &str, mode, content: &str| (name.to_owned(), mode, content.to_owned());
    assert_eq!(
        seen,
        [file("pkg", 0o755, ""), file("pkg/run", 0o755, "#!/bin/sh\n"), file("app.py", 0o644, "x = 1\n")]
    );
}

#[test]
fn what_common_tools_write_is_taken() {
    let long = format!("{}/file.py", "folder".repeat(30));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    assert_eq!(check(&gzip(&tar)[..], small()).unwrap().files, 1);

    let pax = Evil::default()
        .entry(b"pax_global_header", EntryType::XGlobalHeader, 0o644, b"19 comment=abcdefg\n")
        .entry(b"x", EntryType::XHeader, 0o644, record("path=f\u{fc}r/alle/da.py").as_bytes())
        .file(b"short", b"1")
        .gz();
    let mut clean = Vec::new();
    sanitise(&pax[..], &mut clean, small()).unwrap();
    let mut tar = tar::Archive::new(&clean[..]);
    let path = tar.entries().unwrap().next().unwrap().unwrap().path().unwrap().display().to_string();
    assert_eq!(path, "f\u{fc}r/alle/da.py");
}

#[test]
fn kinds_that_are_neither_file_nor_folder_are_refused() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::Continuous,
        EntryType::GNULongLink,
        EntryType::new(b'V'),
    ] {
        let message = Evil::default().file(b"good", b"1").entry(b"bad", kind, 0o644, b"").refused();
        assert!(message.contains("bad"), "{kind:?}: {message}");
    }
}

#[test]
fn names_that_lead_out_or_mislead_are_refused() {
    for name in [
        &b"../x"[..],
        b"/etc/passwd",
        b"a/../../x",
        b"a/..",
        b"..",
        b"a\nb",
        b"a\x1b[31m",
        b"a\\b",
        b"\xff\xfe",
        b"",
    ] {
        Evil::default().file(b"good", b"1").file(name, b"1").refused();
    }
    for bad in
        ["path=../../x", "path=/x", "linkpath=/etc", "size=99999999", "GNU.sparse.major=1", "path=a\0b"]
    {
        let archive =
            Evil::default().entry(b"x", EntryType::XHeader, 0, record(bad).as_bytes()).file(b"plain", b"1");
        archive.refused();
    }
    Evil::default().entry(b"x", EntryType::GNULongName, 0, b"../../up\0").file(b"plain", b"1").refused();
    Evil::default().entry(b"x", EntryType::GNULongName, 0, &[b'a'; 70_000]).file(b"plain", b"1").refused();
}

#[test]
fn one_name_twice_and_files_used_as_folders_are_refused() {
    assert!(Evil::default().file(b"a", b"1").file(b"./a", b"2").refused().contains("twice"));
    assert!(Evil::default().file(b"a//b", b"1").file(b"a/b", b"2").refused().contains("twice"));
    Evil::default().file(b"a", b"1").file(b"a/b", b"2").refused();
    Evil::default().file(b"a/b", b"2").file(b"a", b"1").refused();
    let folders = Evil::default().file(b"a/b", b"2").entry(b"a/", EntryType::Directory, 0o755, b"");
    assert!(check(&folders.entry(b"a", EntryType::Directory, 0o755, b"").gz()[..], small()).is_ok());
}

#[test]
fn bombs_stop_at_the_bound() {
    let many = (0..101).fold(Evil::default(), |tar, i| tar.file(format!("f{i}").as_bytes(), b""));
    assert!(many.refused().contains("entries"));
    let deep = Evil::default().file(b"zeros", &vec![0; 2 * 1024 * 1024]).refused();
    assert!(deep.contains("times its size"), "{deep}");
    let noise: Vec<u8> = (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(Evil::default().file(b"noise", &noise).refused().contains("more than 1048576 bytes"));
    // A header that promises far more than there is costs nothing.
    let mut header = Header::new_ustar();
    header.set_path("liar").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_size(8_000_000_000);
    header.set_cksum();
    refused(&gzip(header.as_bytes()));
}

#[test]
fn damaged_archives_are_named_so() {
    let good = Evil::default().file(b"a", &[7; 4000]).file(b"b", b"2").gz();
    assert!(check(&good[..], small()).is_ok());
    for bad in [&b""[..], b"hello", &good[..good.len() / 2], &good[..good.len() - 4]] {
        assert!(refused(bad).contains("not a whole"), "{}", bad.len());
    }
    let mut flipped = good.clone();
    let crc = flipped.len() - 7;
    flipped[crc] ^= 1;
    refused(&flipped);
    let mut trailing = good.clone();
    trailing.extend_from_slice(b"more");
    assert!(refused(&trailing).contains("after the end"));
    assert!(refused(&gzip(&[0; 1024])).contains("no file"));
    refused(&gzip(b"not a tar at all, but long enough to be taken for a header".repeat(20).as_slice()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_clean_path_stays_inside(name in "[a./\\\\\\n-]{0,24}") {
        if let Ok(Some(path)) = CleanPath::parse(&name) {
            prop_assert!(!path.as_str().starts_with('/') && !path.as_str().contains("//"));
            prop_assert!(path.as_str().split('/').all(|s| !matches!(s, "" | "." | "..")));
            prop_assert_eq!(CleanPath::parse(path.as_str()), Ok(Some(path.clone())));
        }
    }

    #[test]
    fn the_clean_copy_of_a_good_archive_is_good(
        files in prop::collection::btree_map("[a-z]{1,6}(/[a-z]{1,6}){0,2}", prop::collection::vec(any::<u8>(), 0..600), 1..12),
    ) {
        let archive = files.iter().fold(Evil::default(), |tar, (name, content)| tar.file(name.as_bytes(), content)).gz();
        let mut clean = Vec::new();
        if let Ok(checked) = sanitise(&archive[..], &mut clean, small()) {
            prop_assert_eq!(checked.files, files.len());
            prop_assert_eq!(check(&gzip(&clean)[..], small()).unwrap(), checked);
        }
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_change_the_copy(at in 0usize..2000, bit in 0u8..8) {
        let good = Evil::default().file(b"a", b"content").file(b"b/c", &[9; 900]).gz();
        let copy = |archive: &[u8]| {
            let mut clean = Vec::new();
            sanitise(archive, &mut clean, small()).map(|_| clean)
        };
        let mut flipped = good.clone();
        let at = at % good.len();
        flipped[at] ^= 1 << bit;
        // Some bits mean nothing: gzip's own header, padding. All others are under the checksum.
        if let Ok(clean) = copy(&flipped) {
            prop_assert_eq!(clean, copy(&good).unwrap());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = check(&bytes[..], small());
        let _ = check(&gzip(&bytes)[..], small());
    }
}
