//! Days of messages, and keys of events that are out of date.

use crate::days::{Daily, Retention};
use crate::{Registry, Result};

const MESSAGES: Daily = Daily { table: "messages", by: "published_at" };

impl Registry {
    /// Makes partitions for the coming days and drops those of days that ended more than `days` days ago, as with ended
    /// invocations.
    pub async fn keep_messages(&self, days: u32) -> Result<Retention> {
        let mut done = self.keep_days(MESSAGES, days).await?;
        done.deleted += self.forget_keys("message_keys", "topic_id", "published_at").await?;
        Ok(done)
    }
}
