//! Extractors whose refusals are error bodies: a bounded JSON body, names in the path, a strict query.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::{Bytes, BytesMut};
use davit_api::ErrorCode;
use davit_registry::Audited;
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::error::{Answer, Failure};

/// Largest JSON body: a schedule's payload (1 MiB) and what is around it.
pub(crate) const JSON_BYTES: usize = 2 * 1024 * 1024;
/// Longest pause between two pieces of a body.
pub(crate) const BODY_PAUSE: Duration = Duration::from_secs(20);

/// A JSON body: of the right type, whole, bounded, known fields only, without U+0000 anywhere.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Answer<Self> {
        let (parts, body) = request.into_parts();
        check_media_type(&parts.headers)?;
        let bytes = collect(&parts.headers, body).await?;
        parse(&bytes).map(Self)
    }
}

fn check_media_type(headers: &HeaderMap) -> Answer<()> {
    refuse_encoding(headers)?;
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::UnsupportedMediaType, "send the body with content-type: application/json"))
}

/// A body that is compressed once more would have to be bounded twice.
pub(crate) fn refuse_encoding(headers: &HeaderMap) -> Answer<()> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(Failure::new(ErrorCode::UnsupportedMediaType, "content-encoding is not understood here"))
        }
        _ => Ok(()),
    }
}

async fn collect(headers: &HeaderMap, mut body: Body) -> Answer<Bytes> {
    let too_large = || {
        Failure::new(ErrorCode::TooLarge, format!("the body is larger than the limit of {JSON_BYTES} bytes"))
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > JSON_BYTES as u64) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if bytes.len() + piece.len() > JSON_BYTES {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// The next piece of a body, unless the client pauses for too long or goes away.
pub(crate) async fn next_piece(body: &mut Body) -> Answer<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(BODY_PAUSE, body.frame())
            .await
            .map_err(|_| Failure::invalid("the body stopped arriving"))?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Failure::invalid("the body broke off")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Parses strictly. Depth is bounded by serde_json itself (128).
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let refuse = |error: serde_json::Error| {
        Failure::invalid(format!("body: {}", error.to_string().chars().take(300).collect::<String>()))
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(refuse)?;
    if holds_nul(&value) {
        return Err(Failure::invalid("body: the character U+0000 is not allowed in any text"));
    }
    // From the bytes again, not from the value: only so are duplicate fields seen, and positions known.
    serde_json::from_slice(bytes).map_err(refuse)
}

fn holds_nul(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Names and numbers of the path, checked by their types.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_client_error() => Err(Failure::invalid(
                rejection
                    .body_text()
                    .replace("Invalid URL: ", "path: ")
                    .chars()
                    .take(300)
                    .collect::<String>(),
            )),
            Err(rejection) => {
                tracing::error!(%rejection, "a route and its handler disagree on the path");
                Err(Failure::new(ErrorCode::Internal, "internal error"))
            }
        }
    }
}

/// Query parameters; unknown ones are refused by the types that say so.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::invalid(format!(
                "query: {}",
                rejection.body_text().chars().take(300).collect::<String>()
            ))),
        }
    }
}

/// The registry in the caller's hands: changes made through it are written down with the caller's name.
pub(crate) struct Changes(pub(crate) Audited);

impl<S: Send + Sync> FromRequestParts<S> for Changes {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Answer<Self> {
        // Always there behind the guard.
        let found = parts.extensions.get::<Audited>().cloned();
        found.map(Self).ok_or_else(|| Failure::new(ErrorCode::Internal, "internal error"))
    }
}

/// A page size within its bounds.
pub(crate) fn page(given: Option<u32>, default: u32, most: u32) -> Answer<u32> {
    match given {
        None => Ok(default),
        Some(n) if (1..=most).contains(&n) => Ok(n),
        Some(_) => Err(Failure::invalid(format!("limit: must be 1 to {most}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Known {
        #[allow(dead_code, reason = "only whether it parses matters")]
        a: serde_json::Value,
    }

    #[test]
    fn hostile_json_is_the_clients_fault() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in [
            "",
            "{",
            "{\"a\":1}x",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"b\":2}",
            "{}",
            "[]",
            "{\"a\":1e400}",
            "{\"a\":NaN}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"x\\u0000\"}",
            "{\"a\":{\"\\u0000\":1}}",
            "{\"a\":\"\0\"}",
            &deep,
        ] {
            let failure = parse::<Known>(bad.as_bytes()).unwrap_err();
            assert_eq!(failure.0.code, ErrorCode::InvalidRequest, "{}", &bad[..bad.len().min(40)]);
            assert!(failure.0.message.len() < 600);
        }
        assert!(parse::<Known>(b"{\"a\":{\"b\":[1]}}").is_ok());
    }
}
