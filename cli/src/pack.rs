//! Packs a function's folder into a source archive. The same files give the same bytes on every machine,
//! because the archive is named by its digest and an unchanged one need not be built again.

use std::path::{Path, PathBuf};

use davit_api::{Digest, Manifest, limits};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use ignore::WalkBuilder;
use sha2::{Digest as _, Sha256};

use crate::failure::{Failure, Result};
use crate::own_image;

mod dockerignore;

use dockerignore::Ignored;

/// What is left out besides what `.gitignore` and `.davitignore` name: version control, byte code, virtual environments and
/// the values of secrets that `davit dev` reads, which are the machine's and not the function's.
const NEVER: [&str; 8] = [".git", ".hg", ".svn", ".venv", "__pycache__", ".DS_Store", ".davitignore", ".env"];

/// A packed folder.
pub(crate) struct Packed {
    /// The gzipped tar.
    pub(crate) bytes: Vec<u8>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// How many files it holds.
    pub(crate) files: usize,
}

/// Packs the source of a function in `root`: its files, or its `davit.toml` alone where the image that runs is made elsewhere.
pub(crate) fn pack(root: &Path, manifest: &Manifest) -> Result<Packed> {
    own_image::must_have_dockerfile(root, manifest)?;
    if manifest.image.is_some() {
        return own_image::pack(root, manifest);
    }
    pack_files(root, manifest.version_spec().dockerfile.as_deref())
}

/// Packs the files of `root`, which a Dockerfile may be about.
fn pack_files(root: &Path, dockerfile: Option<&str>) -> Result<Packed> {
    let mut files = list(root)?;
    if let Some(dockerfile) = dockerfile {
        let ignored = Ignored::of(root, dockerfile)?;
        // As with Docker, the two files that are needed go along whatever the third one says.
        let needed = |name: &str| name == dockerfile || name == "davit.toml";
        files.retain(|(name, _)| needed(name) || !ignored.leaves_out(name));
    }
    if files.is_empty() {
        return Err(Failure::Usage(format!(
            "{}: there is no file to pack, or all are ignored",
            root.display()
        )));
    }
    files.sort();
    let mut archive = Archive::new("the folder", "; name what is not needed in .davitignore");
    for (name, path) in &files {
        archive.add_file(name, path)?;
    }
    archive.finish()
}

/// A source archive in the making: bounded, and the same for the same files on every machine.
pub(crate) struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    files: usize,
    unpacked: u64,
    /// What is too large, and what to do about it.
    what: &'static str,
    advice: &'static str,
}

impl Archive {
    pub(crate) fn new(what: &'static str, advice: &'static str) -> Self {
        let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
        Self { tar: tar::Builder::new(gzip), files: 0, unpacked: 0, what, advice }
    }

    /// Adds a file. Names have to come in order.
    fn add_file(&mut self, name: &str, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |e| Failure::while_doing(path.display(), e);
        let file = std::fs::File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        let executable = meta.permissions().mode() & 0o100 != 0;
        // A file that grows while it is read must not shift what follows it.
        let bounded = std::io::Read::take(file, meta.len());
        self.add(name, executable, meta.len(), bounded).map_err(|error| match error {
            AddError::Io(error) => failed(error),
            AddError::TooLarge(failure) => failure,
        })
    }

    /// Adds an entry of exactly `size` bytes. Names have to come in order.
    pub(crate) fn add(
        &mut self,
        name: &str,
        executable: bool,
        size: u64,
        content: impl std::io::Read,
    ) -> std::result::Result<(), AddError> {
        self.files += 1;
        self.unpacked += size;
        if self.files > limits::ARCHIVE_ENTRIES {
            return Err(self.too_much(format!("more than {} files", limits::ARCHIVE_ENTRIES)).into());
        }
        if self.unpacked > limits::UNPACKED_BYTES {
            return Err(self
                .too_much(format!("more than {} MiB unpacked", limits::UNPACKED_BYTES / 1_048_576))
                .into());
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        header.set_mode(if executable { 0o755 } else { 0o644 });
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        self.tar.append_data(&mut header, name, content).map_err(AddError::Io)
    }

    pub(crate) fn finish(self) -> Result<Packed> {
        let (files, what, advice) = (self.files, self.what, self.advice);
        let finish = |e| Failure::while_doing("archive", e);
        let bytes = self.tar.into_inner().and_then(GzEncoder::finish).map_err(finish)?;
        if bytes.len() > limits::SOURCE_BYTES {
            let problem =
                format!("{} MiB packed; the limit is {}", bytes.len() >> 20, limits::SOURCE_BYTES >> 20);
            return Err(too_much(what, advice, problem));
        }
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        Ok(Packed { bytes, digest, files })
    }

    fn too_much(&self, problem: String) -> Failure {
        too_much(self.what, self.advice, problem)
    }
}

/// Why an entry was not added.
pub(crate) enum AddError {
    /// It could not be read.
    Io(std::io::Error),
    /// A bound is passed; the sentence is for the user.
    TooLarge(Failure),
}

impl From<Failure> for AddError {
    fn from(failure: Failure) -> Self {
        Self::TooLarge(failure)
    }
}

fn too_much(what: &str, advice: &str, problem: String) -> Failure {
    Failure::Usage(format!("{what} is too large: {problem}{advice}"))
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

#[cfg(test)]
mod tests;
