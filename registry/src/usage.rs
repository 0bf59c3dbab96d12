//! Counters of each function, over its whole life.

use chrono::{DateTime, Utc};
use davit_api::{ColdPhases, FunctionId, FunctionUsage};
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::rows::{bigint, count64, json_opt, to_json};
use crate::{Registry, Result};

/// What to add to a function's counters.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageDelta {
    /// Whose.
    pub function_id: FunctionId,
    /// Calls since the last report.
    pub calls: u64,
    /// Failed ones among them.
    pub errors: u64,
    /// Cold starts among them.
    pub cold_starts: u64,
    /// When the last call ended.
    pub last_call_at: Option<DateTime<Utc>>,
    /// How long the last cold start took, in milliseconds.
    pub last_cold_ms: Option<f64>,
    /// Where its time went.
    pub last_cold: Option<ColdPhases>,
}

pub(crate) fn from_row(row: &PgRow) -> Result<FunctionUsage> {
    Ok(FunctionUsage {
        calls: count64(row, "calls")?,
        errors: count64(row, "errors")?,
        cold_starts: count64(row, "cold_starts")?,
        last_call_at: row.try_get("last_call_at")?,
        last_cold_ms: row.try_get("last_cold_ms")?,
        last_cold: json_opt(row, "last_cold")?,
    })
}

impl Registry {
    /// Adds a batch to the counters; functions that do not exist are passed over.
    pub async fn record_usage(&self, deltas: &[UsageDelta]) -> Result<()> {
        if deltas.is_empty() {
            return Ok(());
        }
        let column = |f: &dyn Fn(&UsageDelta) -> u64| deltas.iter().map(|d| bigint(f(d))).collect::<Vec<_>>();
        let phases: Vec<Option<serde_json::Value>> =
            deltas.iter().map(|d| d.last_cold.as_ref().map(to_json).transpose()).collect::<Result<_>>()?;
        // Sorted, so that two gateways that write at once cannot wait for each other in a ring.
        sqlx::query(
            "insert into usage as t (function_id, calls, errors, cold_starts, last_call_at, last_cold_ms, last_cold)
             select d.function_id, sum(d.calls)::bigint, sum(d.errors)::bigint, sum(d.cold_starts)::bigint,
                max(d.last_call_at), (array_agg(d.last_cold_ms order by d.n desc) filter (where d.last_cold_ms is not null))[1],
                (array_agg(d.last_cold order by d.n desc) filter (where d.last_cold is not null))[1]
             from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::float8[], $7::jsonb[])
                with ordinality as d(function_id, calls, errors, cold_starts, last_call_at, last_cold_ms, last_cold, n)
             join functions f on f.id = d.function_id
             group by d.function_id order by d.function_id
             on conflict (function_id) do update set calls = t.calls + excluded.calls,
                errors = t.errors + excluded.errors, cold_starts = t.cold_starts + excluded.cold_starts,
                last_call_at = greatest(t.last_call_at, excluded.last_call_at),
                last_cold_ms = coalesce(excluded.last_cold_ms, t.last_cold_ms),
                last_cold = coalesce(excluded.last_cold, t.last_cold)",
        )
        .bind(deltas.iter().map(|d| d.function_id.0).collect::<Vec<_>>())
        .bind(column(&|d| d.calls))
        .bind(column(&|d| d.errors))
        .bind(column(&|d| d.cold_starts))
        .bind(deltas.iter().map(|d| d.last_call_at).collect::<Vec<_>>())
        .bind(deltas.iter().map(|d| d.last_cold_ms).collect::<Vec<_>>())
        .bind(phases)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
