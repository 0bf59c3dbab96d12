//! Settling: how attempts ended, with the receipts of their claims.

use std::collections::HashSet;
use std::time::Duration;

use davit_api::{ErrorBody, InvocationId, InvocationState};
use serde_json::Value;
use uuid::Uuid;

use super::end::{Ending, end_all, end_plain};
use super::{Settled, Settlement};
use crate::rows::{int, to_json};
use crate::{Registry, Result, Topic};

/// An attempt that another one follows.
struct Again {
    id: InvocationId,
    attempt: u32,
    delay: Duration,
    error: Value,
    counts: bool,
}

impl Registry {
    /// Records how one attempt ended. `false`: too late, the receipt is no longer good and nothing changed.
    pub async fn settle(&self, id: InvocationId, attempt: u32, settlement: Settlement) -> Result<bool> {
        let settled = Settled { id, attempt, has_consequences: true, settlement };
        Ok(self.settle_all(vec![settled]).await?.contains(&id))
    }

    /// Records how attempts ended, as few statements as it can be. Answers those that were recorded: the receipts of
    /// the others are no longer good. After an error some may be recorded and others not; trying again is safe.
    pub async fn settle_all(&self, settled: Vec<Settled>) -> Result<HashSet<InvocationId>> {
        let (mut plain, mut with_consequences, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for one in settled {
            let (state, result, error) = match one.settlement {
                Settlement::RetryAt { delay, error, counts } => {
                    let error = storable(&error)?;
                    again.push(Again { id: one.id, attempt: one.attempt, delay, error, counts });
                    continue;
                }
                Settlement::Succeeded { result } => (InvocationState::Succeeded, Some(result), None),
                Settlement::Dead { error } => (InvocationState::Dead, None, Some(storable(&error)?)),
                Settlement::Cancelled => (InvocationState::Cancelled, None, None),
            };
            let ending = Ending { id: one.id, attempt: Some(one.attempt), state, result, error };
            if one.has_consequences { with_consequences.push(ending) } else { plain.push(ending) }
        }
        let mut recorded = HashSet::new();
        if !plain.is_empty() {
            recorded.extend(end_plain(&self.pool, &plain).await?);
        }
        if !again.is_empty() {
            recorded.extend(self.queue_again(&again).await?);
        }
        if !with_consequences.is_empty() {
            let ended = self
                .transact(move |conn| Box::pin(async move { end_all(conn, &with_consequences).await }))
                .await?;
            recorded.extend(ended);
            self.poke(Topic::Queue);
        }
        Ok(recorded.into_iter().map(InvocationId).collect())
    }

    async fn queue_again(&self, again: &[Again]) -> Result<Vec<Uuid>> {
        Ok(sqlx::query_scalar(
            "update invocations i set state = 'queued', error = g.error, gateway_id = null, lease_until = null,
                run_at = clock_timestamp() + make_interval(secs => g.delay), excused = i.excused + g.excused
             from unnest($1::uuid[], $2::int[], $3::float8[], $4::jsonb[], $5::int[]) as g(id, attempt, delay, error, excused)
             where i.id = g.id and i.attempt = g.attempt and i.state = 'running' returning i.id",
        )
        .bind(again.iter().map(|a| a.id.0).collect::<Vec<_>>())
        .bind(again.iter().map(|a| int(a.attempt)).collect::<Vec<_>>())
        .bind(again.iter().map(|a| a.delay.as_secs_f64()).collect::<Vec<_>>())
        .bind(again.iter().map(|a| &a.error).collect::<Vec<_>>())
        .bind(again.iter().map(|a| i32::from(!a.counts)).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?)
    }
}

/// An error as json that Postgres takes: what a function reports may hold U+0000.
fn storable(error: &ErrorBody) -> Result<serde_json::Value> {
    fn clean(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
            serde_json::Value::Array(items) => items.iter_mut().for_each(clean),
            serde_json::Value::Object(fields) => {
                if fields.keys().any(|k| k.contains('\0')) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(k, v)| (k.replace('\0', "\u{fffd}"), v))
                        .collect();
                }
                fields.values_mut().for_each(clean);
            }
            _ => {}
        }
    }
    let mut value = to_json(error)?;
    clean(&mut value);
    Ok(value)
}
