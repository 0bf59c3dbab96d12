//! Who sent a delivery: each scheme's signature over the raw body. Pure; `http/hook.rs` calls it before anything else
//! looks at the body.
//!
//! Every comparison takes the same time whatever it compares. What is answered names the header that is wrong and never
//! what would be right.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use davit_api::{ApiError, ErrorCode, Verification, WebhookSource};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Signatures of one delivery that are looked at: senders send two while they change their secret.
const MOST_SIGNATURES: usize = 8;

/// A delivery, as it came.
#[derive(Clone, Copy)]
pub(crate) struct Delivery<'a> {
    /// All of its headers.
    pub(crate) headers: &'a HeaderMap,
    /// The query as sent, without its question mark.
    pub(crate) query: &'a str,
    /// Its raw body.
    pub(crate) body: &'a [u8],
    /// When it came, by this gateway's clock, in seconds since 1970.
    pub(crate) now: i64,
}

/// Whether whoever sent this knows the secret.
pub(crate) fn verify(
    webhook: &WebhookSource,
    secret: Option<&str>,
    delivery: Delivery<'_>,
) -> Result<(), ApiError> {
    if webhook.verify == Verification::None {
        return Ok(());
    }
    // Nobody would have to know an empty one.
    let secret = secret.filter(|secret| !secret.is_empty()).ok_or_else(no_secret)?;
    let body = delivery.body;
    match webhook.verify {
        Verification::None => Ok(()),
        Verification::Github => {
            let name = "x-hub-signature-256";
            let hex = one(delivery.headers, name)?.strip_prefix("sha256=").and_then(unhex);
            let signature = hex.ok_or_else(|| refused(name, "must be sha256= and 64 hexadecimal digits"))?;
            one_matches(&[signature], secret.as_bytes(), &[body]).then_some(()).ok_or_else(|| unmatched(name))
        }
        Verification::Stripe => stripe(secret, delivery, webhook.tolerance_seconds),
        Verification::Standard => standard(secret, delivery, webhook.tolerance_seconds),
        Verification::Hmac => {
            let name = webhook.header().unwrap_or_default();
            let given = one(delivery.headers, name)?;
            let text = given.strip_prefix("sha256=").unwrap_or(given);
            let signature = unhex(text).or_else(|| STANDARD.decode(text).ok().filter(|b| b.len() == 32));
            let signature = signature
                .ok_or_else(|| refused(name, "must be 32 bytes, in hexadecimal digits or base64"))?;
            one_matches(&[signature], secret.as_bytes(), &[body]).then_some(()).ok_or_else(|| unmatched(name))
        }
        Verification::Bearer => {
            let name = webhook.header().unwrap_or_default();
            let given = one(delivery.headers, name)?;
            // Some senders leave the scheme's name out.
            let token = match given.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
                _ => given,
            };
            // Of digests, so that not even the length shows.
            let same = Sha256::digest(token).ct_eq(&Sha256::digest(secret));
            bool::from(same).then_some(()).ok_or_else(|| unmatched(name))
        }
    }
}

/// `t=1492774577,v1=<hex>,v1=<hex>`, over `<t>.<body>`. Other parts are left alone, as Stripe asks.
fn stripe(secret: &str, delivery: Delivery<'_>, tolerance: u32) -> Result<(), ApiError> {
    let name = "stripe-signature";
    let parts = || one(delivery.headers, name).map(|v| v.split(',').filter_map(|p| p.trim().split_once('=')));
    let mut times = parts()?.filter(|(key, _)| *key == "t").map(|(_, time)| time);
    let (Some(time), None) = (times.next(), times.next()) else {
        return Err(refused(name, "must hold one time, as t=…"));
    };
    fresh(name, time, delivery.now, tolerance)?;
    let signatures = parts()?.filter(|(key, _)| *key == "v1").filter_map(|(_, hex)| unhex(hex));
    let signatures: Vec<_> = signatures.take(MOST_SIGNATURES).collect();
    if signatures.is_empty() {
        return Err(refused(name, "must hold a signature, as v1= and 64 hexadecimal digits"));
    }
    let signed = [time.as_bytes(), b".", delivery.body];
    one_matches(&signatures, secret.as_bytes(), &signed).then_some(()).ok_or_else(|| unmatched(name))
}

/// `webhook-signature: v1,<base64> v1,<base64>`, over `<id>.<time>.<body>`.
fn standard(secret: &str, delivery: Delivery<'_>, tolerance: u32) -> Result<(), ApiError> {
    let (id, time) = (one(delivery.headers, "webhook-id")?, one(delivery.headers, "webhook-timestamp")?);
    fresh("webhook-timestamp", time, delivery.now, tolerance)?;
    let name = "webhook-signature";
    let signatures = one(delivery.headers, name)?.split(' ').filter_map(|part| part.strip_prefix("v1,"));
    let signatures: Vec<_> =
        signatures.filter_map(|text| STANDARD.decode(text).ok()).take(MOST_SIGNATURES).collect();
    if signatures.is_empty() {
        return Err(refused(name, "must hold a signature, as v1, and base64"));
    }
    let key = crate::outbound::key(secret);
    if key.is_empty() {
        return Err(no_secret());
    }
    let signed = [id.as_bytes(), b".", time.as_bytes(), b".", delivery.body];
    one_matches(&signatures, &key, &signed).then_some(()).ok_or_else(|| unmatched(name))
}

/// Whether one of the signatures is that of the parts, one after the other.
fn one_matches(signatures: &[Vec<u8>], key: &[u8], parts: &[&[u8]]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        // HMAC takes keys of every length.
        return false;
    };
    parts.iter().for_each(|part| mac.update(part));
    // All of them, so that the time does not say which.
    signatures.iter().fold(false, |found, one| found | mac.clone().verify_slice(one).is_ok())
}

/// Whether a signed time is near enough, before or after.
fn fresh(name: &str, time: &str, now: i64, tolerance: u32) -> Result<(), ApiError> {
    let digits = !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit());
    let time: i64 = digits
        .then(|| time.parse().ok())
        .flatten()
        .ok_or_else(|| refused(name, "the time must be seconds since 1970"))?;
    if now.abs_diff(time) > u64::from(tolerance) {
        return Err(refused(name, &format!("the time is more than {tolerance} s from this gateway's")));
    }
    Ok(())
}

/// A header that must be there once.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, ApiError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| refused(name, "is missing"))?;
    if values.next().is_some() {
        return Err(refused(name, "given twice"));
    }
    value.to_str().map(str::trim).map_err(|_| refused(name, "is not text"))
}

/// 64 hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks_exact(2);
    (text.len() == 64).then(|| pairs.map(|p| Some(digit(p[0])? * 16 + digit(p[1])?)).collect()).flatten()
}

/// Whether functions must not see this header of a delivery: it holds what showed who sent it.
pub(super) fn is_proof(webhook: &WebhookSource, name: &str) -> bool {
    const ALWAYS: [&str; 6] = [
        "proxy-authorization",
        "cookie",
        "x-hub-signature",
        "x-hub-signature-256",
        "stripe-signature",
        "webhook-signature",
    ];
    name == header::AUTHORIZATION.as_str() || ALWAYS.contains(&name) || webhook.header() == Some(name)
}

fn refused(name: &str, why: &str) -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, format!("{name}: {why}"))
}

fn unmatched(name: &str) -> ApiError {
    refused(name, "does not match")
}

fn no_secret() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the source's secret is not set at the moment")
}

#[cfg(test)]
mod tests;
