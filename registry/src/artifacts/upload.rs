//! Keeping content that nobody sees before it is published: in chunks here, or as an object.

use bytes::{Bytes, BytesMut};
use davit_api::{ApiError, ArtifactUploadId, Digest, ErrorCode};
use futures_util::{Stream, StreamExt};
use object_store::buffered::BufWriter;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::finished;
use super::store::{ContentStore, away};
use crate::{Registry, RegistryError, Result};

/// Bytes of a chunk in Postgres.
const CHUNK: usize = 1024 * 1024;
/// Bytes of a part of an object; smaller objects are written at once. S3 takes no smaller parts.
const PART: usize = 5 * 1024 * 1024;

impl Registry {
    /// Keeps the content; nobody sees it before it is published.
    pub(super) async fn upload<S>(&self, digest: Digest, chunks: S) -> Result<(ArtifactUploadId, u64)>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let upload = ArtifactUploadId::new();
        let name = self.store.is_some().then(|| ContentStore::name(upload));
        sqlx::query("insert into artifact_uploads (id, object) values ($1, $2)")
            .bind(upload.0)
            .bind(&name)
            .execute(&self.pool)
            .await?;
        let mut sink = match (&self.store, name) {
            (Some(store), Some(name)) => {
                let objects = store.objects.clone();
                Sink::Object(
                    BufWriter::with_capacity(objects, store.path(&name), PART).with_max_concurrency(2),
                )
            }
            _ => Sink::Chunks { registry: self, upload, next: 0, buffer: BytesMut::new() },
        };
        match fill(&mut sink, digest, chunks).await {
            Ok(size) => Ok((upload, size)),
            Err(error) => {
                sink.abort().await;
                self.drop_upload(upload).await;
                Err(error)
            }
        }
    }

    pub(super) async fn settle_upload(&self, upload: ArtifactUploadId, kept: ArtifactUploadId) {
        if kept != upload {
            self.drop_upload(upload).await;
        }
    }

    /// Forgets an upload that is not published. Should this fail, it is collected.
    async fn drop_upload(&self, upload: ArtifactUploadId) {
        let dropped = async {
            if let Some(store) = &self.store {
                store.remove(&store.path(&ContentStore::name(upload))).await?;
            }
            sqlx::query("delete from artifact_uploads where id = $1")
                .bind(upload.0)
                .execute(&self.pool)
                .await?;
            Ok::<(), RegistryError>(())
        };
        if let Err(error) = dropped.await {
            tracing::debug!(%error, "an unused upload stays until it is collected");
        }
    }
}

/// Writes all of it and answers its size; an error if it has another digest.
async fn fill<S>(sink: &mut Sink<'_>, digest: Digest, mut chunks: S) -> Result<u64>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
{
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|e| ApiError::new(ErrorCode::InvalidRequest, format!("the upload broke off: {e}")))?;
        hash.update(&chunk);
        size += chunk.len() as u64;
        sink.write(chunk).await?;
    }
    let found = finished(&hash);
    if found != digest {
        let message = format!("the content's digest is {found}, not {digest}");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message).into());
    }
    sink.end().await?;
    Ok(size)
}

/// Where content is written to.
enum Sink<'r> {
    Chunks { registry: &'r Registry, upload: ArtifactUploadId, next: i32, buffer: BytesMut },
    Object(BufWriter),
}

impl Sink<'_> {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        match self {
            Self::Object(object) => object.put(piece).await.map_err(away),
            Self::Chunks { registry, upload, next, buffer } => {
                buffer.extend_from_slice(&piece);
                while buffer.len() >= CHUNK {
                    keep(registry, *upload, next, &buffer.split_to(CHUNK)).await?;
                }
                Ok(())
            }
        }
    }

    /// The rest.
    async fn end(&mut self) -> Result<()> {
        match self {
            Self::Object(object) => object
                .shutdown()
                .await
                .map_err(|e| RegistryError::Unavailable(format!("the object store: {e}"))),
            Self::Chunks { registry, upload, next, buffer } if !buffer.is_empty() => {
                keep(registry, *upload, next, buffer).await
            }
            Self::Chunks { .. } => Ok(()),
        }
    }

    /// Gives parts up that the store keeps until somebody does.
    async fn abort(&mut self) {
        if let Self::Object(object) = self
            && let Err(error) = object.abort().await
        {
            tracing::debug!(%error, "the parts of a broken upload were not given up");
        }
    }
}

async fn keep(registry: &Registry, upload: ArtifactUploadId, next: &mut i32, data: &[u8]) -> Result<()> {
    sqlx::query("insert into artifact_chunks (upload_id, seq, data) values ($1, $2, $3)")
        .bind(upload.0)
        .bind(*next)
        .bind(data)
        .execute(&registry.pool)
        .await?;
    *next += 1;
    Ok(())
}
