//! What a function has done so far.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Counters of a function over its whole life; they survive restarts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FunctionUsage {
    /// Calls that reached an instance or failed trying.
    pub calls: u64,
    /// Of these, how many failed.
    pub errors: u64,
    /// Of these, how many had to start an instance.
    pub cold_starts: u64,
    /// When the last call ended.
    pub last_call_at: Option<DateTime<Utc>>,
    /// How long the last cold start took until the handler was loaded, in milliseconds.
    pub last_cold_ms: Option<f64>,
}
