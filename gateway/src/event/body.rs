//! Bodies of requests: which are text, which are base64, and the format in which the body is the event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_api::{ApiError, limits};

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

/// The body itself as the event, byte for byte: any JSON, and nothing for `{}`, so that a function can be looked at
/// with a browser.
pub(crate) fn event(body: Bytes) -> Result<Bytes, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::from_static(b"{}"));
    }
    let not_json =
        |e: &dyn std::fmt::Display| ApiError::field("body", format!("this function takes JSON: {e}"));
    // What is skipped unread is not checked for being text, so that comes first.
    let text = std::str::from_utf8(&body).map_err(|e| not_json(&e))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| not_json(&e))?;
    if depth(&body) > limits::JSON_DEPTH {
        let text = format!("nested more than {} levels deep", limits::JSON_DEPTH);
        return Err(ApiError::field("body", text));
    }
    Ok(body)
}

/// How deeply arrays and objects lie in each other, in well-formed JSON.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            b'"' => {
                while let Some(inner) = bytes.next()
                    && *inner != b'"'
                {
                    // An escape's second half ends nothing.
                    if *inner == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Bytes, ApiError> {
        event(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn events_are_json_and_pass_untouched() {
        assert_eq!(of(" \n").unwrap(), "{}");
        assert_eq!(of("{ \"a\" : 1.0 }").unwrap(), "{ \"a\" : 1.0 }");
        for bad in ["{", "NaN", "{}{}", "\u{1}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(event(Bytes::from_static(b"\"\xff\"")).is_err(), "JSON is UTF-8");
    }

    #[test]
    fn nesting_has_a_bound_and_brackets_in_texts_do_not_count() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(of(&nested(limits::JSON_DEPTH)).is_ok());
        for levels in [limits::JSON_DEPTH + 1, 100_000] {
            assert!(of(&nested(levels)).is_err(), "{levels}");
        }
        assert_eq!(depth(br#"{"[[[\"[[":["]",{}]}"#), 3);
    }

    proptest! {
        #[test]
        fn depth_is_what_a_parser_finds(levels in 0_usize..60, text in "[\\[\\]{}\"\\\\a]{0,12}") {
            let value = (0..levels).fold(serde_json::json!(text), |inner, _| serde_json::json!([inner]));
            prop_assert_eq!(depth(value.to_string().as_bytes()), levels);
        }
    }
}
