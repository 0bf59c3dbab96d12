//! Secrets as files. They come before the function does, and are written where only its own container sees them: into a memory file
//! system that is this container's, readable by the one user that everything here runs as.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use davit_link::secret_file;

/// Where they lie.
const FOLDER: &str = "/run/secrets";
/// `TMPFS_MAGIC` of Linux (statfs(2)).
const TMPFS: i64 = 0x0102_1994;

/// Writes one, as it came in its frame. The error says what of the place is wrong, and nothing of the secret.
pub(crate) fn write(body: &[u8]) -> Result<(), String> {
    let (name, contents) = secret_file::decode(body).ok_or("a secret file without a good name")?;
    place(Path::new(FOLDER)).map_err(|error| format!("{FOLDER}: {error}"))?;
    put(Path::new(FOLDER), name, contents).map_err(|error| format!("{FOLDER}/{name}: {error}"))
}

/// The folder, for this user alone. What lies on a disk would outlive the instance, so only memory will do.
fn place(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let kind = rustix::fs::statfs(folder)?.f_type as i64;
    if kind != TMPFS {
        return Err(io::Error::other("not a memory file system"));
    }
    match fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        // In a pod it is a volume, whose folder is root's. There is no other user there, and the files are this user's alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

fn put(folder: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(folder.join(name))?;
    file.write_all(contents)
}
