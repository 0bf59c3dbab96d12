//! Demand: what each gateway waits for and has lately used up, by pool key. Facts for the pool's plan.

use std::time::Duration;

use davit_api::{GatewayId, PoolKey};
use sqlx::Row;

use crate::rows::{count32, int, pool_key};
use crate::{Registry, Result};

/// One gateway's demand for one kind of instance.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandRow {
    /// Whose.
    pub gateway: GatewayId,
    /// For what.
    pub key: PoolKey,
    /// Calls that wait for an instance now.
    pub waiting: u32,
    /// Instances taken from the pool lately.
    pub claims_recent: u32,
    /// Age of this news.
    pub updated_age: Duration,
}

impl Registry {
    /// Replaces a gateway's demand: keys that are not in the list have none.
    pub async fn write_demand(&self, gateway: GatewayId, demand: &[(PoolKey, u32, u32)]) -> Result<()> {
        let column =
            |f: &dyn Fn(&(PoolKey, u32, u32)) -> u32| demand.iter().map(|d| int(f(d))).collect::<Vec<_>>();
        sqlx::query(
            "with new as (
                select * from unnest($2::text[], $3::int[], $4::int[], $5::int[], $6::text[], $7::int[], $8::int[])
                    as u(image, memory_mb, cpu_millis, ephemeral_mb, network, waiting, claims_recent)),
             gone as (delete from demand d where d.gateway_id = $1 and not exists (select from new u
                where (u.image, u.memory_mb, u.cpu_millis, u.ephemeral_mb, u.network)
                    = (d.image, d.memory_mb, d.cpu_millis, d.ephemeral_mb, d.network)))
             insert into demand (gateway_id, image, memory_mb, cpu_millis, ephemeral_mb, network, waiting, claims_recent)
             select $1, u.* from new u where exists (select from gateways where id = $1)
             on conflict (gateway_id, image, memory_mb, cpu_millis, ephemeral_mb, network) do update
             set waiting = excluded.waiting, claims_recent = excluded.claims_recent, updated_at = clock_timestamp()",
        )
        .bind(gateway.0)
        .bind(demand.iter().map(|d| d.0.image.as_str()).collect::<Vec<_>>())
        .bind(column(&|d| d.0.memory_mb))
        .bind(column(&|d| d.0.cpu_millis))
        .bind(column(&|d| d.0.ephemeral_mb))
        .bind(demand.iter().map(|d| d.0.network.as_str()).collect::<Vec<_>>())
        .bind(column(&|d| d.1))
        .bind(column(&|d| d.2))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All demand.
    pub async fn read_demand(&self) -> Result<Vec<DemandRow>> {
        let rows = sqlx::query(
            "select *, extract(epoch from clock_timestamp() - updated_at)::float8 as age from demand",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DemandRow {
                    gateway: GatewayId(row.try_get("gateway_id")?),
                    key: pool_key(row)?,
                    waiting: count32(row, "waiting")?,
                    claims_recent: count32(row, "claims_recent")?,
                    updated_age: Duration::from_secs_f64(row.try_get::<f64, _>("age")?.max(0.0)),
                })
            })
            .collect()
    }
}
