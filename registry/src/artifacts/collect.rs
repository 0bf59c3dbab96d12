//! Collecting what nothing refers to any more.

use davit_api::ArtifactUploadId;

use super::store::ContentStore;
use crate::{Registry, Result};

/// Objects that one collection removes; the rest waits for the next.
const AT_ONCE: i64 = 1_000;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Versions of functions that were deleted.
    pub versions: u64,
    /// Artifacts that nothing refers to.
    pub artifacts: u64,
    /// Uploads that never ended, and content whose artifact has gone.
    pub uploads: u64,
}

impl Registry {
    /// Collects what nothing refers to: versions of functions deleted a day ago, caches unused for two weeks,
    /// artifacts untouched for an hour, uploads that began an hour ago and never ended.
    pub async fn gc_artifacts(&self) -> Result<GcReport> {
        let mut report = self
            .transact(|conn| {
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
                        "delete from artifact_uploads u where object is null and started_at < clock_timestamp() - interval '1 hour'
                            and not exists (select from artifacts a where a.upload_id = u.id)",
                    ]) {
                        *count = sqlx::query(statement).execute(&mut *conn).await?.rows_affected();
                    }
                    Ok(GcReport { versions: counts[2], artifacts: counts[3], uploads: counts[4] })
                })
            })
            .await?;
        if let Some(store) = &self.store {
            report.uploads += self.gc_objects(store).await?;
        }
        Ok(report)
    }

    /// The object first, and then the row that knows of it.
    async fn gc_objects(&self, store: &ContentStore) -> Result<u64> {
        let unused: Vec<uuid::Uuid> = sqlx::query_scalar(
            "select u.id from artifact_uploads u where object is not null and started_at < clock_timestamp() - interval '1 hour'
                and not exists (select from artifacts a where a.upload_id = u.id) order by started_at limit $1",
        )
        .bind(AT_ONCE)
        .fetch_all(&self.pool)
        .await?;
        for upload in &unused {
            store.remove(&store.path(&ContentStore::name(ArtifactUploadId(*upload)))).await?;
            sqlx::query("delete from artifact_uploads where id = $1")
                .bind(upload)
                .execute(&self.pool)
                .await?;
        }
        Ok(unused.len() as u64)
    }
}
