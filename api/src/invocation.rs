//! Invocations: accepted work and what became of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ErrorBody, FunctionName, InvocationId};

/// Which door an invocation came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvocationSource {
    /// A call to the function's address.
    Http,
    /// `davit invoke`, or the same call by API.
    Invoke,
    /// An accepted asynchronous call.
    Async,
    /// An instant of a schedule.
    Schedule,
}

impl InvocationSource {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Invoke => "invoke",
            Self::Async => "async",
            Self::Schedule => "schedule",
        }
    }
}
impl std::str::FromStr for InvocationSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Http, Self::Invoke, Self::Async, Self::Schedule]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown invocation source {text:?}"))
    }
}

/// Where an accepted invocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvocationState {
    /// Waits for its time or for a free dispatcher.
    Queued,
    /// A gateway holds its lease.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended without one: attempts or age are used up.
    Dead,
}

impl InvocationState {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
        }
    }
}
impl std::str::FromStr for InvocationState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Queued, Self::Running, Self::Succeeded, Self::Dead]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown invocation state {text:?}"))
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
}

/// Which of its two outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Lines of the platform: start, end, report, dropped output.
    Platform,
}

impl LogStream {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Platform => "platform",
        }
    }
}
impl std::str::FromStr for LogStream {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Stdout, Self::Stderr, Self::Platform]
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown log stream {text:?}"))
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
