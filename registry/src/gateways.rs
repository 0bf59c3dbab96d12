//! Gateways: who is there, by the database's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use davit_api::{GatewayId, VersionId};
use sqlx::Row;
use sqlx::types::Json;

use crate::rows::{bigint, json};
use crate::{Registry, Result, Topic};

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

/// What a gateway tells the others, with each sign of life.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatewayWord {
    /// The joinings that it has taken into account.
    pub adopted: Vec<i64>,
    /// Instances that it holds beyond its share, by version.
    pub over: BTreeMap<VersionId, u32>,
    /// Where other gateways reach it.
    pub address: Option<String>,
    /// It ends, and takes no more calls.
    pub leaving: bool,
}

/// A gateway as the others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayPeer {
    /// Which.
    pub id: GatewayId,
    /// The number of its joining.
    pub joined: i64,
    /// Whether its lease holds.
    pub alive: bool,
    /// What it said last.
    pub word: GatewayWord,
}

impl Registry {
    /// A gateway has started. Answers the number of its joining, which is another one each time it was not there.
    pub async fn register_gateway(&self, id: GatewayId, public_url: &str) -> Result<i64> {
        let joined = sqlx::query_scalar(
            "insert into gateways (id, public_url, adopted) values ($1, $2, '{}')
             on conflict (id) do update set public_url = excluded.public_url, seen_at = clock_timestamp()
             returning joined",
        )
        .bind(id.0)
        .bind(public_url)
        .fetch_one(&self.pool)
        .await?;
        self.poke(Topic::Gateways);
        Ok(joined)
    }

    /// A gateway is alive and tells the others so much. Answers who is there, itself included; `None` when it was given
    /// up: its instances are being destroyed, and it must register again. Gateways of an older davit, which share
    /// nothing, are left out.
    pub async fn beat_gateway(
        &self,
        id: GatewayId,
        joined: i64,
        word: &GatewayWord,
    ) -> Result<Option<Vec<GatewayPeer>>> {
        let rows = sqlx::query(
            "with beat as (
                update gateways set seen_at = clock_timestamp(), adopted = $3, over = $4, address = $5, leaving = $6
                where id = $1 and joined = $2 returning id)
             select id, joined, adopted, over, address, leaving,
                id = $1 or seen_at > clock_timestamp() - make_interval(secs => $7) as alive
             from gateways where exists (select from beat) and adopted is not null",
        )
        .bind(id.0)
        .bind(joined)
        .bind(&word.adopted)
        .bind(Json(&word.over))
        .bind(&word.address)
        .bind(word.leaving)
        .bind(LEASE.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        let peers: Vec<GatewayPeer> = rows
            .iter()
            .map(|row| {
                Ok(GatewayPeer {
                    id: GatewayId(row.try_get("id")?),
                    joined: row.try_get("joined")?,
                    alive: row.try_get("alive")?,
                    word: GatewayWord {
                        adopted: row.try_get("adopted")?,
                        over: json(row, "over")?,
                        address: row.try_get("address")?,
                        leaving: row.try_get("leaving")?,
                    },
                })
            })
            .collect::<Result<_>>()?;
        Ok((!peers.is_empty()).then_some(peers))
    }

    /// Asks a gateway to give up so many MiB of idle instances. Asking again before it has heard does not add up.
    pub async fn ask_for_memory(&self, id: GatewayId, mb: u64) -> Result<()> {
        sqlx::query("update gateways set asked_mb = greatest(asked_mb, $2) where id = $1")
            .bind(id.0)
            .bind(bigint(mb))
            .execute(&self.pool)
            .await?;
        self.poke(Topic::Memory);
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

    /// A gateway has been silent for longer than its lease and nothing of it is left: it is gone. `false` when it was heard
    /// of meanwhile, or has an instance. Looked at in the statement itself, so that a controller which slept over its own
    /// lease forgets no gateway that lives: others take over what a forgotten one might have held.
    pub async fn forget_gateway(&self, id: GatewayId) -> Result<bool> {
        let gone = self
            .transact(move |conn| {
                Box::pin(async move {
                    let done = sqlx::query(
                        "delete from gateways g where id = $1
                         and seen_at < clock_timestamp() - make_interval(secs => $2)
                         and not exists (select from instances i where i.gateway_id = g.id and i.state <> 'removed')",
                    )
                    .bind(id.0)
                    .bind(LEASE.as_secs_f64())
                    .execute(&mut *conn)
                    .await?;
                    let gone = done.rows_affected() == 1;
                    if gone {
                        crate::queue::free_jobs(conn, id).await?;
                    }
                    Ok(gone)
                })
            })
            .await?;
        if gone {
            self.poke(Topic::Queue);
            self.poke(Topic::Gateways);
        }
        Ok(gone)
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
        self.poke(Topic::Queue);
        self.poke(Topic::Gateways);
        Ok(())
    }
}
