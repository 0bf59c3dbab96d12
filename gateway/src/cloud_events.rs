//! CloudEvents over HTTP (cloudevents/bindings/http-protocol-binding.md, 1.0.2): one event whose attributes are headers
//! (binary mode), one as JSON (structured), or several as JSON (batched). What is no CloudEvent but JSON becomes one.
//! Pure; `http/publish.rs` reads with it, `outbound` writes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use davit_api::{ApiError, CloudEvent, ErrorCode, EventData, NamespaceName, TopicName, limits};
use davit_registry::NewMessage;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::query;

/// What begins the headers of binary mode.
const PREFIX: &str = "ce-";
/// The `type` of plain JSON whose sender does not say.
const PLAIN_TYPE: &str = "davit.message";

/// What a request holds.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// One event.
    One(NewMessage),
    /// A batch of them, which may be empty.
    Batch(Vec<NewMessage>),
}

/// Where it is published to, which fills in what plain JSON does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a NamespaceName,
    pub(crate) topic: &'a TopicName,
}

/// Reads a request. The error says what is wrong with which attribute.
pub(crate) fn read(
    place: Place<'_>,
    headers: &HeaderMap,
    uri_query: &str,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Incoming, ApiError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(unsupported("content-encoding is not understood here"));
    }
    let content_type = one(headers, &header::CONTENT_TYPE)?;
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let plain = !kind.starts_with("application/cloudevents") && !has_attributes(headers);
    if !plain && !uri_query.is_empty() {
        return Err(ApiError::field("query", "is for plain JSON; a CloudEvent says everything itself"));
    }
    let message = |event| NewMessage { event, fresh: false };
    match kind.as_str() {
        "application/cloudevents+json" => {
            CloudEvent::parse(body).map(|event| Incoming::One(message(event))).map_err(bad)
        }
        "application/cloudevents-batch+json" => {
            let events = CloudEvent::parse_batch(body).map_err(bad)?;
            if events.len() > limits::EVENTS {
                let text = format!("at most {} events at a time, not {}", limits::EVENTS, events.len());
                return Err(ApiError::field("body", text));
            }
            Ok(Incoming::Batch(events.into_iter().map(message).collect()))
        }
        other if other.starts_with("application/cloudevents") => Err(unsupported(
            "of the formats of CloudEvents only JSON is understood: application/cloudevents+json, application/cloudevents-batch+json",
        )),
        _ if !plain => binary(headers, content_type, body).map(|event| Incoming::One(message(event))),
        json if json.is_empty() || is_json(json) => {
            wrapped(place, headers, uri_query, body, now).map(Incoming::One)
        }
        _ => Err(unsupported(
            "send JSON (application/json), or a CloudEvent, whose data may be anything: ce- headers, or application/cloudevents+json",
        )),
    }
}

fn bad(problem: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, problem.to_string())
}

fn unsupported(text: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedMediaType, text)
}

fn has_attributes(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

fn is_json(kind: &str) -> bool {
    matches!(kind, "application/json" | "text/json") || kind.ends_with("+json")
}

/// One header as text, empty without it; given twice it is refused, because the two may differ.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok("") };
    if values.next().is_some() {
        return Err(ApiError::field(name.as_str(), "given twice"));
    }
    value
        .to_str()
        .map_err(|_| ApiError::field(name.as_str(), "holds bytes outside ASCII; percent-encode them"))
}

fn binary(headers: &HeaderMap, content_type: &str, body: &[u8]) -> Result<CloudEvent, ApiError> {
    let mut attributes = BTreeMap::new();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if attribute == "datacontenttype" {
            return Err(ApiError::field(name.as_str(), "is what the header content-type says"));
        }
        let text = decoded(one(headers, name)?).map_err(|problem| ApiError::field(name.as_str(), problem))?;
        attributes.insert(attribute.to_owned(), Value::from(text));
    }
    if !content_type.is_empty() {
        attributes.insert("datacontenttype".into(), content_type.into());
    }
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let data = match std::str::from_utf8(body) {
        _ if body.is_empty() => EventData::None,
        // Without a type it is JSON, as in the JSON format.
        Ok(text) if kind.is_empty() || is_json(&kind) => json(text)?,
        Ok(text) if kind.starts_with("text/") => json(&Value::from(text).to_string())?,
        Err(_) if kind.is_empty() || is_json(&kind) => return Err(ApiError::field("body", "is not UTF-8")),
        _ => EventData::Base64(STANDARD.encode(body)),
    };
    CloudEvent::new(attributes, data).map_err(|problem| bad(format!("{PREFIX}{problem}")))
}

