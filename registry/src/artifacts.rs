//! Content by digest: source archives, bundles, and cached dependencies, in chunks of 1 MiB.

use bytes::{Bytes, BytesMut};
use davit_api::{ApiError, ArtifactUploadId, Digest, ErrorCode};
use futures_util::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::rows::{bigint, count64, digest_opt};
use crate::{Audited, Registry, RegistryError, Result};

const CHUNK: usize = 1024 * 1024;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Versions of functions that were deleted.
    pub versions: u64,
    /// Artifacts that nothing refers to.
    pub artifacts: u64,
    /// Uploads that never ended.
    pub uploads: u64,
}

/// Reads an artifact chunk by chunk, holding no connection in between. The last chunk is handed out only when
/// the whole content has the digest that was asked for.
pub struct ArtifactReader {
    registry: Registry,
    digest: Digest,
    upload: Uuid,
    size: u64,
    done: u64,
    seq: i32,
    hash: Sha256,
}

impl ArtifactReader {
    /// Size of the whole content in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next chunk; `None` after the last. An error means that what was read so far must not be used.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        if self.done == self.size && (self.seq > 0 || self.size == 0) {
            return Ok(None);
        }
        let data: Option<Vec<u8>> =
            sqlx::query_scalar("select data from artifact_chunks where upload_id = $1 and seq = $2")
                .bind(self.upload)
                .bind(self.seq)
                .fetch_optional(&self.registry.pool)
                .await?;
        let data = data.ok_or_else(|| {
            RegistryError::damaged("artifact", format_args!("{} lacks a chunk", self.digest))
        })?;
        self.hash.update(&data);
        self.seq += 1;
        self.done += data.len() as u64;
        let whole = self.done == self.size;
        if self.done > self.size || (whole && finished(&self.hash) != self.digest) {
            return Err(RegistryError::damaged(
                "artifact",
                format_args!("{} has other content", self.digest),
            ));
        }
        Ok(Some(data.into()))
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

fn finished(hash: &Sha256) -> Digest {
    Digest::from_bytes(hash.clone().finalize().into())
}

/// Makes an upload visible under its digest and answers which upload holds the content now: content that is
/// there already keeps its chunks, and the row only learns that somebody wants it.
async fn publish(
    conn: &mut PgConnection,
    digest: Digest,
    size: u64,
    upload: ArtifactUploadId,
) -> Result<ArtifactUploadId> {
    let kept: Uuid = sqlx::query_scalar(
        "insert into artifacts (digest, size, upload_id) values ($1, $2, $3)
         on conflict (digest) do update set touched_at = clock_timestamp() returning upload_id",
    )
    .bind(digest.as_bytes().as_slice())
    .bind(bigint(size))
    .bind(upload.0)
    .fetch_one(conn)
    .await?;
    Ok(ArtifactUploadId(kept))
}

impl Audited {
    /// As [`Registry::put_artifact`], for content that somebody sent.
    pub async fn put_artifact<S>(&self, digest: Digest, chunks: S) -> Result<u64>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let (upload, size) = self.registry.upload(digest, chunks).await?;
        let kept = self.change(move |conn| Box::pin(publish(conn, digest, size, upload))).await?;
        self.registry.settle_upload(upload, kept).await;
        Ok(size)
    }
}

