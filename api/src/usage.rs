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
    /// Where its time went; none when it was before davit measured that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_cold: Option<ColdPhases>,
}

/// Where the time of a call that had to start an instance went, in milliseconds. One phase follows the other, and
/// together they are the call's time in the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ColdPhases {
    /// In line, until there was a generic instance to take.
    pub wait_ms: f64,
    /// Taking it: its version's bundle opened, its code mounted.
    pub claim_ms: f64,
    /// Telling it what it is: the way of the first frame there and back, and unpacking the bundle if it was not mounted.
    pub transfer_ms: f64,
    /// Imports, until the handler was found and asked for its first event, or the server listened.
    pub load_ms: f64,
    /// The call itself, until the first byte of its answer, or its failure.
    pub first_byte_ms: f64,
}

impl ColdPhases {
    /// Names of the phases, in order.
    pub const NAMES: [&'static str; 5] = ["wait", "claim", "transfer", "load", "first_byte"];

    /// The times in the order of the names.
    pub fn times(&self) -> [f64; 5] {
        [self.wait_ms, self.claim_ms, self.transfer_ms, self.load_ms, self.first_byte_ms]
    }

    /// From taking the instance to the loaded handler.
    pub fn start_ms(&self) -> f64 {
        self.claim_ms + self.transfer_ms + self.load_ms
    }
}
