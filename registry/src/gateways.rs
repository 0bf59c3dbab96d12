//! Gateways: who is there, by the database's clock.

use std::time::Duration;

use davit_api::GatewayId;
use sqlx::Row;

use crate::rows::bigint;
use crate::{Registry, Result};

/// How long a gateway counts as present after its last heartbeat.
pub const LEASE: Duration = Duration::from_secs(10);

/// One gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayRow {
    /// Its id, new at each start.
    pub id: GatewayId,
    /// Where callers reach it.
    pub public_url: String,
    /// For how long its lease has lapsed; none while it holds.
    pub lapsed_for: Option<Duration>,
}

impl Registry {
    /// A gateway has started.
    pub async fn register_gateway(&self, id: GatewayId, public_url: &str) -> Result<()> {
        sqlx::query(
            "insert into gateways (id, public_url) values ($1, $2)
             on conflict (id) do update set public_url = excluded.public_url, seen_at = clock_timestamp()",
        )
        .bind(id.0)
        .bind(public_url)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// A gateway is alive. `false` when it was given up: its instances are being destroyed, and it must
    /// register again under a new id.
    pub async fn heartbeat_gateway(&self, id: GatewayId) -> Result<bool> {
        let done = sqlx::query("update gateways set seen_at = clock_timestamp() where id = $1")
            .bind(id.0)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Asks a gateway to give up so many MiB of idle instances. Asking again before it has heard does not add up.
    pub async fn ask_for_memory(&self, id: GatewayId, mb: u64) -> Result<()> {
        sqlx::query("update gateways set asked_mb = greatest(asked_mb, $2) where id = $1")
            .bind(id.0)
            .bind(bigint(mb))
            .execute(&self.pool)
            .await?;
        self.poke(crate::Topic::Memory);
        Ok(())
    }

    /// What a gateway was asked for since it last looked, in MiB.
    pub async fn take_memory_ask(&self, id: GatewayId) -> Result<u64> {
        let asked: Option<i64> = sqlx::query_scalar(
            "with asked as (select id, asked_mb from gateways where id = $1 and asked_mb > 0 for update)
             update gateways g set asked_mb = 0 from asked where g.id = asked.id returning asked.asked_mb",
        )
        .bind(id.0)
        .fetch_optional(&self.pool)
        .await?;
        Ok(asked.and_then(|mb| u64::try_from(mb).ok()).unwrap_or(0))
    }

    /// Every gateway.
    pub async fn gateways(&self) -> Result<Vec<GatewayRow>> {
        let rows = sqlx::query(
            "select id, public_url, extract(epoch from clock_timestamp() - seen_at)::float8 as age
             from gateways order by started_at",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let age = Duration::from_secs_f64(row.try_get::<f64, _>("age")?.max(0.0));
                Ok(GatewayRow {
                    id: GatewayId(row.try_get("id")?),
                    public_url: row.try_get("public_url")?,
                    lapsed_for: age.checked_sub(LEASE).filter(|d| !d.is_zero()),
                })
            })
            .collect()
    }

    /// A gateway is gone: its demand goes with it, and the jobs it held are free.
    pub async fn drop_gateway(&self, id: GatewayId) -> Result<()> {
        self.transact(move |conn| {
            Box::pin(async move {
                sqlx::query("delete from gateways where id = $1").bind(id.0).execute(&mut *conn).await?;
                crate::queue::free_jobs(conn, id).await
            })
        })
        .await?;
        self.poke(crate::Topic::Queue);
        Ok(())
    }
}
