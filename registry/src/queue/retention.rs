//! Days of ended invocations, and clients' keys that are out of date.

use crate::days::{Daily, Retention};
use crate::{Registry, Result};

const ENDED: Daily = Daily { table: "ended_invocations", by: "ended_at" };

impl Registry {
    /// Makes partitions for the coming days and drops those of days that ended more than `days` days ago. A partition
    /// that somebody is reading, a backup perhaps, waits for the next round rather than everybody behind it.
    pub async fn keep_invocations(&self, days: u32) -> Result<Retention> {
        let mut done = self.keep_days(ENDED, days).await?;
        done.deleted += self.forget_keys("idempotency_keys", "function_id", "created_at").await?;
        Ok(done)
    }
}
