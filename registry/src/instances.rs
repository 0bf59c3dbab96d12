//! Instances: one row a container, from the decision to start it until it is gone. Written in batches.

mod resize;

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use davit_api::{Digest, GatewayId, InstanceId, InstanceState, PoolKey, VersionId};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows::{bigint, bind_pool_key, count64, digest_opt, parsed, pool_key};
use crate::{Fence, Registry, RegistryError, Result};

/// One instance as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRow {
    /// Its id, which is also its container's label.
    pub id: InstanceId,
    /// The one gateway that may spend it.
    pub gateway: GatewayId,
    /// What it fits.
    pub key: PoolKey,
    /// The image that its container runs.
    pub image_digest: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Where its agent is reached, if not through a socket on the machine of its gateway.
    pub address: Option<SocketAddr>,
    /// Whether another size may be wished for, which happens once at most.
    pub resizable: bool,
    /// The other size that its gateway wishes for.
    pub wish: Option<Wish>,
    /// The version that it serves, once it has one.
    pub version_id: Option<VersionId>,
    /// Digest of the configuration that it was given.
    pub config_digest: Option<Digest>,
    /// Calls that it has served.
    pub calls: u64,
    /// Of these, how many failed.
    pub errors: u64,
    /// When it was decided.
    pub created_at: DateTime<Utc>,
    /// When its state last changed.
    pub changed_at: DateTime<Utc>,
}

/// What an instance becomes a kind of, when its size is changed. Until that is over its gateway holds it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The kind; it differs in memory and CPU alone.
    pub key: PoolKey,
    /// Whether its container may have the size already.
    pub begun: bool,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// How an instance became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// Where its agent is reached, if not through a socket on the machine of its gateway.
    pub address: Option<SocketAddr>,
    /// Whether its size can be changed.
    pub resizable: bool,
}

/// News of one instance from its gateway; counts are totals, so sending them twice does no harm.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceUpdate {
    /// Which instance.
    pub id: InstanceId,
    /// Its state now; one that would go back in its life is ignored.
    pub state: InstanceState,
    /// The version that it was given.
    pub version_id: Option<VersionId>,
    /// Digest of the configuration that it was given.
    pub config_digest: Option<Digest>,
    /// Calls so far.
    pub calls: u64,
    /// Failed calls so far.
    pub errors: u64,
}

fn read(row: &PgRow) -> Result<InstanceRow> {
    let key = pool_key(row)?;
    Ok(InstanceRow {
        id: InstanceId(row.try_get("id")?),
        gateway: GatewayId(row.try_get("gateway_id")?),
        resizable: row.try_get("resizable")?,
        wish: resize::wish(row, &key)?,
        key,
        image_digest: row.try_get("image_digest")?,
        state: parsed(row, "state")?,
        address: row
            .try_get::<Option<String>, _>("address")?
            .map(|text| text.parse().map_err(|_| RegistryError::damaged("instance", "address")))
            .transpose()?,
        version_id: row.try_get::<Option<_>, _>("version_id")?.map(VersionId),
        config_digest: digest_opt(row, "config_digest")?,
        calls: count64(row, "calls")?,
        errors: count64(row, "errors")?,
        created_at: row.try_get("created_at")?,
        changed_at: row.try_get("changed_at")?,
    })
}

