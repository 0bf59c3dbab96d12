//! Who fetches a source's events: one gateway at a time, for as long as its own lease lasts.
//!
//! What keeps an event from being accepted twice is not that lease, though, but the row. Events are accepted in the
//! transaction that notes their positions, and only under the number of the latest holding. Whoever begins to hold raises
//! the number and finds the positions: what they stand for was delivered, and is acknowledged before anything else is
//! fetched. So it does not matter when the one before died, or whether it did.

use davit_api::{FunctionId, GatewayId, SourceId, SourceState};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::gateways::LEASE;
use crate::queue::accept_present;
use crate::rows::count64;
use crate::{NewInvocation, Registry, RegistryError, Result, Topic};

/// Longest error that is kept, in characters.
const ERROR_CHARS: usize = 500;

/// A holding of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Which source.
    pub source: SourceId,
    /// Who holds it.
    pub gateway: GatewayId,
    /// Larger for each new holding.
    pub fence: i64,
}

/// Events of a source that are delivered together.
#[derive(Debug, Clone, Default)]
pub struct SourceBatch {
    /// The calls to accept.
    pub invocations: Vec<NewInvocation>,
    /// Where the events are in their source; as many, and at most 1,000.
    pub positions: Vec<String>,
    /// How old the oldest of them was, in seconds.
    pub lag_seconds: f64,
}

impl Registry {
    /// Takes up to `most` of the wanted sources that nobody holds, or whose holder's lease has lapsed. Answers which of
    /// the wanted ones this gateway holds then.
    pub async fn hold_sources(
        &self,
        gateway: GatewayId,
        wanted: &[SourceId],
        most: u32,
    ) -> Result<Vec<SourceId>> {
        let ids: Vec<Uuid> = sqlx::query_scalar(
            "with free as (select s.source_id from source_states s join sources x on x.id = s.source_id and not x.paused
                where s.source_id = any($2) and (s.holder is null or (s.holder <> $1 and exists (select from gateways g
                    where g.id = s.holder and g.seen_at < clock_timestamp() - make_interval(secs => $4))))
                order by s.source_id limit $3 for update of s skip locked),
             taken as (update source_states s set holder = $1, fence = s.fence + 1, state = 'active'
                from free where s.source_id = free.source_id returning s.source_id)
             select source_id from taken
             union select source_id from source_states where holder = $1 and source_id = any($2)",
        )
        .bind(gateway.0)
        .bind(wanted.iter().map(|id| id.0).collect::<Vec<_>>())
        .bind(i64::from(most))
        .bind(LEASE.as_secs_f64())
        .fetch_all(&self.pool)
        .await?;
        Ok(ids.into_iter().map(SourceId).collect())
    }

    /// Begins to work on a source that this gateway holds: under a new number, so that whatever it began before can no
    /// longer deliver. Answers also the positions that were delivered last and may not have been acknowledged. None when
    /// the gateway does not hold it any more.
    pub async fn begin_source(
        &self,
        source: SourceId,
        gateway: GatewayId,
    ) -> Result<Option<(Holding, Vec<String>)>> {
        // Waits for a delivery that is under way, and sees what became of it.
        let row = sqlx::query(
            "update source_states set fence = fence + 1 where source_id = $1 and holder = $2 returning fence, pending",
        )
        .bind(source.0)
        .bind(gateway.0)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            Ok((Holding { source, gateway, fence: row.try_get("fence")? }, row.try_get("pending")?))
        })
        .transpose()
    }

    /// Delivers: the calls are accepted and their positions noted, or neither. `false`: the source is no longer held under
    /// that number, and nothing was accepted.
    pub async fn deliver_source(&self, holding: Holding, batch: SourceBatch) -> Result<bool> {
        let delivered =
            self.transact(move |conn| Box::pin(async move { deliver(conn, holding, &batch).await })).await?;
        if delivered {
            self.poke(Topic::Queue);
        }
        Ok(delivered)
    }

    /// Notes how a source is getting on. Without an error the last one stays to be seen.
    pub async fn report_source(
        &self,
        holding: Holding,
        state: SourceState,
        lag_seconds: Option<f64>,
        error: Option<&str>,
    ) -> Result<()> {
        let error = error.map(|text| text.replace('\0', " ").chars().take(ERROR_CHARS).collect::<String>());
        sqlx::query(
            "update source_states set state = $4, lag_seconds = coalesce($5, lag_seconds), last_error = coalesce($6, last_error),
                last_error_at = case when $6 is null then last_error_at else clock_timestamp() end
             where source_id = $1 and holder = $2 and fence = $3",
        )
        .bind(holding.source.0)
        .bind(holding.gateway.0)
        .bind(holding.fence)
        .bind(state.as_str())
        .bind(lag_seconds)
        .bind(error)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// How many calls of a function have not ended; not counted beyond `most`.
    pub async fn open_invocations(&self, function: FunctionId, most: u32) -> Result<u32> {
        let row = sqlx::query(
            "select count(*) as open from (select from invocations where function_id = $1 limit $2) i",
        )
        .bind(function.0)
        .bind(i64::from(most))
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(count64(&row, "open")?).unwrap_or(u32::MAX))
    }
}

async fn deliver(conn: &mut PgConnection, holding: Holding, batch: &SourceBatch) -> Result<bool> {
    // First, so that whoever begins to hold waits for what becomes of this.
    let noted = sqlx::query(
        "update source_states set pending = $4, delivered = delivered + $5, last_event_at = clock_timestamp(), state = 'active',
            lag_seconds = $6 where source_id = $1 and holder = $2 and fence = $3",
    )
    .bind(holding.source.0)
    .bind(holding.gateway.0)
    .bind(holding.fence)
    .bind(&batch.positions)
    .bind(i64::try_from(batch.invocations.len()).unwrap_or(i64::MAX))
    .bind(batch.lag_seconds)
    .execute(&mut *conn)
    .await?;
    if noted.rows_affected() == 0 {
        return Ok(false);
    }
    // All or none: an error takes the note back, too.
    let accepted = accept_present(conn, &batch.invocations).await?;
    if accepted != batch.invocations.len() {
        return Err(RegistryError::not_found("function", "of the source"));
    }
    Ok(true)
}
