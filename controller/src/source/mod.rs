//! Uploaded source archives: what they may hold, and a clean copy of one. Called by the upload route, which
//! only wants to know whether an archive is acceptable, and by the build, which wants the clean copy.

mod entry;
mod path;

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};

use davit_api::{ApiError, ErrorCode, limits};
use flate2::bufread::GzDecoder;

use entry::Kind;
pub use path::CleanPath;

/// Bounds of an archive; tests use small ones.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveLimits {
    /// Files and folders.
    pub entries: usize,
    /// Bytes that the decompressor may produce, tar headers included.
    pub unpacked: u64,
    /// How many times larger than the upload it may get, once it is past `ratio_from` bytes.
    pub ratio: u64,
    /// Below this many unpacked bytes the ratio is not looked at: small repetitive files compress well.
    pub ratio_from: u64,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            entries: limits::ARCHIVE_ENTRIES,
            unpacked: limits::UNPACKED_BYTES,
            ratio: 200,
            ratio_from: 16 * 1024 * 1024,
        }
    }
}

/// What a good archive holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Files, folders not counted.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why an archive was refused; the text is fit for a user.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not what was promised: no gzip, no tar, cut short.
    #[error("source archive: not a whole gzip-compressed tar file: {0}")]
    Damaged(io::Error),
    /// An entry is of a kind or name that is not taken.
    #[error("source archive: {name:?}: {problem}")]
    Entry {
        /// The entry, cut to 120 characters.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A bound is passed.
    #[error("source archive: {0}")]
    TooLarge(String),
    /// There is no file in it.
    #[error("source archive: it holds no file")]
    Empty,
    /// The clean copy could not be written.
    #[error("writing the unpacked source: {0}")]
    Output(io::Error),
}

impl SourceError {
    fn entry(name: &str, problem: &'static str) -> Self {
        Self::Entry { name: name.chars().take(120).collect(), problem }
    }
}

impl From<SourceError> for ApiError {
    fn from(error: SourceError) -> Self {
        let code = match error {
            SourceError::TooLarge(_) => ErrorCode::TooLarge,
            SourceError::Output(_) => ErrorCode::Internal,
            SourceError::Damaged(_) | SourceError::Entry { .. } | SourceError::Empty => {
                ErrorCode::InvalidRequest
            }
        };
        Self::new(code, error.to_string())
    }
}

/// Reads a gzip-compressed tar to its end and says whether it may be built.
pub fn check(archive: impl BufRead, limits: ArchiveLimits) -> Result<Checked, SourceError> {
    sanitise(archive, io::sink(), limits)
}

/// As [`check`], and writes what it read as an uncompressed tar of plain files and folders: no owner, no
/// set-uid bits, no times, names without `./`. On an error the output is a useless beginning.
pub fn sanitise(
    archive: impl BufRead,
    out: impl Write,
    limits: ArchiveLimits,
) -> Result<Checked, SourceError> {
    let bounded = Bounded {
        inner: GzDecoder::new(Counted { inner: archive, read: 0 }),
        produced: 0,
        limits,
        burst: None,
    };
    let mut tar = tar::Archive::new(bounded);
    let copied = copy(&mut tar, tar::Builder::new(out), limits);
    let mut rest = tar.into_inner();
    // The bound's own sentence is better than the read error that it caused.
    let checked = match (copied, rest.burst.take()) {
        (_, Some(sentence)) => return Err(SourceError::TooLarge(sentence)),
        (checked, None) => checked?,
    };
    finish(&mut rest)?;
    Ok(checked)
}

