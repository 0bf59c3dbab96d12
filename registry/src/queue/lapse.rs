//! Leases that lapsed and gateways that went: what they held is put back, or ends when its promise is used up.

use davit_api::{GatewayId, InvocationId, InvocationState};
use serde_json::json;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::end::{Ending, end_all};
use crate::rows::count32;
use crate::{Registry, Result, Topic};

/// Leases that one call looks at.
const AT_ONCE: i64 = 100;

impl Registry {
    /// Puts back what is under a lapsed lease, a hundred at a time. Answers how many there were.
    pub async fn reclaim_lapsed(&self) -> Result<usize> {
        let count = self
            .transact(|conn| {
                Box::pin(async move {
                    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                        "select id, attempt, cancel_requested, {OVER} as over from invocations
                         where state = 'running' and lease_until < clock_timestamp() order by lease_until limit $1"
                    )))
                    .bind(AT_ONCE)
                    .fetch_all(&mut *conn)
                    .await?;
                    put_back(conn, &rows).await?;
                    Ok(rows.len())
                })
            })
            .await?;
        if count > 0 {
            self.poke(Topic::Queue);
        }
        Ok(count)
    }

    /// Gives back everything a gateway holds, when it stops.
    pub async fn release_jobs(&self, gateway: GatewayId) -> Result<()> {
        self.transact(move |conn| Box::pin(free_jobs(conn, gateway))).await?;
        self.poke(Topic::Queue);
        Ok(())
    }
}

/// Whether no attempt is left, by number or by age.
const OVER: &str = "(attempt - excused >= coalesce((policy->>'max_attempts')::int, 1) or clock_timestamp()
    > greatest(accepted_at, due_at) + make_interval(secs => coalesce((policy->>'max_age_seconds')::int, 0)))";

/// Puts what a gateway holds back into the queue. The attempt stays counted: it may have run.
pub(crate) async fn free_jobs(conn: &mut PgConnection, gateway: GatewayId) -> Result<()> {
    let rows = sqlx::query(
        "select id, attempt, cancel_requested, false as over from invocations where state = 'running' and gateway_id = $1",
    )
    .bind(gateway.0)
    .fetch_all(&mut *conn)
    .await?;
    put_back(conn, &rows).await
}

/// The rows are not locked: each is changed only while the attempt that was seen still runs. Whoever renews the lease
/// in between has held a lapsed one, and learns when it settles that it was too late.
async fn put_back(conn: &mut PgConnection, rows: &[PgRow]) -> Result<()> {
    let lost = json!({
        "code": "instance_lost", "source": "platform", "retryable": false,
        "message": "the gateway that ran it was lost, and no attempt is left"
    });
    let (mut endings, mut again, mut attempts) = (Vec::new(), Vec::<Uuid>::new(), Vec::<i32>::new());
    for row in rows {
        let id = row.try_get("id")?;
        let (state, error) = match (row.try_get("cancel_requested")?, row.try_get("over")?) {
            (true, _) => (InvocationState::Cancelled, None),
            (false, true) => (InvocationState::Dead, Some(lost.clone())),
            (false, false) => {
                again.push(id);
                attempts.push(row.try_get("attempt")?);
                continue;
            }
        };
        let attempt = Some(count32(row, "attempt")?);
        endings.push(Ending { id: InvocationId(id), attempt, state, result: None, error });
    }
    if !endings.is_empty() {
        end_all(conn, &endings).await?;
    }
    if again.is_empty() {
        return Ok(());
    }
    // Sorted and passed over where locked: two gateways that look at once must not wait for each other.
    sqlx::query(
        "with free as (
            select i.id from invocations i join unnest($1::uuid[], $2::int[]) as g(id, attempt) using (id, attempt)
            where i.state = 'running' order by i.id for update of i skip locked)
         update invocations i set state = 'queued', gateway_id = null, lease_until = null, run_at = clock_timestamp()
         from free where i.id = free.id",
    )
    .bind(again)
    .bind(attempts)
    .execute(conn)
    .await?;
    Ok(())
}
