//! The state directory: one `davit up` at a time, but any number of gateways and controllers; files that appear whole, secrets that
//! only the owner reads.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use davit_api::{NewToken, Role};
use davit_registry::{Registry, hash_token};

use crate::context::Endpoint;
use crate::failure::{Failure, Result};

/// A state directory that this process uses for as long as the value lives.
pub(super) struct State {
    dir: PathBuf,
    _lock: File,
}

/// Who else may use the directory at the same time, in the same role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    Any,
}

impl State {
    /// Makes the directory if need be and takes its lock, which ends with the process however it ends.
    pub(super) fn own(dir: &Path, role: &'static str) -> Result<Self> {
        Self::take(dir, role, Others::None)
    }

    /// As [`State::own`], beside any number of processes that share it in the same role. Gateways may: each
    /// instance's socket belongs to one of them, and bundles appear whole under their digest. Controllers may: who
    /// has the registry's lease alone touches containers, and what the others do goes through the registry.
    pub(super) fn share(dir: &Path, role: &'static str) -> Result<Self> {
        Self::take(dir, role, Others::Any)
    }

    fn take(dir: &Path, role: &'static str, others: Others) -> Result<Self> {
        let failed = |e: std::io::Error| Failure::while_doing(dir.display(), e);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let path = dir.join(format!("{role}.lock"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|e| Failure::while_doing(path.display(), e))?;
        let locked = if others == Others::Any { lock.try_lock_shared() } else { lock.try_lock() };
        match locked {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::Failed(format!(
                "another davit runs on {}; stop it, or choose another --state-dir",
                dir.display()
            ))),
            Err(TryLockError::Error(e)) => Err(Failure::while_doing(path.display(), e)),
        }
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the first administrator's token lies.
    pub(super) fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Sees that an administrator has a token: the one that `given` holds, or one that is made and left in the state
    /// directory, unless the file there holds one that is known.
    pub(super) async fn first_token(&self, registry: &Registry, given: Option<&Path>) -> Result<()> {
        if let Some(path) = given {
            return take_in(registry, path).await;
        }
        let path = self.token_file();
        // Two that start together would each make one, and only one of them be in the file.
        let turn = self.dir.join("token.lock");
        let turn = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&turn);
        let turn = turn.map_err(|e| Failure::while_doing("token.lock", e))?;
        let turn = tokio::task::spawn_blocking(move || turn.lock().map(|()| turn)).await;
        let _turn = turn
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|e| Failure::while_doing("token.lock", e))?;
        if let Ok(text) = fs::read_to_string(&path) {
            let known = registry.find_token(hash_token(text.trim())).await;
            if known.map_err(|e| Failure::while_doing("registry", e))?.is_some() {
                return Ok(());
            }
            tracing::warn!(path = %path.display(), "the token in this file is not valid any more; making another");
        }
        let made = registry
            .as_davit("tokens.create")
            .create_token(administrator("first administrator"))
            .await
            .map_err(|e| Failure::while_doing("first token", e))?;
        write_whole(&path, &format!("{}\n", made.token), 0o600)
    }

    /// Tells clients on this machine where davit listens.
    pub(super) fn write_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let text = serde_json::to_string_pretty(endpoint).map_err(|e| Failure::while_doing("endpoint", e))?;
        write_whole(&self.dir.join(Endpoint::FILE), &format!("{text}\n"), 0o644)
    }

    /// Takes it back, when davit does not listen any more.
    pub(super) fn remove_endpoint(&self) {
        let _ = fs::remove_file(self.dir.join(Endpoint::FILE));
    }
}

/// Makes the token in a file an administrator's, unless it is known already.
async fn take_in(registry: &Registry, path: &Path) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Failure::while_doing(path.display(), e);
    let text = fs::read_to_string(path).map_err(|e| failed(&e))?;
    let new = administrator("administrator of the operator's making");
    let good = registry.as_davit("tokens.create").adopt_token(new, text.trim()).await;
    if !good.map_err(|e| failed(&e))? {
        tracing::warn!(path = %path.display(), "the token in this file was revoked, and stays so");
    }
    Ok(())
}

fn administrator(description: &str) -> NewToken {
    NewToken { description: description.into(), namespace: None, role: Role::Admin, expires_at: None }
}

/// Writes a file that readers see whole or not at all.
fn write_whole(path: &Path, text: &str, mode: u32) -> Result<()> {
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|e| Failure::while_doing(path.display(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_davit_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::own(dir.path(), "up").unwrap();
        assert!(State::own(dir.path(), "up").is_err());
        drop(first);
        assert!(State::own(dir.path(), "up").is_ok());
    }

    #[test]
    fn gateways_share_a_directory_with_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::share(dir.path(), "gateway").unwrap();
        assert!(State::share(dir.path(), "gateway").is_ok());
        assert!(State::own(dir.path(), "gateway").is_err(), "but not with somebody who wants it alone");
        drop(first);
        assert!(State::own(dir.path(), "gateway").is_ok());
    }
}
