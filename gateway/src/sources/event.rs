//! What a function gets of a webhook's delivery, and what the delivery is called. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use davit_api::{SourceName, Verification, WebhookSource, limits};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Event;
use super::verify::{Delivery, is_proof};
use crate::event;
use crate::forward::is_hop;

#[derive(Serialize)]
struct Shape<'a> {
    source: &'a SourceName,
    delivery_id: &'a str,
    headers: BTreeMap<&'a str, String>,
    query: BTreeMap<String, String>,
    body: Content<'a>,
    body_encoding: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
}

/// The event of a delivery.
pub(crate) fn event(name: &SourceName, webhook: &WebhookSource, delivery: Delivery<'_>) -> Event {
    let id = delivery_id(webhook, delivery);
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in delivery.headers {
        if !is_hop(name.as_str()) && !is_proof(webhook, name.as_str()) {
            join(headers.entry(name.as_str()).or_default(), &String::from_utf8_lossy(value.as_bytes()));
        }
    }
    let mut query = BTreeMap::<String, String>::new();
    for (name, value) in event::query::pairs(delivery.query) {
        join(query.entry(name).or_default(), &value);
    }
    let (body, body_encoding) = content(delivery.headers, delivery.body);
    let shape = Shape { source: name, delivery_id: &id, headers, query, body, body_encoding };
    // Maps of texts, and JSON that was read: nothing in it can fail to be written.
    let payload = serde_json::to_vec(&shape).unwrap_or_default();
    Event { id, payload }
}

fn join(all: &mut String, one: &str) {
    if !all.is_empty() {
        all.push_str(", ");
    }
    all.push_str(one);
}

/// JSON as it is, where the sender says that it is JSON or says nothing; other text as text; the rest as base64.
fn content<'a>(headers: &HeaderMap, body: &'a [u8]) -> (Content<'a>, &'static str) {
    let Ok(text) = std::str::from_utf8(body) else {
        return (Content::Text(STANDARD.encode(body).into()), "base64");
    };
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes().to_ascii_lowercase());
    let says_json = kind.is_none_or(|kind| kind.windows(4).any(|word| word == b"json"));
    // Checked as events are: what is nested too deeply for languages' parsers stays text.
    if says_json
        && !text.trim().is_empty()
        && event::json(Bytes::copy_from_slice(body)).is_ok()
        && let Ok(json) = serde_json::from_str(text)
    {
        return (Content::Json(json), "json");
    }
    (Content::Text(text.into()), "text")
}

/// What the sender calls the delivery; the digest of what was sent when it has no name, or none that can be kept.
fn delivery_id(webhook: &WebhookSource, delivery: Delivery<'_>) -> String {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let header = |name: &str| delivery.headers.get(name)?.to_str().ok().map(|id| id.trim().to_owned());
    let given = match webhook.verify {
        Verification::Github => header("x-github-delivery"),
        Verification::Standard => header("webhook-id"),
        Verification::Stripe => {
            serde_json::from_slice(delivery.body).ok().map(|named: Named<'_>| named.id.into_owned())
        }
        Verification::Hmac | Verification::Bearer | Verification::None => {
            webhook.delivery_header.as_deref().and_then(header)
        }
    };
    match given.filter(|id| !id.is_empty()) {
        Some(id) if id.len() <= limits::DELIVERY_ID_CHARS && id.bytes().all(|b| b.is_ascii_graphic()) => id,
        Some(id) => digest(&[id.as_bytes()]),
        None => digest(&[delivery.query.as_bytes(), delivery.body]),
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests;
