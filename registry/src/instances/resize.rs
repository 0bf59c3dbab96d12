//! Other sizes for instances that wait. A gateway wishes, and holds the instance back while the wish stands; the controller
//! begins, and then either gives the row its new size or takes the wish away. Each step says what it builds on, so whoever
//! comes late, or twice, changes nothing.

use davit_api::{GatewayId, InstanceId, PoolKey};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::Wish;
use crate::rows::{count32, int};
use crate::{Registry, Result};

/// The wish in a row.
pub(super) fn wish(row: &PgRow, key: &PoolKey) -> Result<Option<Wish>> {
    let Some(since) = row.try_get("wished_at")? else { return Ok(None) };
    let (memory_mb, cpu_millis) = (count32(row, "wish_memory_mb")?, count32(row, "wish_cpu_millis")?);
    let begun = row.try_get::<Option<Uuid>, _>("resize_attempt")?.is_some();
    Ok(Some(Wish { key: PoolKey { memory_mb, cpu_millis, ..key.clone() }, begun, since }))
}

impl Registry {
    /// A gateway wishes that instances of its own, which it holds back, become of another size. What cannot be is not written.
    pub async fn wish_sizes(&self, gateway: GatewayId, wishes: &[(InstanceId, PoolKey)]) -> Result<()> {
        let column =
            |f: &dyn Fn(&PoolKey) -> u32| wishes.iter().map(|(_, key)| int(f(key))).collect::<Vec<_>>();
        sqlx::query(
            "with u as (
                select * from unnest($2::uuid[], $3::int[], $4::int[]) as u(id, memory_mb, cpu_millis))
             update instances i set wish_memory_mb = u.memory_mb, wish_cpu_millis = u.cpu_millis,
                wished_at = clock_timestamp()
             from u where i.id = u.id and i.gateway_id = $1 and i.state = 'pooled' and i.resizable
                and i.wished_at is null",
        )
        .bind(gateway.0)
        .bind(wishes.iter().map(|(id, _)| id.0).collect::<Vec<_>>())
        .bind(column(&|key| key.memory_mb))
        .bind(column(&|key| key.cpu_millis))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The container is about to be given that size. `false` when that is not wished for any more.
    pub async fn begin_resize(&self, id: InstanceId, key: &PoolKey, attempt: Uuid) -> Result<bool> {
        let done = sqlx::query(
            "update instances set resize_attempt = $4
             where id = $1 and state = 'pooled' and (wish_memory_mb, wish_cpu_millis) = ($2, $3)",
        )
        .bind(id.0)
        .bind(int(key.memory_mb))
        .bind(int(key.cpu_millis))
        .bind(attempt)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The container has that size, and so the instance is of that kind. `false` when it did not wait for it any more.
    pub async fn finish_resize(&self, id: InstanceId, key: &PoolKey) -> Result<bool> {
        let done = sqlx::query(
            "update instances set memory_mb = $2, cpu_millis = $3, resizable = false, wish_memory_mb = null,
                wish_cpu_millis = null, wished_at = null, resize_attempt = null, changed_at = clock_timestamp()
             where id = $1 and state = 'pooled' and (wish_memory_mb, wish_cpu_millis) = ($2, $3)
                and resize_attempt is not null",
        )
        .bind(id.0)
        .bind(int(key.memory_mb))
        .bind(int(key.cpu_millis))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Nobody knows which size the container has: the instance is nobody's from now on, and goes. `false` when somebody has found
    /// out since, or it has gone already.
    pub async fn abandon_resize(&self, id: InstanceId) -> Result<bool> {
        let done = sqlx::query(
            "update instances set state = 'released', changed_at = clock_timestamp()
             where id = $1 and state = 'pooled' and resize_attempt is not null",
        )
        .bind(id.0)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The instance stays as it is. `attempt`: the one that has come to nothing without changing anything; `None` when none was
    /// begun. `false` when another one was begun since: that one may have changed it.
    pub async fn decline_resize(&self, id: InstanceId, attempt: Option<Uuid>) -> Result<bool> {
        let done = sqlx::query(
            "update instances set resizable = false, wish_memory_mb = null, wish_cpu_millis = null, wished_at = null,
                resize_attempt = null
             where id = $1 and state = 'pooled' and wished_at is not null and resize_attempt is not distinct from $2",
        )
        .bind(id.0)
        .bind(attempt)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