impl Registry {
    /// Records the decision to start an instance, before its container is made. `false`, and nothing is recorded, when the
    /// lease is not held any more.
    pub async fn insert_instance(
        &self,
        fence: &Fence,
        id: InstanceId,
        gateway: GatewayId,
        key: &PoolKey,
        image_digest: &str,
    ) -> Result<bool> {
        // The lease's row is held until this is written, so nobody else becomes the one who acts in between.
        let insert = sqlx::query(
            "with held as (
                select from leases where name = $9 and holder = $10 and fence = $11 and expires_at > clock_timestamp()
                for share)
             insert into instances
                (id, gateway_id, image, memory_mb, cpu_millis, ephemeral_mb, network, image_digest)
             select $1, $2, $3, $4, $5, $6, $7, $8 from held",
        );
        let insert = bind_pool_key(insert.bind(id.0).bind(gateway.0), key).bind(image_digest);
        let done = insert.bind(&fence.name).bind(fence.holder).bind(fence.number).execute(&self.pool).await?;
        Ok(done.rows_affected() == 1)
    }

    /// Its agent is warm: the gateway may take it. `false` when it is past that already.
    pub async fn set_pooled(&self, id: InstanceId, ready: Ready) -> Result<bool> {
        let done = sqlx::query(
            "update instances set state = 'pooled', address = $2, resizable = $3, changed_at = clock_timestamp()
             where id = $1 and state = 'starting'",
        )
        .bind(id.0)
        .bind(ready.address.map(|address| address.to_string()))
        .bind(ready.resizable)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// What a gateway owns.
    pub async fn gateway_instances(&self, gateway: GatewayId) -> Result<Vec<InstanceRow>> {
        let rows =
            sqlx::query("select * from instances where gateway_id = $1 and state <> 'removed' order by id")
                .bind(gateway.0)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(read).collect()
    }

    /// Every instance that is not gone.
    pub async fn live_instances(&self) -> Result<Vec<InstanceRow>> {
        let rows = sqlx::query("select * from instances where state <> 'removed' order by id")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Writes a gateway's news of its own instances in one statement.
    pub async fn record_instances(&self, gateway: GatewayId, updates: &[InstanceUpdate]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let column = |f: &dyn Fn(&InstanceUpdate) -> i64| updates.iter().map(f).collect::<Vec<_>>();
        sqlx::query(
            "with u as (
                select * from unnest($2::uuid[], $3::text[], $4::uuid[], $5::bytea[], $6::bigint[], $7::bigint[])
                    as u(id, state, version_id, config_digest, calls, errors))
             update instances i set state = u.state, version_id = coalesce(v.id, i.version_id),
                config_digest = coalesce(u.config_digest, i.config_digest), calls = greatest(i.calls, u.calls),
                errors = greatest(i.errors, u.errors),
                changed_at = case when i.state = u.state then i.changed_at else clock_timestamp() end
             from u left join versions v on v.id = u.version_id
             where i.id = u.id and i.gateway_id = $1 and i.state <> 'removed'
                -- A version that nobody keeps any more may have been removed a moment ago; the rest is news all the same.
                and (u.state not in ('active', 'frozen') or coalesce(v.id, i.version_id) is not null)
                and array_position(array['starting', 'pooled', 'active', 'released', 'removed'], replace(u.state, 'frozen', 'active'))
                 >= array_position(array['starting', 'pooled', 'active', 'released', 'removed'], replace(i.state, 'frozen', 'active'))",
        )
        .bind(gateway.0)
        .bind(updates.iter().map(|u| u.id.0).collect::<Vec<_>>())
        .bind(updates.iter().map(|u| u.state.as_str()).collect::<Vec<_>>())
        .bind(updates.iter().map(|u| u.version_id.map(|v| v.0)).collect::<Vec<_>>())
        .bind(updates.iter().map(|u| u.config_digest.map(|d| d.as_bytes().to_vec())).collect::<Vec<_>>())
        .bind(column(&|u| bigint(u.calls)))
        .bind(column(&|u| bigint(u.errors)))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Its container is gone.
    pub async fn set_removed(&self, id: InstanceId, reason: &str) -> Result<()> {
        let done = sqlx::query(
            "update instances set state = 'removed', removed_reason = $2, changed_at = clock_timestamp()
             where id = $1 and state <> 'removed'",
        )
        .bind(id.0)
        .bind(reason)
        .execute(&self.pool)
        .await;
        done.map(drop).map_err(RegistryError::from)
    }
}
