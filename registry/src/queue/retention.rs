//! Days of ended invocations, and clients' keys that are out of date.

use crate::days::{AT_ONCE, Daily, Retention};
use crate::{Registry, Result};

const ENDED: Daily = Daily { table: "ended_invocations", by: "ended_at" };

impl Registry {
    /// Makes partitions for the coming days and drops those of days that ended more than `days` days ago. A partition
    /// that somebody is reading, a backup perhaps, waits for the next round rather than everybody behind it.
    pub async fn keep_invocations(&self, days: u32) -> Result<Retention> {
        let mut done = self.keep_days(ENDED, days).await?;
        let gone = sqlx::query(
            "delete from idempotency_keys where (function_id, key) in (select function_id, key from idempotency_keys
                where created_at < clock_timestamp() - interval '24 hours' order by created_at limit $1)",
        )
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await?;
        done.deleted += gone.rows_affected();
        Ok(done)
    }
}
