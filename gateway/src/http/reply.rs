//! Headers and bodies that davit itself adds to answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use davit_api::{ApiError, ColdPhases, ErrorBody, InvocationId, PhaseTimings};
use http::{HeaderName, HeaderValue, Response};

use crate::http::Body;

/// An invocation's id as a header's value.
pub(super) fn id_value(id: InvocationId) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.0.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are always a value.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Names the invocation, so that the caller can find its log.
pub(super) fn mark(response: &mut Response<Body>, id: HeaderValue) {
    response.headers_mut().insert(HeaderName::from_static("x-davit-invocation-id"), id);
}

/// An error of this request.
pub(super) fn error_body(error: &ApiError, id: InvocationId) -> ErrorBody {
    let mut body = error.body();
    body.request_id = Some(id.to_string());
    body
}

/// Which version answered, for who asked for one.
pub(super) fn version(response: &mut Response<Body>, number: u32) {
    response.headers_mut().insert(HeaderName::from_static("x-davit-version"), HeaderValue::from(number));
}

/// How a call through the API went.
pub(super) fn facts(response: &mut Response<Body>, cold: bool, version: u32, timings: &PhaseTimings) {
    set(response, "x-davit-cold", if cold { "true" } else { "false" });
    set(response, "x-davit-version", &version.to_string());
    let PhaseTimings { wait_ms, init_ms, run_ms, cold } = timings;
    set(response, "x-davit-timing", &format!("wait={wait_ms:.3};init={init_ms:.3};run={run_ms:.3}"));
    if let Some(cold) = cold {
        let phases = ColdPhases::NAMES.iter().zip(cold.times()).map(|(name, ms)| format!("{name}={ms:.3}"));
        set(response, "x-davit-cold-phases", &phases.collect::<Vec<_>>().join(";"));
    }
}

/// The end of the call's log.
pub(super) fn log_tail(response: &mut Response<Body>, text: &str) {
    set(response, "x-davit-log-tail", &STANDARD.encode(text));
}

fn set(response: &mut Response<Body>, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
