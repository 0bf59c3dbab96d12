//! Secrets: sealed with a key that never enters the database, and bound to their place, so that a row copied
//! to another name or namespace does not open.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use chrono::{DateTime, Utc};
use davit_api::{InstanceId, NamespaceId, NamespaceName, SecretName};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use sqlx::Row;

use crate::rows::parsed;
use crate::{Audited, Registry, RegistryError, Result};

/// The key that seals every secret: 32 bytes in a file beside the database, never in it.
#[derive(Clone)]
pub struct MasterKey {
    cipher: XChaCha20Poly1305,
    /// Other keys come from this one; none of them tells anything about it.
    derive: Hmac<Sha256>,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl MasterKey {
    /// Wraps 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        // HMAC takes keys of any length; the type wants to hear it.
        let derive = Hmac::new_from_slice(&bytes).unwrap_or_else(|_| unreachable!());
        Self { cipher: XChaCha20Poly1305::new(&bytes.into()), derive }
    }

    /// The secret of an instance that is reached by an address: whoever has the master key can tell it, and nobody else.
    pub fn instance_secret(&self, instance: InstanceId) -> [u8; 32] {
        self.derived("instance", instance.0.as_bytes())
    }

    /// What the gateways of this installation prove themselves to each other by.
    pub fn gateways_key(&self) -> [u8; 32] {
        self.derived("gateways", &[])
    }

    fn derived(&self, what: &str, whose: &[u8]) -> [u8; 32] {
        let mut mac = self.derive.clone();
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(whose);
        mac.finalize().into_bytes().into()
    }

    /// Reads the key, or makes one when there is no file. Two processes that start at once end up with the
    /// same key: the file appears whole, and only one of them can make it appear.
    pub fn load_or_create(path: &Path) -> std::io::Result<Self> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let mut bytes = [0_u8; 32];
        rand::fill(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let draft = path.with_extension(format!("new-{}", std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(hex.as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::load(path)?.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn load(path: &Path) -> std::io::Result<Option<Self>> {
        let mut text = String::new();
        match fs::File::open(path) {
            Ok(file) => file.take(256).read_to_string(&mut text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = text.trim();
        let bad = || {
            std::io::Error::new(
                ErrorKind::InvalidData,
                format!("{} does not hold 64 hex digits", path.display()),
            )
        };
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Some(Self::from_bytes(bytes)))
    }

    fn seal(&self, place: &str, value: &str) -> Result<([u8; 24], Vec<u8>)> {
        let mut nonce = [0_u8; 24];
        rand::fill(&mut nonce);
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: value.as_bytes(), aad: place.as_bytes() })
            .map_err(|_| RegistryError::damaged("secret", "cannot be sealed"))?;
        Ok((nonce, sealed))
    }

    pub(crate) fn open(
        &self,
        namespace: NamespaceId,
        name: &str,
        nonce: &[u8],
        sealed: &[u8],
    ) -> Result<String> {
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| RegistryError::damaged("secret", "nonce"))?;
        let place = place(namespace, name);
        self.cipher
            .decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: place.as_bytes() })
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| {
                RegistryError::damaged("secret", format_args!("{name} does not open with this master key"))
            })
    }
}

fn place(namespace: NamespaceId, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// A secret as lists show it: never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub name: SecretName,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

impl Audited {
    /// Sets a secret. Instances that start from now on see it.
    pub async fn set_secret(
        &self,
        namespace: &NamespaceName,
        name: &SecretName,
        value: &str,
        key: &MasterKey,
    ) -> Result<()> {
        if value.contains('\0') {
            return Err(davit_api::ApiError::field("value", "must not hold the character U+0000").into());
        }
        let id = self.registry.namespace_id(namespace).await?;
        let (nonce, sealed) = key.seal(&place(id, name.as_str()), value)?;
        let name = name.clone();
        self.change(move |conn| {
            Box::pin(async move {
                sqlx::query(
                    "insert into secrets (namespace_id, name, nonce, sealed) values ($1, $2, $3, $4)
                     on conflict (namespace_id, name) do update
                     set nonce = excluded.nonce, sealed = excluded.sealed, updated_at = clock_timestamp()",
                )
                .bind(id.0)
                .bind(name.as_str())
                .bind(nonce.as_slice())
                .bind(sealed)
                .execute(conn)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Removes a secret.
    pub async fn remove_secret(&self, namespace: &NamespaceName, name: &SecretName) -> Result<()> {
        let (namespace, name) = (namespace.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let done = sqlx::query(
                    "delete from secrets s using namespaces n
                     where n.id = s.namespace_id and n.name = $1 and s.name = $2",
                )
                .bind(namespace.as_str())
                .bind(name.as_str())
                .execute(conn)
                .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("secret", name));
                }
                Ok(())
            })
        })
        .await
    }
}

impl Registry {
    /// A secret's value; none when there is none of that name.
    pub async fn secret(
        &self,
        namespace: &NamespaceName,
        name: &SecretName,
        key: &MasterKey,
    ) -> Result<Option<String>> {
        let row = sqlx::query(
            "select s.namespace_id, s.nonce, s.sealed from secrets s join namespaces n on n.id = s.namespace_id
             where n.name = $1 and s.name = $2",
        )
        .bind(namespace.as_str())
        .bind(name.as_str())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let namespace = NamespaceId(row.try_get("namespace_id")?);
        key.open(namespace, name.as_str(), row.try_get("nonce")?, row.try_get("sealed")?).map(Some)
    }

    /// A namespace's secrets, by name.
    pub async fn list_secrets(&self, namespace: &NamespaceName) -> Result<Vec<SecretRow>> {
        let id = self.namespace_id(namespace).await?;
        let rows = sqlx::query(
            "select name, created_at, updated_at from secrets where namespace_id = $1 order by name",
        )
        .bind(id.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(SecretRow {
                    name: parsed(row, "name")?,
                    created_at: row.try_get("created_at")?,
                    updated_at: row.try_get("updated_at")?,
                })
            })
            .collect()
    }
}
