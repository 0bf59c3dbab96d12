//! Bodies of requests: which are text, which are base64, and the format in which the body is the event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_api::ApiError;

/// Payload 2.0: text only when the content type says so and the bytes agree.
pub(super) fn encode_by_type(body: &[u8], content_type: Option<&str>) -> (String, bool) {
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let says_text = !content_type.starts_with("multipart/")
        && ["text", "json", "xml", "javascript"].iter().any(|word| content_type.contains(word));
    match std::str::from_utf8(body) {
        Ok(text) if says_text || body.is_empty() => (text.to_owned(), false),
        _ => (STANDARD.encode(body), true),
    }
}

/// Payload 1.0: text whenever the bytes are text.
pub(super) fn encode_by_content(body: &[u8]) -> (String, bool) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(body), true),
    }
}

/// The body itself as the event, byte for byte; an empty one stands for an empty object, so that the function
/// can be looked at with a browser.
pub(super) fn event(body: &[u8]) -> Result<Bytes, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => Ok(Bytes::copy_from_slice(body)),
        Err(error) => Err(ApiError::field("body", format!("this function takes JSON: {error}"))),
    }
}
