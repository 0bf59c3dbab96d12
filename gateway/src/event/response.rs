//! A handler's result as an HTTP response.
//!
//! The result comes from the function and is trusted with nothing: whatever it holds, what leaves here is valid
//! HTTP, or an error that says what was wrong with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_api::{ApiError, ErrorCode, PayloadFormat};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use serde_json::value::RawValue;

use super::prelude::{SEPARATOR, WITH_PRELUDE};
use crate::forward::is_hop;

/// Names and values of a response's headers together, in bytes.
const HEADER_BYTES: usize = 64 * 1024;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Turns a result into the response that the caller gets.
pub fn respond(
    format: PayloadFormat,
    content_type: &str,
    result: &Bytes,
) -> Result<Response<Bytes>, ApiError> {
    let response = if media_type(content_type) == WITH_PRELUDE {
        with_prelude(result)
    } else {
        match format {
            PayloadFormat::V2 => with_inference(result, content_type, unquoted),
            PayloadFormat::Body => with_inference(result, content_type, Bytes::clone),
            PayloadFormat::V1 => strict(result),
        }
    };
    response.map_err(|problem| bad(&problem))
}

/// The function's response is none.
pub(super) fn bad(problem: &str) -> ApiError {
    ApiError::new(ErrorCode::FunctionBadResponse, format!("the function's response: {problem}"))
}

pub(super) fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// An object with `statusCode` says what the response is; anything else is the body of a 200.
fn with_inference(
    result: &Bytes,
    content_type: &str,
    inferred: fn(&Bytes) -> Bytes,
) -> Result<Response<Bytes>, String> {
    if let Ok(fields) = serde_json::from_slice::<Fields<'_>>(result)
        && let Some(status) = fields.get("statusCode")
    {
        let body = match fields.get("body").map(|b| b.get()) {
            None | Some("null") => Bytes::new(),
            Some(raw) if raw.starts_with('"') => string(raw, "body")?.into(),
            // Not a string: the caller gets its JSON.
            Some(raw) => raw.to_owned().into(),
        };
        let mut headers = headers(&fields)?;
        for cookie in list(&fields, "cookies")? {
            append(&mut headers, "set-cookie", &cookie)?;
        }
        return finish(status_code(status.get())?, headers, decoded(&fields, body)?);
    }
    // Bytes of a program that does not speak JSON keep the type it gave them.
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(result).is_ok();
    let kept =
        if is_json { None } else { HeaderValue::from_str(content_type).ok().filter(|v| !v.is_empty()) };
    let headers = kept.map(|value| HeaderMap::from_iter([(header::CONTENT_TYPE, value)])).unwrap_or_default();
    finish(StatusCode::OK, headers, inferred(result))
}

/// A JSON string is sent without its quotes; everything else as it is.
fn unquoted(result: &Bytes) -> Bytes {
    serde_json::from_slice::<String>(result).map_or_else(|_| result.clone(), Bytes::from)
}

/// REST API rules: an object with known keys, or nothing.
fn strict(result: &Bytes) -> Result<Response<Bytes>, String> {
    const KNOWN: [&str; 5] = ["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"];
    let fields: Fields<'_> =
        serde_json::from_slice(result).map_err(|_| "must be a JSON object for payload 1.0")?;
    if fields.is_empty() {
        return Err("is an empty object".into());
    }
    if let Some(unknown) = fields.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        return Err(format!("has the key {}, which payload 1.0 does not know", shown(unknown)));
    }
    let status = fields.get("statusCode").map_or(Ok(StatusCode::OK), |s| status_code(s.get()))?;
    let body = match fields.get("body").map(|b| b.get()) {
        None | Some("null") => Bytes::new(),
        Some(raw) => string(raw, "body")?.into(),
    };
    finish(status, headers(&fields)?, decoded(&fields, body)?)
}

/// JSON with status, headers and cookies, eight NUL bytes, then the body as it is.
fn with_prelude(result: &Bytes) -> Result<Response<Bytes>, String> {
    let at = result.windows(SEPARATOR.len()).position(|w| w == SEPARATOR).ok_or("has no prelude")?;
    let (parts, ()) = prelude(&result[..at])?.into_parts();
    finish(parts.status, parts.headers, result.slice(at + SEPARATOR.len()..))
}

