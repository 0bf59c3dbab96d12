//! Invocations: accepted work and what became of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ColdPhases, ErrorBody, FunctionName, InvocationId};

crate::text::words! {
    /// Which door an invocation came through.
    pub enum InvocationSource = "an invocation source" {
        /// A call to the function's address.
        Http = "http",
        /// `davit invoke`, or the same call by API.
        Invoke = "invoke",
        /// An accepted asynchronous call.
        Async = "async",
        /// An instant of a schedule.
        Schedule = "schedule",
    }
}

crate::text::words! {
    /// Where an accepted invocation is.
    pub enum InvocationState = "an invocation state" {
        /// Waits for its time or for a free dispatcher.
        Queued = "queued",
        /// A gateway holds its lease.
        Running = "running",
        /// Ended with a result.
        Succeeded = "succeeded",
        /// Ended without one: attempts or age are used up.
        Dead = "dead",
    }
}

/// The answer to an asynchronous call, sent after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnqueueAccepted {
    /// Under which its status can be asked.
    pub invocation_id: InvocationId,
}

/// An accepted invocation as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InvocationView {
    /// Its id.
    pub id: InvocationId,
    /// Of which function.
    pub function: FunctionName,
    /// Through which door it came.
    pub source: InvocationSource,
    /// Where it is.
    pub state: InvocationState,
    /// Attempts started so far.
    pub attempt: u32,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// When the next attempt may start, while it is queued.
    pub run_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// The result, when it succeeded and the result is UTF-8 text.
    pub result: Option<String>,
    /// The last error.
    pub error: Option<ErrorBody>,
}

/// How a synchronous call through the API ended, for clients of the invoke API.
#[derive(Debug, Clone, PartialEq)]
pub enum InvokeOutcome {
    /// The function answered these bytes.
    Answered(Vec<u8>),
    /// Platform or function failed.
    Failed(ErrorBody),
}

/// Where the time of a call went, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PhaseTimings {
    /// Waiting for an instance.
    pub wait_ms: f64,
    /// Giving it the version and loading the handler; 0 when warm.
    pub init_ms: f64,
    /// The function's own work, with the way there and back.
    pub run_ms: f64,
    /// The same by the phases of the start; none when warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<ColdPhases>,
}

crate::text::words! {
    /// Which of its two outputs a process wrote to.
    pub enum LogStream = "a log stream" {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// Lines of the platform: start, end, report, dropped output.
        Platform = "platform",
    }
}

/// One stored line of a function's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// Position; ask for lines after it to follow.
    pub cursor: i64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// Version number that wrote it.
    pub version: u32,
    /// During which invocation, when that is known.
    pub invocation_id: Option<InvocationId>,
    /// To which output.
    pub stream: LogStream,
    /// The text, without its line end; may hold control characters.
    pub line: String,
}
