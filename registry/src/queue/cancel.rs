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
