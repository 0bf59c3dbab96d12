//! What stands in the way of starts, by pool key: written by the controller, read for calls that got no instance and for
//! whoever looks at a function. A note that nobody repeats is old news, and is passed over.

use davit_api::PoolKey;
use sqlx::Row;

use crate::rows::{bind_pool_key, pool_key};
use crate::{Registry, Result};

/// Longest reason that is kept, in characters; what is longer is cut.
const REASON: usize = 1_000;

impl Registry {
    /// Notes why an instance of this kind could not be started, in place of what was noted before.
    pub async fn note_obstacle(&self, key: &PoolKey, reason: &str) -> Result<()> {
        // Text in Postgres has no NUL.
        let reason: String = reason.chars().filter(|c| *c != '\0').take(REASON).collect();
        if reason.is_empty() {
            return Ok(());
        }
        let insert = sqlx::query(
            "insert into obstacles (image, memory_mb, cpu_millis, ephemeral_mb, network, reason)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (image, memory_mb, cpu_millis, ephemeral_mb, network) do update
             set reason = excluded.reason, noted_at = clock_timestamp()",
        );
        bind_pool_key(insert, key).bind(reason).execute(&self.pool).await?;
        Ok(())
    }

    /// Instances of this kind can be started again.
    pub async fn clear_obstacle(&self, key: &PoolKey) -> Result<()> {
        let delete = sqlx::query(
            "delete from obstacles
             where (image, memory_mb, cpu_millis, ephemeral_mb, network) = ($1, $2, $3, $4, $5)",
        );
        bind_pool_key(delete, key).execute(&self.pool).await?;
        Ok(())
    }

    /// Removes what nobody has repeated for an hour.
    pub async fn prune_obstacles(&self) -> Result<u64> {
        let pruned =
            sqlx::query("delete from obstacles where noted_at < clock_timestamp() - interval '1 hour'")
                .execute(&self.pool)
                .await?;
        Ok(pruned.rows_affected())
    }

    /// What was noted of late, newest first, of at most 500 kinds.
    pub async fn obstacles(&self) -> Result<Vec<(PoolKey, String)>> {
        let rows = sqlx::query(
            "select * from obstacles where noted_at > clock_timestamp() - interval '10 minutes'
             order by noted_at desc limit 500",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((pool_key(row)?, row.try_get("reason")?))).collect()
    }

    /// What was noted of late about one kind.
    pub async fn obstacle(&self, key: &PoolKey) -> Result<Option<String>> {
        let select = sqlx::query(
            "select reason from obstacles
             where (image, memory_mb, cpu_millis, ephemeral_mb, network) = ($1, $2, $3, $4, $5)
               and noted_at > clock_timestamp() - interval '10 minutes'",
        );
        let found = bind_pool_key(select, key).fetch_optional(&self.pool).await?;
        Ok(found.map(|row| row.try_get("reason")).transpose()?)
    }
}