fn copy<R: Read, W: Write>(
    tar: &mut tar::Archive<R>,
    mut out: tar::Builder<W>,
    limits: ArchiveLimits,
) -> Result<Checked, SourceError> {
    let mut seen = HashMap::new();
    let mut checked = Checked { files: 0, bytes: 0 };
    let mut long = entry::Overrides::default();
    let mut headers = 0usize;
    for entry in tar.entries().map_err(SourceError::Damaged)?.raw(true) {
        let mut entry = entry.map_err(SourceError::Damaged)?;
        headers += 1;
        // Two extension headers belong to an entry at most.
        if headers > limits.entries.saturating_mul(3) || seen.len() >= limits.entries {
            return Err(SourceError::TooLarge(format!("more than {} entries", limits.entries)));
        }
        let Some((kind, name)) = entry::classify(&mut entry, &mut long)? else { continue };
        let Some(path) = CleanPath::parse(&name).map_err(|problem| SourceError::entry(&name, problem))?
        else {
            continue;
        };
        remember(&mut seen, &path, kind)?;
        let mut header = tar::Header::new_ustar();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        match kind {
            Kind::Folder => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                out.append_data(&mut header, path.as_str(), io::empty()).map_err(SourceError::Output)?;
            }
            Kind::File { executable, size } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if executable { 0o755 } else { 0o644 });
                header.set_size(size);
                let mut content = Exact { inner: &mut entry, left: size, failed: None };
                let written = out.append_data(&mut header, path.as_str(), &mut content);
                if let Some(error) = content.failed.take() {
                    return Err(SourceError::Damaged(error));
                }
                written.map_err(SourceError::Output)?;
                checked.files += 1;
                checked.bytes += size;
            }
        }
    }
    if !long.is_empty() {
        return Err(SourceError::Damaged(io::ErrorKind::UnexpectedEof.into()));
    }
    if checked.files == 0 {
        return Err(SourceError::Empty);
    }
    out.finish().map_err(SourceError::Output)?;
    Ok(checked)
}

/// Refuses a second entry of one name, and a file that is also used as a folder. A folder listed twice, or
/// after what lies in it, is harmless and common.
fn remember(seen: &mut HashMap<String, bool>, path: &CleanPath, kind: Kind) -> Result<(), SourceError> {
    let is_file = matches!(kind, Kind::File { .. });
    for parent in path.parents() {
        match seen.get(parent) {
            Some(true) => return Err(SourceError::entry(path.as_str(), "lies in something that is a file")),
            Some(false) => {}
            None => {
                seen.insert(parent.to_owned(), false);
            }
        }
    }
    match seen.insert(path.as_str().to_owned(), is_file) {
        Some(was_file) if was_file || is_file => Err(SourceError::entry(path.as_str(), "is there twice")),
        _ => Ok(()),
    }
}

/// After the tar's end: only zero blocks, then the gzip trailer with a good checksum, then nothing.
fn finish<R: BufRead>(rest: &mut Bounded<GzDecoder<Counted<R>>>) -> Result<(), SourceError> {
    let mut buffer = [0; 8192];
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if buffer[..n].iter().all(|b| *b == 0) => {}
            Ok(_) => return Err(trailing()),
            Err(error) => {
                return Err(rest.burst.take().map_or(SourceError::Damaged(error), SourceError::TooLarge));
            }
        }
    }
    match rest.inner.get_mut().inner.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(trailing()),
        Err(error) => Err(SourceError::Damaged(error)),
    }
}

fn trailing() -> SourceError {
    SourceError::Damaged(io::Error::new(io::ErrorKind::InvalidData, "data after the end of the archive"))
}

/// Counts the compressed bytes.
struct Counted<R> {
    inner: R,
    read: u64,
}
impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}
impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        self.read += amount as u64;
        self.inner.consume(amount);
    }
}

/// Stops a decompressor that produces too much, in all or for what it was given.
struct Bounded<R> {
    inner: R,
    produced: u64,
    limits: ArchiveLimits,
    burst: Option<String>,
}
impl<R: BufRead> Read for Bounded<GzDecoder<Counted<R>>> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.produced += n as u64;
        let limits = &self.limits;
        let given = self.inner.get_ref().read.max(1);
        let sentence = if self.produced > limits.unpacked {
            format!("unpacks to more than {} bytes", limits.unpacked)
        } else if self.produced > limits.ratio_from && self.produced / given > limits.ratio {
            format!("unpacks to more than {} times its size", limits.ratio)
        } else {
            return Ok(n);
        };
        self.burst = Some(sentence);
        Err(io::Error::other("bound passed"))
    }
}

/// Gives exactly `left` bytes, or keeps the error apart from those of the output.
struct Exact<R> {
    inner: R,
    left: u64,
    failed: Option<io::Error>,
}
impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.inner.read(&mut buffer[..want]) {
            Ok(0) => {
                self.failed = Some(io::ErrorKind::UnexpectedEof.into());
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(n) => {
                self.left -= n as u64;
                Ok(n)
            }
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
