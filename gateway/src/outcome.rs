//! From what the agent reports to what the caller is told.

use davit_api::{ApiError, ErrorCode};
use davit_link::{Failure, FailureKind};

use crate::invoke::CallError;

/// The code that belongs to a failure of a running call.
fn code(kind: FailureKind) -> ErrorCode {
    match kind {
        FailureKind::FunctionError => ErrorCode::FunctionError,
        FailureKind::Exited => ErrorCode::FunctionExited,
        FailureKind::OutOfMemory => ErrorCode::FunctionOutOfMemory,
        FailureKind::Timeout => ErrorCode::FunctionTimeout,
        FailureKind::InitFailed => ErrorCode::FunctionInitFailed,
        FailureKind::BadResponse => ErrorCode::FunctionBadResponse,
        FailureKind::ResponseTooLarge => ErrorCode::FunctionResponseTooLarge,
    }
}

/// A failure during a call.
pub fn call_failure(failure: Failure) -> CallError {
    CallError {
        error: ApiError::new(code(failure.kind), failure.message),
        function_error: reported(failure.error),
        started: true,
    }
}

/// A failure while the version was loading: whatever happened, the function could not be started. Only memory
/// keeps its own name, because it says what to change.
pub fn init_failure(failure: Failure) -> CallError {
    let code = if failure.kind == FailureKind::OutOfMemory {
        ErrorCode::FunctionOutOfMemory
    } else {
        ErrorCode::FunctionInitFailed
    };
    CallError {
        error: ApiError::new(code, failure.message),
        function_error: reported(failure.error),
        started: false,
    }
}

/// Whether the instance can take another call after this failure.
pub fn spoils(kind: FailureKind) -> bool {
    match kind {
        FailureKind::FunctionError | FailureKind::ResponseTooLarge => false,
        // A runtime that answers nonsense is not asked again.
        FailureKind::BadResponse
        | FailureKind::Exited
        | FailureKind::OutOfMemory
        | FailureKind::Timeout
        | FailureKind::InitFailed => true,
    }
}

/// What the function reported, as JSON; text that is none (Python may write `NaN`) is shown as a string.
fn reported(raw: Option<Box<serde_json::value::RawValue>>) -> Option<serde_json::Value> {
    raw.map(|raw| serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into()))
}