/// The head of the response from the JSON of a prelude.
pub(super) fn prelude(json: &[u8]) -> Result<Response<()>, String> {
    let fields: Fields<'_> =
        serde_json::from_slice(json).map_err(|_| "has a prelude that is not a JSON object")?;
    let status = fields.get("statusCode").map_or(Ok(StatusCode::OK), |s| status_code(s.get()))?;
    let mut headers = headers(&fields)?;
    for cookie in list(&fields, "cookies")? {
        append(&mut headers, "set-cookie", &cookie)?;
    }
    if !is_bodiless(status) {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// These statuses have no body in HTTP; sending one would be read as the next response.
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    matches!(status.as_u16(), 204 | 205 | 304)
}

fn finish(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Result<Response<Bytes>, String> {
    let bodiless = is_bodiless(status);
    if !bodiless {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    }
    let mut response = Response::new(if bodiless { Bytes::new() } else { body });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A whole number or a string of digits. 1xx are no final answers, so they cannot be one's status.
fn status_code(raw: &str) -> Result<StatusCode, String> {
    let text = if raw.starts_with('"') { string(raw, "statusCode")? } else { raw.to_owned() };
    text.parse::<u16>()
        .ok()
        .filter(|code| (200..=599).contains(code) && text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("statusCode must be 200 to 599, not {}", shown(&text)))
}

/// `multiValueHeaders` first, then `headers`.
fn headers(fields: &Fields<'_>) -> Result<HeaderMap, String> {
    let mut all = HeaderMap::new();
    for (name, values) in object(fields, "multiValueHeaders")? {
        let Value::Array(values) = values else {
            return Err(format!("multiValueHeaders: {} is not a list", shown(&name)));
        };
        for value in &values {
            append_value(&mut all, &name, value)?;
        }
    }
    for (name, value) in object(fields, "headers")? {
        append_value(&mut all, &name, &value)?;
    }
    let bytes: usize = all.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
    if bytes > HEADER_BYTES { Err(format!("headers are larger than {HEADER_BYTES} bytes")) } else { Ok(all) }
}

fn append_value(all: &mut HeaderMap, name: &str, value: &Value) -> Result<(), String> {
    match value {
        Value::Null => Ok(()),
        Value::String(text) => append(all, name, text),
        Value::Bool(_) | Value::Number(_) => append(all, name, &value.to_string()),
        Value::Array(_) | Value::Object(_) => Err(format!("header {} is not a string", shown(name))),
    }
}

fn append(all: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{} is not a header name", shown(name)))?;
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| format!("header {} holds characters that are not allowed", shown(name)))?;
    // How the bytes travel is decided by the gateway, and it knows the real length.
    if is_hop(parsed.as_str()) || parsed == header::CONTENT_LENGTH {
        return Ok(());
    }
    // Content has one type; a second value would make two of it.
    if parsed == header::CONTENT_TYPE {
        all.insert(parsed, value);
        return Ok(());
    }
    all.try_append(parsed, value).map(|_| ()).map_err(|_| "has too many headers".to_owned())
}

fn decoded(fields: &Fields<'_>, body: Bytes) -> Result<Bytes, String> {
    match fields.get("isBase64Encoded").map(|raw| raw.get()) {
        None | Some("null" | "false") => Ok(body),
        Some("true") => STANDARD.decode(&body).map(Bytes::from).map_err(|_| "body is not base64".to_owned()),
        Some(_) => Err("isBase64Encoded must be true or false".into()),
    }
}

fn object(fields: &Fields<'_>, key: &str) -> Result<BTreeMap<String, Value>, String> {
    let parsed =
        fields.get(key).map(|raw| serde_json::from_str::<Option<BTreeMap<String, Value>>>(raw.get()));
    Ok(parsed.transpose().map_err(|_| format!("{key} must be an object"))?.flatten().unwrap_or_default())
}

fn list(fields: &Fields<'_>, key: &str) -> Result<Vec<String>, String> {
    let parsed = fields.get(key).map(|raw| serde_json::from_str::<Option<Vec<String>>>(raw.get()));
    Ok(parsed
        .transpose()
        .map_err(|_| format!("{key} must be a list of strings"))?
        .flatten()
        .unwrap_or_default())
}

fn string(raw: &str, key: &str) -> Result<String, String> {
    serde_json::from_str(raw).map_err(|_| format!("{key} must be a string"))
}

/// What the function wrote, fit for a message.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}
