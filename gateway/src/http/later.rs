//! Calls that are to run later: what their headers ask for, and the answer that they were accepted.
//!
//! ```text
//! Prefer: respond-async            run it later; the answer is 202 with an id
//! Idempotency-Key: order-7         the same key and event are one invocation
//! X-Davit-Delay: 90                seconds until it may run, or
//! X-Davit-Not-Before: 2030-01-01T00:00:00Z
//! X-Davit-Priority: high
//! X-Davit-Ordering-Key: customer-5
//! ```

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use davit_api::{
    ApiError, BatchAccepted, EnqueueAccepted, InvocationBatch, InvocationSource, InvocationWishes, Lineage,
    Qualifier, limits,
};
use davit_registry::{NewInvocation, Start};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::http::{Body, Public, reply};
use crate::version::LiveVersion;

/// How asynchronous work came in.
#[derive(Clone)]
pub(super) struct Via {
    pub(super) source: InvocationSource,
    pub(super) lineage: Lineage,
}

impl From<InvocationSource> for Via {
    /// From outside.
    fn from(source: InvocationSource) -> Self {
        Self { source, lineage: Lineage::default() }
    }
}

impl Public {
    /// Accepts an event for later and says so.
    pub(super) async fn later(
        &self,
        version: &LiveVersion,
        asked: Option<Qualifier>,
        event: Bytes,
        wishes: InvocationWishes,
        via: Via,
    ) -> Result<Response<Body>, ApiError> {
        let new = invocation(version, asked, event.to_vec(), wishes, via)?;
        let invocation_id = self.acceptor.accept(new).await?;
        let mut response = accepted(&EnqueueAccepted { invocation_id });
        reply::mark(&mut response, reply::id_value(invocation_id));
        // Who asked with `Prefer` is told that it was heeded (RFC 7240, section 3).
        let heeded = HeaderValue::from_static("respond-async");
        response.headers_mut().insert("preference-applied", heeded);
        Ok(response)
    }

    /// Accepts many events for later, all or none.
    pub(super) async fn batch(
        &self,
        version: &LiveVersion,
        asked: Option<Qualifier>,
        body: &[u8],
        via: Via,
    ) -> Result<Response<Body>, ApiError> {
        let batch: InvocationBatch = serde_json::from_slice(body).map_err(|e| ApiError::field("body", e))?;
        let count = batch.invocations.len();
        if count == 0 || count > limits::BATCH {
            return Err(ApiError::field(
                "invocations",
                format!("1 to {} at a time, not {count}", limits::BATCH),
            ));
        }
        let new = batch.invocations.into_iter().enumerate().map(|(n, one)| {
            let named = |e: ApiError| ApiError::new(e.code, format!("invocations[{n}]: {}", e.message));
            let event = one.payload.map_or_else(|| b"{}".to_vec(), |text| text.get().as_bytes().to_vec());
            invocation(version, asked.clone(), event, one.options, via.clone()).map_err(named)
        });
        let new = new.collect::<Result<Vec<_>, _>>()?;
        let invocation_ids = self.acceptor.accept_all(new).await?;
        Ok(accepted(&BatchAccepted { invocation_ids }))
    }
}

pub(super) fn accepted(body: &impl Serialize) -> Response<Body> {
    let mut response = Response::new(Body::full(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn invocation(
    version: &LiveVersion,
    qualifier: Option<Qualifier>,
    payload: Vec<u8>,
    wishes: InvocationWishes,
    via: Via,
) -> Result<NewInvocation, ApiError> {
    wishes.check()?;
    let InvocationWishes { delay_seconds, not_before, priority, ordering_key, idempotency_key } = wishes;
    let start = match (delay_seconds, not_before) {
        (Some(seconds), _) => Start::After(Duration::from_secs(seconds.into())),
        (None, Some(at)) => {
            check_date(at, Utc::now())?;
            Start::At(at)
        }
        (None, None) => Start::Now,
    };
    let new = NewInvocation::new(
        version.namespace.clone(),
        version.function_id,
        via.source,
        payload,
        version.spec.retry,
    );
    let destinations = version.spec.destinations.clone();
    let lineage = via.lineage;
    Ok(NewInvocation {
        start,
        priority,
        ordering_key,
        idempotency_key,
        destinations,
        lineage,
        qualifier,
        ..new
    })
}

/// An instant in the past means at once; one that is too far away is a mistake.
fn check_date(at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), ApiError> {
    let ahead = (at - now).num_seconds();
    if ahead > i64::from(limits::DELAY_SECONDS) {
        let days = limits::DELAY_SECONDS / 86_400;
        return Err(ApiError::field("not_before", format!("at most {days} days ahead")));
    }
    Ok(())
}

/// Whether the caller wants no more than the promise that it will run.
pub(super) fn preferred(headers: &HeaderMap) -> bool {
    let prefer = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok());
    prefer.flat_map(|v| v.split(',')).any(|p| p.trim().eq_ignore_ascii_case("respond-async"))
}

/// What the headers ask for; without `later` nothing may be asked for, because nothing would come of it.
pub(super) fn wishes(headers: &HeaderMap) -> Result<InvocationWishes, ApiError> {
    Ok(InvocationWishes {
        delay_seconds: read(headers, "x-davit-delay", "a whole number of seconds")?,
        not_before: read(headers, "x-davit-not-before", "an instant such as 2030-01-01T00:00:00Z")?,
        priority: read(headers, "x-davit-priority", "low, normal or high")?.unwrap_or_default(),
        ordering_key: read(headers, "x-davit-ordering-key", "text")?,
        idempotency_key: read(headers, "idempotency-key", "text")?,
    })
}

/// One header; given twice it is refused, because the two may differ.
fn read<T: FromStr>(headers: &HeaderMap, name: &'static str, what: &str) -> Result<Option<T>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::field(name, "given twice"));
    }
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| ApiError::field(name, format!("must be {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn wishes_are_read_from_headers_and_wrong_ones_are_named() {
        let asked = wishes(&headers(&[
            ("x-davit-delay", "90"),
            ("x-davit-priority", "high"),
            ("x-davit-ordering-key", "c-5"),
            ("idempotency-key", "\"k\""),
        ]))
        .unwrap();
        assert_eq!((asked.delay_seconds, asked.ordering_key.as_deref()), (Some(90), Some("c-5")));
        for (name, value) in [
            ("x-davit-delay", "-1"),
            ("x-davit-delay", "1.5"),
            ("x-davit-not-before", "tomorrow"),
            ("x-davit-priority", "urgent"),
        ] {
            let refused = wishes(&headers(&[(name, value)])).unwrap_err();
            assert!(refused.message.starts_with(name), "{}", refused.message);
        }
        assert!(wishes(&headers(&[("x-davit-delay", "1"), ("x-davit-delay", "2")])).is_err());
    }

    #[test]
    fn a_preference_among_others_is_found() {
        assert!(preferred(&headers(&[("prefer", "return=minimal, Respond-Async")])));
        assert!(!preferred(&headers(&[("prefer", "respond-async=no")])));
    }

    #[test]
    fn a_date_beyond_the_bound_is_refused_and_a_past_one_is_at_once() {
        let now = Utc::now();
        assert!(check_date(now - chrono::TimeDelta::days(400), now).is_ok());
        assert!(check_date(now + chrono::TimeDelta::days(29), now).is_ok());
        assert!(check_date(now + chrono::TimeDelta::days(31), now).is_err());
    }
}
