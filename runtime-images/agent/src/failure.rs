//! Failures in AWS's words. Lambda clients match on these texts, so they are copied to the letter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_link::frame::MAX_BODY_BYTES;
use davit_link::{Failure, FailureKind};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::process::Ended;

/// A failure travels in one frame; this much of an error document fits with room for the rest.
const ERROR_BYTES: usize = MAX_BODY_BYTES / 2;
const MESSAGE_CHARS: usize = 4096;

/// `{"errorType","errorMessage"}`.
pub(crate) fn document(error_type: &str, message: &str) -> Option<Box<RawValue>> {
    let value = serde_json::json!({ "errorType": error_type, "errorMessage": message });
    serde_json::value::to_raw_value(&value).ok()
}

fn made(kind: FailureKind, error_type: &str, message: String) -> Failure {
    Failure { kind, error: document(error_type, &message), message, exit_code: None, signal: None }
}

/// AWS names the call in front of the text, and nothing when there is none.
fn about(request_id: &str, text: &str) -> String {
    if request_id.is_empty() { text.to_owned() } else { format!("RequestId: {request_id} Error: {text}") }
}

/// The deadline passed.
pub(crate) fn timeout(request_id: &str, seconds: u32) -> Failure {
    let text = format!("Task timed out after {:.2} seconds", f64::from(seconds));
    made(FailureKind::Timeout, "Sandbox.Timedout", about(request_id, &text))
}

/// The function's process ended.
pub(crate) fn exited(request_id: &str, ended: &Ended) -> Failure {
    let text = match (ended.code, ended.signal) {
        (Some(0), _) => "Runtime exited without providing a reason".to_owned(),
        (Some(code), _) => format!("Runtime exited with error: exit status {code}"),
        (None, Some(signal)) => format!("Runtime exited with error: signal: {}", signal_text(signal)),
        (None, None) => "Runtime exited without providing a reason".to_owned(),
    };
    let (kind, error_type) = if ended.out_of_memory {
        (FailureKind::OutOfMemory, "Runtime.OutOfMemory")
    } else {
        (FailureKind::Exited, "Runtime.ExitError")
    };
    Failure {
        exit_code: ended.code,
        signal: ended.signal,
        ..made(kind, error_type, about(request_id, &text))
    }
}

fn signal_text(signal: i32) -> String {
    let text = match signal {
        1 => "hangup",
        2 => "interrupt",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    text.to_owned()
}

/// The instance ended for a reason that is not this call's.
pub(crate) fn ended_with_another(request_id: &str, reason: &str) -> Failure {
    made(FailureKind::Exited, "Runtime.ExitError", about(request_id, reason))
}

/// The function did not become ready.
pub(crate) fn init(error_type: &str, message: String) -> Failure {
    made(FailureKind::InitFailed, error_type, message)
}

/// The function's process ended before it was ready.
pub(crate) fn exited_in_init(ended: &Ended) -> Failure {
    let mut failure = exited("", ended);
    if failure.kind == FailureKind::Exited {
        failure.kind = FailureKind::InitFailed;
    }
    failure
}

/// The result is over the limit, which is another for those that are streamed.
pub(crate) fn too_large(limit: u64) -> Failure {
    let text = format!("Response payload size exceeded maximum allowed payload size ({limit} bytes).");
    made(FailureKind::ResponseTooLarge, "Function.ResponseSizeTooLarge", text)
}

/// The answer is no answer.
pub(crate) fn bad_response(message: &str) -> Failure {
    made(FailureKind::BadResponse, "Runtime.InvalidResponse", message.to_owned())
}

#[derive(Deserialize)]
struct Posted<'a> {
    #[serde(borrow, rename = "errorMessage")]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "errorType")]
    error_type: Option<&'a RawValue>,
}

/// What a runtime posted to an error address. The document goes on as it came.
pub(crate) fn posted(kind: FailureKind, error_type: &str, body: &Bytes) -> Failure {
    let text = String::from_utf8_lossy(body);
    let fields: Option<Posted<'_>> = serde_json::from_str(&text).ok();
    let string = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let message = fields.as_ref().and_then(|f| string(f.message));
    let named = fields.as_ref().and_then(|f| string(f.error_type)).unwrap_or_else(|| error_type.to_owned());
    let message = message.unwrap_or_else(|| if fields.is_some() { named.clone() } else { text.to_string() });
    let message: String = message.chars().take(MESSAGE_CHARS).collect();
    let whole =
        (fields.is_some() && text.len() <= ERROR_BYTES).then(|| RawValue::from_string(text.into_owned()));
    let error = whole.and_then(Result::ok).or_else(|| document(&named, &message));
    Failure { kind, message, error, exit_code: None, signal: None }
}

/// The failure that a streaming runtime put into trailers.
pub(crate) fn from_trailers(error_type: &str, body: &[u8]) -> Failure {
    let decoded = STANDARD.decode(body).unwrap_or_default();
    posted(FailureKind::FunctionError, error_type, &decoded.into())
}

/// AWS keeps a posted error type only if it has the right shape.
pub(crate) fn known_type(posted: Option<&str>) -> String {
    let Some(posted) = posted else { return "Runtime.Unknown".into() };
    let good = posted.split_once('.').is_some_and(|(family, name)| {
        matches!(family, "Runtime" | "Function")
            && name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphabetic())
    });
    match posted {
        _ if good => posted.to_owned(),
        _ if posted.starts_with("Function.") => "Function.Unknown".into(),
        _ => "Runtime.Unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_aws() {
        assert_eq!(timeout("abc", 1).message, "RequestId: abc Error: Task timed out after 1.00 seconds");
        let ended = Ended { code: Some(127), signal: None, out_of_memory: false };
        assert_eq!(
            exited("a", &ended).message,
            "RequestId: a Error: Runtime exited with error: exit status 127"
        );
        let ended = Ended { code: None, signal: Some(9), out_of_memory: true };
        assert_eq!(exited("a", &ended).kind, FailureKind::OutOfMemory);
    }

    #[test]
    fn a_posted_error_keeps_its_document_and_anything_else_becomes_one() {
        let body =
            Bytes::from_static(br#"{"errorMessage":"boom!","errorType":"ValueError","stackTrace":["x"]}"#);
        let failure = posted(FailureKind::FunctionError, "Runtime.Unknown", &body);
        assert_eq!(failure.message, "boom!");
        assert!(failure.error.unwrap().get().contains("stackTrace"));
        let failure = posted(FailureKind::FunctionError, "Runtime.Unknown", &Bytes::from_static(b"oh no"));
        assert_eq!(failure.error.unwrap().get(), r#"{"errorMessage":"oh no","errorType":"Runtime.Unknown"}"#);
    }

    #[test]
    fn error_types_of_the_wrong_shape_are_unknown() {
        assert_eq!(known_type(Some("Runtime.ImportModuleError")), "Runtime.ImportModuleError");
        assert_eq!(known_type(Some("Function.bad")), "Function.Unknown");
        assert_eq!(known_type(Some("unhandled")), "Runtime.Unknown");
    }
}
