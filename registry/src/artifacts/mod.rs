//! Content by digest: source archives, bundles, and cached dependencies. It lies in Postgres in chunks of 1 MiB, or in an
//! object store; what is in the one stays readable when new content goes to the other.

mod collect;
mod read;
mod store;
mod upload;

use bytes::Bytes;
use davit_api::{ArtifactUploadId, Digest};
use futures_util::Stream;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::rows::{bigint, digest_opt};
use crate::{Audited, Registry, RegistryError, Result};

pub use collect::GcReport;
pub use read::ArtifactReader;
pub use store::ContentStore;

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

    /// The same for content that is in memory.
    pub async fn put_artifact_bytes(&self, digest: Digest, content: Bytes) -> Result<u64> {
        self.put_artifact(digest, futures_util::stream::iter([Ok(content)])).await
    }

    /// The object store; an error says how to come by it.
    fn content_store(&self) -> Result<&ContentStore> {
        let text = "its content lies in an object store, and DAVIT_ARTIFACTS_URL says none";
        self.store.as_ref().ok_or_else(|| RegistryError::damaged("artifact", text))
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
}
