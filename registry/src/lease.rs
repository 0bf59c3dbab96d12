//! One acting controller: a row with a holder, an end and a fencing number, all on the database's clock.

use sqlx::Row;
use uuid::Uuid;

use crate::{Registry, Result};

/// Proof of having held a lease: the number grows with every change of holder, so a holder that slept
/// through its lease can be told from the one that followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Which lease.
    pub name: String,
    /// Who holds it.
    pub holder: Uuid,
    /// Larger for each new holding.
    pub number: i64,
}

impl Registry {
    /// Takes a lease of ten seconds when it is free, lapsed, or already the holder's own.
    pub async fn acquire_lease(&self, name: &str, holder: Uuid) -> Result<Option<Fence>> {
        let row = sqlx::query(
            "insert into leases (name, holder, fence, expires_at)
             values ($1, $2, 1, clock_timestamp() + interval '10 seconds')
             on conflict (name) do update
             set holder = excluded.holder, fence = leases.fence + 1, expires_at = excluded.expires_at
             where leases.expires_at <= clock_timestamp() or leases.holder = excluded.holder
             returning fence",
        )
        .bind(name)
        .bind(holder)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|r| Ok(Fence { name: name.to_owned(), holder, number: r.try_get("fence")? })).transpose()
    }

    /// Makes the lease last another ten seconds; `false` when it is no longer held.
    pub async fn renew_lease(&self, fence: &Fence) -> Result<bool> {
        let done = sqlx::query(
            "update leases set expires_at = clock_timestamp() + interval '10 seconds'
             where name = $1 and holder = $2 and fence = $3 and expires_at > clock_timestamp()",
        )
        .bind(&fence.name)
        .bind(fence.holder)
        .bind(fence.number)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets go, so that another can take it at once.
    pub async fn release_lease(&self, fence: &Fence) -> Result<()> {
        sqlx::query(
            "update leases set expires_at = clock_timestamp() where name = $1 and holder = $2 and fence = $3",
        )
        .bind(&fence.name)
        .bind(fence.holder)
        .bind(fence.number)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
