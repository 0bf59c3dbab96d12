//! What goes into the corridor and what comes out of it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use davit_api::{ApiError, ErrorBody, InvocationId, InvocationSource, Lineage, PhaseTimings};

use crate::http::Body;
use crate::instances::LogTail;
use crate::version::{FleetKey, LiveVersion};

/// What is to be called: a version, as the routes' snapshot had it when the call came in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The version.
    pub version: Arc<LiveVersion>,
}

/// What a call brings.
pub enum Payload {
    /// An event for a handler. A server function gets it as `POST /events`.
    Event(Bytes),
    /// An HTTP request, passed through to a server function.
    Http(Box<http::Request<Body>>),
}

/// One call.
pub struct Call {
    /// What it brings.
    pub payload: Payload,
    /// When it arrived; its budget counts from here (invariant 7).
    pub arrived: Instant,
    /// When its budget ends.
    pub deadline: Instant,
    /// Its id, which the function sees as request id.
    pub request_id: InvocationId,
    /// The door it came through.
    pub source: InvocationSource,
    /// The trace it belongs to, when its caller named one.
    pub trace_id: Option<Arc<str>>,
    /// JSON text that a caller sends beside the event, for programs that ask for it.
    pub client_context: Option<String>,
    /// What caused it, when that was a function or the outcome of one; none for what comes from outside.
    pub cause: Option<Arc<Cause>>,
    /// Gets the last lines that the function writes during this call.
    pub log_tail: Option<Arc<LogTail>>,
}

impl Call {
    /// Its time budget in whole seconds, for texts about it: at least one, since less is never given.
    pub(crate) fn budget_seconds(&self) -> u32 {
        let budget = self.deadline.saturating_duration_since(self.arrived);
        u32::try_from(budget.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
    }
}

/// What caused a call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cause {
    /// Where it stands among functions that cause each other.
    pub lineage: Lineage,
    /// The calls that end no sooner than this one, the nearest first: those whose functions wait for its answer.
    pub waiting: Option<Arc<Waiting>>,
}

/// A call that waits for another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Whose instance it holds.
    pub fleet: FleetKey,
    /// The call that waits for this one.
    pub next: Option<Arc<Waiting>>,
}

/// What a call brought back.
pub enum Answer {
    /// A handler's result, byte for byte.
    Event {
        /// Its content type.
        content_type: String,
        /// The bytes.
        body: Bytes,
    },
    /// The response of a server, or of a handler that streams; its body is still streaming and holds the instance until it
    /// ends.
    Http(Box<http::Response<Body>>),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq)]
pub struct CallError {
    /// What clients are told.
    pub error: ApiError,
    /// What the function itself reported.
    pub function_error: Option<serde_json::Value>,
    /// Whether any byte of the call may have reached the function.
    pub started: bool,
}

/// How a call ended.
pub struct Outcome {
    /// Answer or failure.
    pub result: Result<Answer, CallError>,
    /// Whether an instance had to be started for it.
    pub cold: bool,
    /// Where the time went.
    pub timings: PhaseTimings,
    /// The version's number.
    pub version: u32,
}

impl CallError {
    /// A failure before anything reached the function.
    pub fn refused(error: ApiError) -> Self {
        Self { error, function_error: None, started: false }
    }
    /// The body that clients get.
    pub fn body(&self, request_id: InvocationId) -> ErrorBody {
        let mut body = self.error.body();
        body.request_id = Some(request_id.to_string());
        body.function_error.clone_from(&self.function_error);
        body
    }
}
