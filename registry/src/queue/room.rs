//! Calls that found no place to run, tried again before their time because there is room now.

use std::collections::HashMap;

use davit_api::FunctionId;

use crate::rows::int;
use crate::{Registry, Result};

impl Registry {
    /// Makes up to so many calls of each function due now, of those that wait because an attempt found no place; those
    /// that were to come first do. Answers how many each function had; one that had none is left out.
    pub async fn call_in(&self, places: &[(FunctionId, u32)]) -> Result<HashMap<FunctionId, u32>> {
        let called: Vec<uuid::Uuid> = sqlx::query_scalar(
            "update invocations i set run_at = clock_timestamp()
             from unnest($1::uuid[], $2::int[]) as g(function_id, places)
             cross join lateral (select w.id from invocations w
                where w.function_id = g.function_id and w.excused > 0 and w.state = 'queued' and w.run_at > clock_timestamp()
                order by w.run_at limit g.places for update skip locked) as waiting
             where i.id = waiting.id returning i.function_id",
        )
        .bind(places.iter().map(|(function, _)| function.0).collect::<Vec<_>>())
        .bind(places.iter().map(|(_, places)| int(*places)).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        let mut counts = HashMap::new();
        for function in called {
            *counts.entry(FunctionId(function)).or_default() += 1;
        }
        Ok(counts)
    }
}
