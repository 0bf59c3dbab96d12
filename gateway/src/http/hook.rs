//! Deliveries of webhook sources: `POST /v1/namespaces/{namespace}/sources/{source}/hook`.
//!
//! The definition is in the snapshot; the only statement is the one that accepts the event, and 202 follows its commit.

use std::time::Duration;

use chrono::Utc;
use davit_api::{ApiError, EnqueueAccepted, ErrorCode, SourceSpec, limits};
use http::{HeaderValue, Response, header};

use crate::http::address::read;
use crate::http::{Arrived, Body, Public, error, later, reply};
use crate::sources::{self, Delivery};

/// A delivery has no call's budget to arrive within.
const ARRIVAL: Duration = Duration::from_secs(30);
/// When the sender of a paused source is to try again, in seconds.
const PAUSED: HeaderValue = HeaderValue::from_static("60");

impl Public {
    /// Takes a delivery: who sent it is checked, then it is accepted once.
    pub(super) async fn hook(
        &self,
        arrived: Arrived<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<Response<Body>, ApiError> {
        let unavailable = |why: &str| ApiError::new(ErrorCode::Unavailable, why);
        let table = self.routes.current();
        let missing = || ApiError::new(ErrorCode::NotFound, "there is no webhook source at this address");
        let source = table.source(namespace, name).ok_or_else(missing)?;
        let SourceSpec::Webhook(webhook) = &source.spec else { return Err(missing()) };
        if source.paused {
            let mut response = error::refuse(&unavailable("the source is paused"));
            response.headers_mut().insert(header::RETRY_AFTER, PAUSED);
            return Ok(response);
        }
        let version = table
            .function_by_id(source.function_id)
            .ok_or_else(|| unavailable("the source's function has no live version at the moment"))?;
        let (head, body) = arrived.request.into_parts();
        let body = read(body, limits::ASYNC_PAYLOAD_BYTES, arrived.at + ARRIVAL).await?;
        let _parked = self.parked.take(body.len())?;
        let delivery = Delivery {
            headers: &head.headers,
            query: head.uri.query().unwrap_or_default(),
            body: &body,
            now: Utc::now().timestamp(),
        };
        sources::verify(webhook, source.secret.as_deref(), delivery)?;
        let event = sources::event(&source.name, webhook, delivery);
        let invocation_id = self.intake.deliver(source, version, event).await?;
        let mut response = later::accepted(&EnqueueAccepted { invocation_id });
        reply::mark(&mut response, reply::id_value(invocation_id));
        Ok(response)
    }
}
