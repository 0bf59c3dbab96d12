//! Days of messages, and keys of events that are out of date.

use crate::days::{AT_ONCE, Daily, Retention};
use crate::{Registry, Result};

const MESSAGES: Daily = Daily { table: "messages", by: "published_at" };

impl Registry {
    /// Makes partitions for the coming days and drops those of days that ended more than `days` days ago, as with ended
    /// invocations.
    pub async fn keep_messages(&self, days: u32) -> Result<Retention> {
        let mut done = self.keep_days(MESSAGES, days).await?;
        let gone = sqlx::query(
            "delete from message_keys where (topic_id, key) in (select topic_id, key from message_keys
                where published_at < clock_timestamp() - interval '24 hours' order by published_at limit $1)",
        )
        .bind(AT_ONCE)
        .execute(&self.pool)
        .await?;
        done.deleted += gone.rows_affected();
        Ok(done)
    }
}