impl Registry {
    /// Stores content under its digest and answers its size. Content with another digest is refused; content
    /// that is stored already is not stored again. An upload that breaks off leaves nothing visible.
    pub async fn put_artifact<S>(&self, digest: Digest, chunks: S) -> Result<u64>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let (upload, size) = self.upload(digest, chunks).await?;
        let kept = self.transact(move |conn| Box::pin(publish(conn, digest, size, upload))).await?;
        self.settle_upload(upload, kept).await;
        Ok(size)
    }

    /// Stores the chunks, which nobody sees before they are published.
    async fn upload<S>(&self, digest: Digest, mut chunks: S) -> Result<(ArtifactUploadId, u64)>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send + Unpin,
    {
        let upload = ArtifactUploadId::new();
        sqlx::query("insert into artifact_uploads (id) values ($1)")
            .bind(upload.0)
            .execute(&self.pool)
            .await?;
        let (mut hash, mut size, mut seq, mut buffer) = (Sha256::new(), 0_u64, 0_i32, BytesMut::new());
        loop {
            let chunk = chunks.next().await.transpose().map_err(|e| {
                ApiError::new(ErrorCode::InvalidRequest, format!("the upload broke off: {e}"))
            })?;
            let ended = chunk.is_none();
            if let Some(chunk) = chunk {
                hash.update(&chunk);
                size += chunk.len() as u64;
                buffer.extend_from_slice(&chunk);
            }
            while buffer.len() >= CHUNK || (ended && !buffer.is_empty()) {
                let part = buffer.split_to(buffer.len().min(CHUNK));
                sqlx::query("insert into artifact_chunks (upload_id, seq, data) values ($1, $2, $3)")
                    .bind(upload.0)
                    .bind(seq)
                    .bind(part.as_ref())
                    .execute(&self.pool)
                    .await?;
                seq += 1;
            }
            if ended {
                break;
            }
        }
        let found = finished(&hash);
        if found != digest {
            self.drop_upload(upload).await;
            let message = format!("the content's digest is {found}, not {digest}");
            return Err(ApiError::new(ErrorCode::InvalidRequest, message).into());
        }
        Ok((upload, size))
    }

    /// The same for content that is in memory.
    pub async fn put_artifact_bytes(&self, digest: Digest, content: Bytes) -> Result<u64> {
        self.put_artifact(digest, futures_util::stream::iter([Ok(content)])).await
    }

    async fn settle_upload(&self, upload: ArtifactUploadId, kept: ArtifactUploadId) {
        if kept != upload {
            self.drop_upload(upload).await;
        }
    }

    async fn drop_upload(&self, upload: ArtifactUploadId) {
        let done = sqlx::query("delete from artifact_uploads where id = $1")
            .bind(upload.0)
            .execute(&self.pool)
            .await;
        if let Err(error) = done {
            tracing::debug!(%error, "an unused upload stays until it is collected");
        }
    }

    /// Opens content for reading.
    pub async fn open_artifact(&self, digest: Digest) -> Result<ArtifactReader> {
        let row = sqlx::query("select upload_id, size from artifacts where digest = $1")
            .bind(digest.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await?
            .ok_or_else(|| RegistryError::not_found("artifact", digest))?;
        Ok(ArtifactReader {
            registry: self.clone(),
            digest,
            upload: row.try_get("upload_id")?,
            size: count64(&row, "size")?,
            done: 0,
            seq: 0,
            hash: Sha256::new(),
        })
    }

    /// Whether content of that digest is stored; if so it will not be collected within the hour.
    pub async fn has_artifact(&self, digest: Digest) -> Result<bool> {
        let done = sqlx::query("update artifacts set touched_at = clock_timestamp() where digest = $1")
            .bind(digest.as_bytes().as_slice())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The artifact cached under a key, such as the dependencies of one lock file.
    pub async fn get_cache(&self, key: &str) -> Result<Option<Digest>> {
        let row =
            sqlx::query("update dep_cache set used_at = clock_timestamp() where key = $1 returning digest")
                .bind(key)
                .fetch_optional(&self.pool)
                .await?;
        row.map_or(Ok(None), |row| digest_opt(&row, "digest"))
    }

    /// Caches an artifact under a key.
    pub async fn put_cache(&self, key: &str, digest: Digest) -> Result<()> {
        sqlx::query(
            "insert into dep_cache (key, digest) values ($1, $2)
             on conflict (key) do update set digest = excluded.digest, used_at = clock_timestamp()",
        )
        .bind(key)
        .bind(digest.as_bytes().as_slice())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Collects what nothing refers to: versions of functions deleted a day ago, caches unused for two weeks,
    /// artifacts untouched for an hour, uploads that began an hour ago and never ended.
    pub async fn gc_artifacts(&self) -> Result<GcReport> {
        self.transact(|conn| {
            Box::pin(async move {
                let mut counts = [0; 5];
                for (count, statement) in counts.iter_mut().zip([
                    "delete from dep_cache where used_at < clock_timestamp() - interval '14 days'",
                    "delete from instances where state = 'removed' and changed_at < clock_timestamp() - interval '1 day'",
                    "delete from versions v using functions f where f.id = v.function_id
                        and f.deleted_at < clock_timestamp() - interval '1 day'
                        and not exists (select from instances i where i.version_id = v.id)",
                    "delete from artifacts a where touched_at < clock_timestamp() - interval '1 hour'
                        and not exists (select from versions v where v.source = a.digest or v.bundle = a.digest)
                        and not exists (select from dep_cache d where d.digest = a.digest)",
                    "delete from artifact_uploads u where started_at < clock_timestamp() - interval '1 hour'
                        and not exists (select from artifacts a where a.upload_id = u.id)",
                ]) {
                    *count = sqlx::query(statement).execute(&mut *conn).await?.rows_affected();
                }
                Ok(GcReport { versions: counts[2], artifacts: counts[3], uploads: counts[4] })
            })
        })
        .await
    }
}
