//! Invocations: accepted work and what became of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, CalledBy, ColdPhases, ErrorBody, FunctionName, InvocationId, MessageId, Qualifier, limits,
};

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
        /// A message of a topic.
        Topic = "topic",
        /// The outcome of another invocation.
        Destination = "destination",
        /// A call by another function.
        Function = "function",
        /// An event of a source outside.
        EventSource = "event_source",
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
        /// Ended because somebody wished so.
        Cancelled = "cancelled",
    }
}

impl InvocationState {
    /// Whether it is over: what has ended never changes.
    pub fn ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled)
    }
}

crate::text::words! {
    /// Which of the due invocations of a namespace runs first.
    #[derive(Default, PartialOrd, Ord)]
    pub enum Priority = "a priority" {
        /// After all others.
        Low = "low",
        /// As usual.
        #[default]
        Normal = "normal",
        /// Before all others.
        High = "high",
    }
}

/// The answer to an asynchronous call, sent after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EnqueueAccepted {
    /// Under which its status can be asked.
    pub invocation_id: InvocationId,
}

/// What may be asked of an asynchronous invocation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InvocationWishes {
    /// Seconds until it may run; at most 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<u32>,
    /// The instant from which it may run, instead of a delay; at most 30 days ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// Before or after which others of its namespace it runs.
    pub priority: Priority,
    /// Invocations of a function with the same key run one after the other, in the order of their acceptance. 1 to 128
    /// printable ASCII characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// Within 24 hours the same key and event are the same invocation. 1 to 256 printable ASCII characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl InvocationWishes {
    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.delay_seconds.is_some() && self.not_before.is_some() {
            return Err(ApiError::field("delay_seconds", "cannot be combined with not_before"));
        }
        if self.delay_seconds.is_some_and(|s| s > limits::DELAY_SECONDS) {
            let text = format!("at most {} (30 days)", limits::DELAY_SECONDS);
            return Err(ApiError::field("delay_seconds", text));
        }
        let keys = [
            ("ordering_key", &self.ordering_key, limits::ORDERING_KEY_CHARS),
            ("idempotency_key", &self.idempotency_key, limits::IDEMPOTENCY_KEY_CHARS),
        ];
        for (field, key, most) in keys {
            let Some(key) = key else { continue };
            let printable = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            if key.is_empty() || key.len() > most || !printable {
                return Err(ApiError::field(field, format!("1 to {most} printable ASCII characters")));
            }
        }
        Ok(())
    }
}

/// Several asynchronous invocations of one function: all are accepted, or none.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InvocationBatch {
    /// 1 to 1,000 of them.
    pub invocations: Vec<BatchItem>,
}

/// One of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// The event; `{}` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub payload: Option<Box<serde_json::value::RawValue>>,
    /// What is asked of it.
    #[serde(default)]
    pub options: InvocationWishes,
}

/// The answer to a batch, sent after the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BatchAccepted {
    /// Their ids, in the order of the batch.
    pub invocation_ids: Vec<InvocationId>,
}

/// An accepted invocation as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InvocationView {
    /// Its id.
    pub id: InvocationId,
    /// Of which function; none when it is sent to an address.
    pub function: Option<FunctionName>,
    /// To which address it is sent; none when a function is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Through which door it came.
    pub source: InvocationSource,
    /// The function that caused it, by calling this one or by publishing to a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<CalledBy>,
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
    /// Before or after which others of its namespace it runs.
    #[serde(default)]
    pub priority: Priority,
    /// Invocations of a function with the same key run one after the other, in the order of their acceptance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<String>,
    /// Somebody asked for its end while it was running.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Which ended invocation this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<InvocationId>,
    /// The version or alias that was asked for; none: what is live when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub qualifier: Option<Qualifier>,
    /// As which invocation this dead one was made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<InvocationId>,
    /// Where its outcome was sent on to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_on: Option<SentOn>,
}

/// An ended invocation's way to its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SentOn {
    /// What it was sent to, such as `function cleanup`.
    pub destination: String,
    /// The invocations that carry it there.
    #[serde(default)]
    pub invocations: Vec<InvocationId>,
    /// The messages, when it was published to a topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageId>,
    /// Why it could not be handed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
