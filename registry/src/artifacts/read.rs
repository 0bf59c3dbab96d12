//! Reading content, from wherever it lies: piece by piece, and never without its digest being checked.

use bytes::Bytes;
use davit_api::Digest;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::ObjectStoreExt;
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use uuid::Uuid;

use super::finished;
use super::store::away;
use crate::rows::count64;
use crate::{Registry, RegistryError, Result};

/// Reads an artifact piece by piece, holding no connection to Postgres in between. The last piece is handed out only
/// when the whole content has the digest that was asked for.
pub struct ArtifactReader {
    from: From,
    digest: Digest,
    size: u64,
    done: u64,
    hash: Sha256,
}

/// Where the pieces come from.
enum From {
    /// Chunks of an upload in Postgres.
    Chunks { registry: Registry, upload: Uuid, next: i32 },
    /// An object.
    Object(BoxStream<'static, object_store::Result<Bytes>>),
}

impl ArtifactReader {
    /// Size of the whole content in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; `None` after the last. An error means that what was read so far must not be used.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.done == self.size && (self.done > 0 || self.size == 0) {
            return Ok(None);
        }
        let piece = self.from.next().await?;
        let piece = piece.ok_or_else(|| {
            RegistryError::damaged("artifact", format_args!("{} lacks a part", self.digest))
        })?;
        self.hash.update(&piece);
        self.done += piece.len() as u64;
        let whole = self.done == self.size;
        if self.done > self.size || (whole && finished(&self.hash) != self.digest) {
            return Err(RegistryError::damaged(
                "artifact",
                format_args!("{} has other content", self.digest),
            ));
        }
        Ok(Some(piece))
    }

    /// The rest, at once.
    pub async fn read_all(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        while let Some(chunk) = self.next_chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

impl From {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Chunks { registry, upload, next } => {
                let data: Option<Vec<u8>> =
                    sqlx::query_scalar("select data from artifact_chunks where upload_id = $1 and seq = $2")
                        .bind(*upload)
                        .bind(*next)
                        .fetch_optional(&registry.pool)
                        .await?;
                *next += 1;
                Ok(data.map(Bytes::from))
            }
            Self::Object(pieces) => pieces.next().await.transpose().map_err(away),
        }
    }
}

impl Registry {
    /// Opens content for reading.
    pub async fn open_artifact(&self, digest: Digest) -> Result<ArtifactReader> {
        let row = sqlx::query(
            "select a.upload_id, a.size, u.object from artifacts a join artifact_uploads u on u.id = a.upload_id
             where a.digest = $1",
        )
        .bind(digest.as_bytes().as_slice())
        .fetch_optional(&self.pool)
        .await?
        .ok_or_else(|| RegistryError::not_found("artifact", digest))?;
        let from = match row.try_get::<Option<String>, _>("object")? {
            None => From::Chunks { registry: self.clone(), upload: row.try_get("upload_id")?, next: 0 },
            Some(name) => {
                let store = self.content_store()?;
                match store.objects.get(&store.path(&name)).await {
                    Ok(object) => From::Object(object.into_stream()),
                    Err(object_store::Error::NotFound { .. }) => {
                        let text = format_args!("{digest}: {name} is not in the object store {store:?}");
                        return Err(RegistryError::damaged("artifact", text));
                    }
                    Err(error) => return Err(away(error)),
                }
            }
        };
        Ok(ArtifactReader { from, digest, size: count64(&row, "size")?, done: 0, hash: Sha256::new() })
    }
}
