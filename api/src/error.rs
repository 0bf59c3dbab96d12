//! The one error body. Every answer of davit that is not a success has this shape, so that a client can
//! decide by reading, not by guessing: whose fault it is, and whether trying again is safe.

use serde::{Deserialize, Serialize};

/// Who made the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorSource {
    /// The request itself is wrong.
    Client,
    /// davit, or something it depends on, failed.
    Platform,
    /// The function's own code failed.
    Function,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:tt, $status:literal, $source:ident, $retryable:literal;)*) => {
        /// What went wrong, as a stable word that scripts may compare. Each code has one HTTP status, one
        /// source and one answer to "may I try again?".
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }
        impl ErrorCode {
            /// Every code, for documentation and tests.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];
            /// The word used on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
            /// Who made the error.
            pub fn source(self) -> ErrorSource {
                match self { $(Self::$name => ErrorSource::$source,)* }
            }
            /// Whether sending the same request again is safe and may succeed.
            pub fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

codes! {
    /// A field, header, path or body is malformed or out of range; the message names it.
    InvalidRequest = "invalid_request", 400, Client, false;
    /// No token, or one that is unknown, expired or revoked.
    Unauthenticated = "unauthenticated", 401, Client, false;
    /// The token is good, but its role or namespace does not reach this.
    Forbidden = "forbidden", 403, Client, false;
    /// Nothing of that name, or nothing that this token may see.
    NotFound = "not_found", 404, Client, false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, Client, false;
    /// The request contradicts what is stored: a name in use, a route that is taken, a version not ready.
    Conflict = "conflict", 409, Client, false;
    /// Body, archive, header or result larger than its limit.
    TooLarge = "too_large", 413, Client, false;
    /// A content type or encoding that is not understood here.
    UnsupportedMediaType = "unsupported_media_type", 415, Client, false;
    /// The request is well-formed but cannot be carried out, such as a cron line that never fires.
    Unprocessable = "unprocessable", 422, Client, false;
    /// Functions cause each other in a circle, or a function waits for what only its own end would make free.
    LoopDetected = "loop_detected", 422, Client, false;
    /// The function's own concurrency limit and its waiting line are full.
    TooManyRequests = "too_many_requests", 429, Client, true;
    /// More calls from this caller, or to this address, than its rate limit allows; `Retry-After` says when again.
    RateLimited = "rate_limited", 429, Client, true;
    /// Headers larger than the limit.
    HeadersTooLarge = "headers_too_large", 431, Client, false;
    /// The function raised an error.
    FunctionError = "function_error", 502, Function, false;
    /// The function's process ended while it was working on the request.
    FunctionExited = "function_exited", 502, Function, false;
    /// The function used more memory than its limit and was killed.
    FunctionOutOfMemory = "function_out_of_memory", 502, Function, false;
    /// The function could not be started: its code did not load, or its process ended at start.
    FunctionInitFailed = "function_init_failed", 502, Function, false;
    /// The function answered something that cannot be passed on.
    FunctionBadResponse = "function_bad_response", 502, Function, false;
    /// The function answered more than the limit.
    FunctionResponseTooLarge = "function_response_too_large", 502, Function, false;
    /// The function did not finish within its timeout and was stopped.
    FunctionTimeout = "function_timeout", 504, Function, false;
    /// An address outside did not take what was sent to it.
    DeliveryFailed = "delivery_failed", 502, Function, false;
    /// An address outside that the operator does not let anything be sent to, or that takes nothing any more.
    DeliveryRefused = "delivery_refused", 502, Function, false;
    /// No instance became free or ready within the request's budget.
    NoCapacity = "no_capacity", 503, Platform, true;
    /// The instance was lost through no fault of the function, and the request may have been started.
    InstanceLost = "instance_lost", 502, Platform, false;
    /// The registry, the container engine or this process is not able to take the request now.
    Unavailable = "unavailable", 503, Platform, true;
    /// A bug in davit; the message carries a request id to find it in the log.
    Internal = "internal", 500, Platform, false;
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorBody {
    /// A stable word.
    pub code: ErrorCode,
    /// A sentence for people: what is wrong and, where it is known, what to do.
    pub message: String,
    /// Who made the error.
    pub source: ErrorSource,
    /// Whether the same request may be sent again.
    pub retryable: bool,
    /// The request or invocation id to look for in logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the function itself reported, when it reported something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub function_error: Option<serde_json::Value>,
}

/// An error on its way to becoming an [`ErrorBody`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What went wrong.
    pub code: ErrorCode,
    /// The sentence for people.
    pub message: String,
}

impl ApiError {
    /// An error with its sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
    /// A field that is wrong: names the field, then says what is wrong with it.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidRequest, format!("{field}: {problem}"))
    }
    /// The body to send.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            code: self.code,
            message: self.message.clone(),
            source: self.code.source(),
            retryable: self.code.retryable(),
            request_id: None,
            function_error: None,
        }
    }
}

impl From<crate::NameError> for ApiError {
    fn from(error: crate::NameError) -> Self {
        Self::new(ErrorCode::InvalidRequest, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_that_changed_nothing_may_be_retried() {
        for code in ErrorCode::ALL {
            if code.retryable() {
                assert!(matches!(code.status(), 429 | 503), "{code:?} may have been carried out already");
            }
        }
    }

    #[test]
    fn a_status_tells_whose_fault_it_is() {
        for code in ErrorCode::ALL {
            assert_eq!(code.source() == ErrorSource::Client, code.status() < 500, "{code:?}");
        }
    }
}
