//! One directory an instance, shared with its container alone. The parent is closed to everybody but davit;
//! the directory itself is open, since the container's user has no account here.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use davit_api::InstanceId;

use super::BackendError;

/// Name of the agent's socket.
const SOCKET: &str = "agent.sock";

pub(super) struct Dirs {
    parent: PathBuf,
}

impl Dirs {
    pub(super) fn create(parent: &Path) -> Result<Self, BackendError> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|e| host(parent, &e))?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o700))
            .map_err(|e| host(parent, &e))?;
        // The engine resolves paths from its own working directory.
        let parent = parent.canonicalize().map_err(|e| host(parent, &e))?;
        Ok(Self { parent })
    }

    pub(super) fn path(&self, instance: InstanceId) -> PathBuf {
        self.parent.join(instance.to_string())
    }

    pub(super) fn make(&self, instance: InstanceId) -> Result<PathBuf, BackendError> {
        let path = self.path(instance);
        std::fs::create_dir(&path).map_err(|e| host(&path, &e))?;
        self.set_mode(&path, 0o777)?;
        Ok(path)
    }

    /// The agent's socket, once it is there: the agent makes it only when its runtime is warm. From then on nothing inside may fill
    /// this host's disk.
    pub(super) fn ready(&self, instance: InstanceId) -> Result<Option<PathBuf>, BackendError> {
        let socket = self.path(instance).join(SOCKET);
        if std::fs::symlink_metadata(&socket).is_err() {
            return Ok(None);
        }
        self.set_mode(&self.path(instance), 0o755)?;
        Ok(Some(socket))
    }

    pub(super) fn remove(&self, instance: InstanceId) -> Result<(), BackendError> {
        let path = self.path(instance);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(host(&path, &e)),
        }
    }

    /// Those that are older than `age`.
    pub(super) fn list(&self, age: Duration) -> Result<Vec<InstanceId>, BackendError> {
        let entries = std::fs::read_dir(&self.parent).map_err(|e| host(&self.parent, &e))?;
        let old = |entry: &std::fs::DirEntry| {
            let modified = entry.metadata().and_then(|found| found.modified());
            modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|old| old >= age))
        };
        let entries = entries.flatten().filter(old);
        Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    fn set_mode(&self, path: &Path, mode: u32) -> Result<(), BackendError> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|e| host(path, &e))
    }
}

fn host(path: &Path, error: &std::io::Error) -> BackendError {
    BackendError::Host(format!("{}: {error}", path.display()))
}

/// This process's own hard limit stands for the engine's: both usually come from the same init.
pub(super) fn max_open_files() -> i64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|rest| rest.split_whitespace().nth(1));
    hard.and_then(|n| n.parse().ok()).unwrap_or(1_024)
}
