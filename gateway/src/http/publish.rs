//! Publishing to a topic: the events of a request are kept, and handed to the queue for each subscription that wants
//! them, before the answer says 202.
//!
//! ```text
//! POST /v1/namespaces/{namespace}/topics/{topic}/messages
//! ```

use std::time::Duration;

use chrono::Utc;
use davit_api::{ApiError, BatchPublished, Lineage, NamespaceName, Published, Role, TopicName, limits};
use davit_registry::NewMessage;
use http::{HeaderMap, Response};

use super::address::read;
use super::later::accepted;
use super::{Arrived, Body, Public};
use crate::cloud_events::{self, Incoming, Place};

/// In which the body must arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

impl Public {
    /// Publishes what a request holds.
    pub(super) async fn publish(
        &self,
        arrived: Arrived<'_>,
        namespace: &NamespaceName,
        topic: &TopicName,
    ) -> Result<Response<Body>, ApiError> {
        self.let_in(&self.routes.load(), arrived.request.headers(), namespace, Role::Invoke)?;
        let (parts, body) = arrived.request.into_parts();
        let body = read(body, limits::ASYNC_PAYLOAD_BYTES, arrived.at + ARRIVAL).await?;
        let _parked = self.parked.take(body.len())?;
        let query = parts.uri.query().unwrap_or_default();
        self.publish_as(Place { namespace, topic }, &parts.headers, query, &body, Lineage::default()).await
    }

    /// Publishes what headers, query and body say; `lineage`: of the deliveries.
    pub(super) async fn publish_as(
        &self,
        place: Place<'_>,
        headers: &HeaderMap,
        query: &str,
        body: &[u8],
        lineage: Lineage,
    ) -> Result<Response<Body>, ApiError> {
        let Place { namespace, topic } = place;
        match cloud_events::read(place, headers, query, body, Utc::now())? {
            Incoming::One(message) => {
                let published = self.publish_all(namespace, topic, vec![message], lineage).await?;
                published
                    .first()
                    .map(accepted)
                    .ok_or_else(|| ApiError::new(davit_api::ErrorCode::Internal, "nothing was published"))
            }
            Incoming::Batch(messages) => {
                let messages = self.publish_all(namespace, topic, messages, lineage).await?;
                Ok(accepted(&BatchPublished { messages }))
            }
        }
    }

    async fn publish_all(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        messages: Vec<NewMessage>,
        lineage: Lineage,
    ) -> Result<Vec<Published>, ApiError> {
        let published = self.acceptor.publish(namespace, topic, messages, lineage).await?;
        self.metrics.topics.note(&published);
        Ok(published)
    }
}
