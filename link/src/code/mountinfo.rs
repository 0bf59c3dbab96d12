//! Reads `/proc/self/mountinfo`, the only place that says what is mounted where and how it propagates
//! (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// One mount, as far as anyone here cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of its file system it shows.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Whether what is mounted below it also appears in its copies.
    pub(super) shared: bool,
}

/// The mounts of this process's namespace, those on top of others last.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    Ok(std::fs::read("/proc/self/mountinfo")?.split(|b| *b == b'\n').filter_map(parse).collect())
}

/// The topmost mount at exactly this place.
pub(super) fn at<'m>(mounts: &'m [Mount], point: &Path) -> Option<&'m Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// `36 35 98:0 /root /point rw,noatime shared:1 master:2 - ext3 /dev/x rw`; the fields before `-` vary in number.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ').skip(3);
    let (root, point) = (path(fields.next()?), path(fields.next()?));
    let shared = fields.skip(1).take_while(|field| *field != b"-").any(|field| field.starts_with(b"shared:"));
    Some(Mount { root, point, shared })
}

/// Space, tab, line end and backslash are written as three octal digits.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| after.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok()))
            .flatten();
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_stands_between() {
        let line = br"36 35 98:0 /a\040b /mnt/c\134d rw,noatime shared:12 master:1 - ext3 /dev/root rw";
        let mount = Mount { root: "/a b".into(), point: r"/mnt/c\d".into(), shared: true };
        assert_eq!(parse(line), Some(mount));
        let line = b"36 35 98:0 / /x ro - tmpfs shared:1 rw";
        assert!(!parse(line).unwrap().shared, "the file system's own fields do not count");
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_process_has_a_root() {
        let mounts = read().unwrap();
        assert!(at(&mounts, Path::new("/proc")).is_some());
    }
}
