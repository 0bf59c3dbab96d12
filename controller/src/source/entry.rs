//! One raw tar header: which kind of entry it is, and its name from wherever the format hid it. Read by hand
//! because the tar crate's own reading of long names has no bound.

use std::io::Read;

use super::SourceError;

/// Longest extension header that is read; a name is 1,024 bytes at most.
const MAX_EXTENSION: u64 = 64 * 1024;

/// What may lie in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File { executable: bool, size: u64 },
}

/// What extension headers said about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    path: Option<String>,
}

impl Overrides {
    pub(super) fn is_empty(&self) -> bool {
        self.path.is_none()
    }
}

/// The entry's kind and name; `None` for an extension header, which is kept for the next entry.
pub(super) fn classify<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    next: &mut Overrides,
) -> Result<Option<(Kind, String)>, SourceError> {
    use tar::EntryType;
    let header = entry.header().clone();
    let size = header.entry_size().map_err(SourceError::Damaged)?;
    let own_name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
    let refuse = |problem| Err(SourceError::entry(&own_name, problem));
    match header.entry_type() {
        EntryType::XGlobalHeader => {
            bounded(entry, size, &own_name)?;
            Ok(None)
        }
        EntryType::XHeader => {
            let bytes = bounded(entry, size, &own_name)?;
            pax_path(&bytes, &own_name, next)?;
            Ok(None)
        }
        EntryType::GNULongName => {
            let mut bytes = bounded(entry, size, &own_name)?;
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            next.path = Some(text(bytes, &own_name)?);
            Ok(None)
        }
        EntryType::Regular | EntryType::Directory => {
            let name = match next.path.take() {
                Some(name) => name,
                None => text(header.path_bytes().into_owned(), &own_name)?,
            };
            // Old tars mark a folder by the slash at the end of its name only.
            if header.entry_type().is_dir() || (name.ends_with('/') && size == 0) {
                return Ok(Some((Kind::Folder, name)));
            }
            if name.ends_with('/') {
                return refuse("a folder with content");
            }
            let mode = header.mode().map_err(SourceError::Damaged)?;
            Ok(Some((Kind::File { executable: mode & 0o111 != 0, size }, name)))
        }
        EntryType::Symlink => refuse("symbolic links are not allowed; put the file itself in"),
        EntryType::Link => refuse("hard links are not allowed; put the file itself in"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => refuse("devices and pipes are not allowed"),
        _ => refuse("only plain files and folders are allowed"),
    }
}

fn bounded<R: Read>(entry: &mut tar::Entry<'_, R>, size: u64, name: &str) -> Result<Vec<u8>, SourceError> {
    if size > MAX_EXTENSION {
        return Err(SourceError::entry(name, "the header extension is larger than 64 KiB"));
    }
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION).read_to_end(&mut bytes).map_err(SourceError::Damaged)?;
    Ok(bytes)
}

fn text(bytes: Vec<u8>, shown: &str) -> Result<String, SourceError> {
    String::from_utf8(bytes).map_err(|_| SourceError::entry(shown, "the name is not UTF-8"))
}

/// Takes `path` from pax records (`<length> <key>=<value>\n`) and refuses those that would change what the
/// entry is.
fn pax_path(mut records: &[u8], shown: &str, next: &mut Overrides) -> Result<(), SourceError> {
    let malformed = || SourceError::entry(shown, "malformed pax header");
    while !records.is_empty() {
        let space = records.iter().position(|b| *b == b' ').ok_or_else(malformed)?;
        let length: usize =
            std::str::from_utf8(&records[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(malformed)?;
        if length > records.len() || length < space + 4 || records[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &records[space + 1..length - 1];
        records = &records[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => next.path = Some(text(value.to_vec(), shown)?),
            b"linkpath" => return Err(SourceError::entry(shown, "links are not allowed")),
            b"size" => return Err(SourceError::entry(shown, "a file larger than 8 GiB")),
            sparse if sparse.starts_with(b"GNU.sparse") => {
                return Err(SourceError::entry(shown, "sparse files are not allowed"));
            }
            _ => {}
        }
    }
    Ok(())
}