/// A header's value as the binding writes it: perhaps in quotes, and percent-encoded where it is not plain.
fn decoded(text: &str) -> Result<String, String> {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let unquoted = match inner {
        Some(inner) => {
            let mut plain = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
            }
            plain
        }
        None => text.to_owned(),
    };
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = (*byte == b'%').then(|| after.get(..2)).flatten();
        let value = escape
            .and_then(|two| std::str::from_utf8(two).ok())
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match (byte, value) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 when it is decoded".to_owned())
}

/// An event's JSON form in binary mode: headers, and the data as the body. None for what is no event, or has an
/// attribute that no header can be called.
pub(crate) fn as_binary(text: &[u8]) -> Option<(HeaderMap, Bytes)> {
    let event = CloudEvent::parse(text).ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in event.attributes() {
        let (name, value) = match name {
            "datacontenttype" => (header::CONTENT_TYPE, HeaderValue::from_str(&value).ok()?),
            _ => (
                HeaderName::try_from(format!("{PREFIX}{name}")).ok()?,
                HeaderValue::from_str(&encoded(&value)).ok()?,
            ),
        };
        headers.insert(name, value);
    }
    let kind = event.attribute("datacontenttype").unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let body = match event.data() {
        EventData::None => Bytes::new(),
        EventData::Base64(text) => STANDARD.decode(text).ok()?.into(),
        // In the JSON form text is a JSON string; by itself it is itself.
        EventData::Json(raw) => match serde_json::from_str::<String>(raw.get()) {
            Ok(text) if !kind.is_empty() && !is_json(kind) => text.into(),
            _ => Bytes::copy_from_slice(raw.get().as_bytes()),
        },
    };
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Some((headers, body))
}

/// A header's value as the binding writes it: space, quote, percent and what is not printable ASCII are encoded.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => out += &format!("%{byte:02X}"),
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn json(text: &str) -> Result<EventData, ApiError> {
    let refused = |e: serde_json::Error| ApiError::field("body", format!("is not JSON: {e}"));
    let raw = RawValue::from_string(text.to_owned()).map_err(refused)?;
    // As deep as filters and receivers can read.
    serde_json::from_str::<Value>(raw.get()).map_err(refused)?;
    Ok(EventData::Json(raw))
}

/// A CloudEvent around plain JSON.
fn wrapped(
    place: Place<'_>,
    headers: &HeaderMap,
    uri_query: &str,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<NewMessage, ApiError> {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in query::pairs(uri_query) {
        if !["type", "subject", "id", "source"].contains(&name.as_str()) {
            return Err(ApiError::field("query", "only type, subject, id and source are understood here"));
        }
        if given.insert(name.clone(), value).is_some() {
            return Err(ApiError::field(&name, "given twice"));
        }
    }
    for name in ["type", "subject", "id", "source"] {
        let header = HeaderName::try_from(format!("x-davit-event-{name}")).map_err(bad)?;
        if headers.contains_key(&header) {
            let text = decoded(one(headers, &header)?).map_err(|e| ApiError::field(header.as_str(), e))?;
            if given.insert(name.into(), text).is_some() {
                return Err(ApiError::field(name, "given as a header and in the query"));
            }
        }
    }
    let fresh = !given.contains_key("id");
    let Place { namespace, topic } = place;
    let defaults = [
        ("id", uuid::Uuid::now_v7().to_string()),
        ("source", format!("/namespaces/{namespace}/topics/{topic}")),
        ("type", PLAIN_TYPE.to_owned()),
    ];
    for (name, value) in defaults {
        given.entry(name.to_owned()).or_insert(value);
    }
    given.insert("specversion".into(), CloudEvent::VERSION.into());
    given.insert("time".into(), now.to_rfc3339_opts(SecondsFormat::Millis, true));
    given.insert("datacontenttype".into(), "application/json".into());
    let text = std::str::from_utf8(body).map_err(|_| ApiError::field("body", "is not UTF-8"))?;
    let data = json(text)?;
    let attributes = given.into_iter().map(|(name, value)| (name, value.into())).collect();
    Ok(NewMessage { event: CloudEvent::new(attributes, data).map_err(bad)?, fresh })
}

#[cfg(test)]
mod tests;
