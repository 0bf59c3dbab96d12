//! Packs a function's folder into a source archive. The same files give the same bytes on every machine,
//! because the archive is named by its digest and an unchanged one need not be built again.

use std::io::Write;
use std::path::{Path, PathBuf};

use davit_api::{Digest, limits};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use ignore::WalkBuilder;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Result};

/// What is left out besides what `.gitignore` and `.davitignore` name: version control, byte code and
/// virtual environments, which are the machine's and not the function's.
const NEVER: [&str; 7] = [".git", ".hg", ".svn", ".venv", "__pycache__", ".DS_Store", ".davitignore"];

/// A packed folder.
pub(crate) struct Packed {
    /// The gzipped tar.
    pub(crate) bytes: Vec<u8>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// How many files it holds.
    pub(crate) files: usize,
}

/// Packs `root`.
pub(crate) fn pack(root: &Path) -> Result<Packed> {
    let mut files = list(root)?;
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "{}: there is no file to pack, or all are ignored",
            root.display()
        )));
    }
    if files.len() > limits::ARCHIVE_ENTRIES {
        return Err(too_much(format!("{} files; the limit is {}", files.len(), limits::ARCHIVE_ENTRIES)));
    }
    files.sort();
    let mut archive = tar::Builder::new(GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6)));
    let mut unpacked = 0;
    for (name, path) in &files {
        unpacked += append(&mut archive, name, path).map_err(|e| Failure::while_doing(path.display(), e))?;
        if unpacked > limits::UNPACKED_BYTES {
            return Err(too_much(format!("more than {} MiB unpacked", limits::UNPACKED_BYTES / 1_048_576)));
        }
    }
    let finish = |e| Failure::while_doing("archive", e);
    let bytes = archive.into_inner().and_then(GzEncoder::finish).map_err(finish)?;
    if bytes.len() > limits::SOURCE_BYTES {
        return Err(too_much(format!(
            "{} MiB packed; the limit is {}",
            bytes.len() >> 20,
            limits::SOURCE_BYTES >> 20
        )));
    }
    let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
    Ok(Packed { bytes, digest, files: files.len() })
}

fn too_much(problem: String) -> Failure {
    Failure::Usage(format!("the folder is too large: {problem}; name what is not needed in .davitignore"))
}

/// Every file that belongs to the function: its name in the archive, and where it lies.
fn list(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let inside_git = root.canonicalize().is_ok_and(|p| p.ancestors().any(|a| a.join(".git").exists()));
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(true)
        // In a repository the rules of the folders above count too; elsewhere they are somebody else's.
        .parents(inside_git)
        .require_git(inside_git)
        .add_custom_ignore_filename(".davitignore")
        .filter_entry(|entry| {
            entry.depth() == 0 || entry.file_name().to_str().is_none_or(|name| !NEVER.contains(&name))
        })
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|e| Failure::while_doing("reading the folder", e))?;
        let Some(kind) = entry.file_type() else { continue };
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let problem = |text: &str| Failure::Usage(format!("{}: {text}", relative.display()));
        if kind.is_file() {
            files.push((name_of(relative)?, entry.path().to_owned()));
        } else if kind.is_symlink() {
            // Archives hold no links; one to a file of the same folder becomes that file.
            let target = entry.path().canonicalize().map_err(|e| problem(&format!("dead link: {e}")))?;
            let root = root.canonicalize().map_err(|e| problem(&e.to_string()))?;
            if !target.is_file() || !target.starts_with(&root) {
                return Err(problem(
                    "a link to a folder or out of the function's folder; copy the files instead",
                ));
            }
            files.push((name_of(relative)?, target));
        } else if !kind.is_dir() {
            return Err(problem("neither a file nor a folder; name it in .davitignore"));
        }
    }
    Ok(files)
}

fn name_of(relative: &Path) -> Result<String> {
    let name = relative.to_str().filter(|n| !n.contains(char::is_control) && !n.contains('\\'));
    name.map(str::to_owned).ok_or_else(|| {
        Failure::Usage(format!("{:?}: file names must be UTF-8 without control characters or \\", relative))
    })
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::PermissionsExt;
    let file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(meta.len());
    header.set_mode(if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    // A file that grows while it is read must not shift what follows it.
    let bounded = std::io::Read::take(file, meta.len());
    archive.append_data(&mut header, name, bounded)?;
    Ok(meta.len())
}

#[cfg(test)]
mod tests;
