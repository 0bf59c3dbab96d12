//! Cancelling: what waits ends at once; what runs is stopped by the gateway that runs it.

use davit_api::{GatewayId, InvocationId, InvocationState, NamespaceName};
use sqlx::postgres::PgConnection;

use super::end::{Ending, end_all};
use crate::{Audited, Registry, RegistryError, Result, Topic};

/// What a wish to cancel led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancelled {
    /// It waited, and has ended.
    Ended,
    /// It runs; its gateway will stop it.
    Asked,
    /// It is not there, or had ended before.
    No,
}

/// Cancels within a transaction.
async fn cancel_one(conn: &mut PgConnection, id: InvocationId) -> Result<Cancelled> {
    // Between two looks a gateway may claim it or give it back; a few looks settle it.
    for _ in 0..4 {
        let asked =
            sqlx::query("update invocations set cancel_requested = true where id = $1 and state = 'running'")
                .bind(id.0)
                .execute(&mut *conn)
                .await?;
        if asked.rows_affected() == 1 {
            return Ok(Cancelled::Asked);
        }
        let ending =
            Ending { id, attempt: None, state: InvocationState::Cancelled, result: None, error: None };
        if !end_all(conn, &[ending]).await?.is_empty() {
            return Ok(Cancelled::Ended);
        }
    }
    Ok(Cancelled::No)
}

/// Cancels several within a transaction. Those that wait end first, because keys are locked before rows.
pub(crate) async fn cancel_all(conn: &mut PgConnection, ids: &[InvocationId]) -> Result<()> {
    let mut left = ids.to_vec();
    // Between two looks a gateway may claim one or give it back; a few looks settle it.
    for _ in 0..4 {
        if left.is_empty() {
            return Ok(());
        }
        let cancelled = InvocationState::Cancelled;
        let ending = |id: &InvocationId| Ending {
            id: *id,
            attempt: None,
            state: cancelled,
            result: None,
            error: None,
        };
        let ended = end_all(conn, &left.iter().map(ending).collect::<Vec<_>>()).await?;
        left.retain(|id| !ended.contains(&id.0));
        let asked: Vec<uuid::Uuid> = sqlx::query_scalar(
            "update invocations set cancel_requested = true where id = any($1) and state = 'running' returning id",
        )
        .bind(left.iter().map(|id| id.0).collect::<Vec<_>>())
        .fetch_all(&mut *conn)
        .await?;
        left.retain(|id| !asked.contains(&id.0));
        let there: Vec<uuid::Uuid> = sqlx::query_scalar("select id from invocations where id = any($1)")
            .bind(left.iter().map(|id| id.0).collect::<Vec<_>>())
            .fetch_all(&mut *conn)
            .await?;
        left.retain(|id| there.contains(&id.0));
    }
    Ok(())
}

impl Registry {
    /// Which of the jobs that a gateway holds somebody wishes to end.
    pub async fn jobs_to_cancel(&self, gateway: GatewayId) -> Result<Vec<InvocationId>> {
        let ids: Vec<uuid::Uuid> =
            sqlx::query_scalar("select id from invocations where gateway_id = $1 and cancel_requested")
                .bind(gateway.0)
                .fetch_all(&self.pool)
                .await?;
        Ok(ids.into_iter().map(InvocationId).collect())
    }
}

impl Audited {
    /// Cancels an invocation; `conflict` when it has ended already.
    pub async fn cancel_invocation(&self, namespace: &NamespaceName, id: InvocationId) -> Result<()> {
        let current = self.registry.invocation(namespace, id).await?;
        if current.state.ended() {
            return Err(RegistryError::conflict(format!(
                "the invocation has ended already: {}",
                current.state
            )));
        }
        let cancelled = self.change(move |conn| Box::pin(cancel_one(conn, id))).await?;
        if cancelled == Cancelled::No {
            return Err(RegistryError::conflict("the invocation has just ended"));
        }
        self.registry.poke(Topic::Cancels);
        self.registry.poke(Topic::Queue);
        Ok(())
    }
}
