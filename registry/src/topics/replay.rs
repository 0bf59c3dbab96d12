//! Replaying: messages that are kept are delivered to one subscription once more.

use chrono::{DateTime, Utc};
use davit_api::{
    CloudEvent, MessageId, MessagePosition, NamespaceName, Replay, Replayed, SubscriptionName, TopicName,
};
use sqlx::Row;
use uuid::Uuid;

use super::deliver::{Outgoing, deliver, routes};
use super::missing;
use crate::{Audited, RegistryError, Result, Topic};

/// Messages that one call looks at.
const AT_ONCE: i64 = 1_000;
/// Bytes of messages that one call looks at; one message may be as large by itself.
const BYTES_AT_ONCE: i64 = 8 * 1024 * 1024;

impl Audited {
    /// Delivers messages of a span of time once more, in their order, as many as one transaction should hold; the answer
    /// says where to go on.
    pub async fn replay(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        subscription: &SubscriptionName,
        which: Replay,
    ) -> Result<Replayed> {
        let (namespace, topic, subscription) = (namespace.clone(), topic.clone(), subscription.clone());
        let replayed = self
            .change(move |conn| {
                Box::pin(async move {
                    let (topic_id, routes) = routes(conn, &namespace, &topic, Some(subscription.as_str()))
                        .await?
                        .ok_or_else(|| missing(&namespace, &topic))?;
                    if routes.is_empty() {
                        return Err(RegistryError::not_found("subscription", subscription));
                    }
                    let to: DateTime<Utc> = sqlx::query_scalar("select coalesce($1, clock_timestamp())")
                        .bind(which.to)
                        .fetch_one(&mut *conn)
                        .await?;
                    let rows = sqlx::query(
                        "select m.id, m.published_at, m.event, m.place, m.before from (
                            select x.*, row_number() over w as place,
                                coalesce(sum(octet_length(x.event)) over (order by x.published_at, x.id
                                    rows between unbounded preceding and 1 preceding), 0) as before
                            from (select id, published_at, event from messages where topic_id = $1 and published_at >= $2
                                and published_at < $3 and ($4::timestamptz is null or (published_at, id) > ($4, $5))
                                order by published_at, id limit $6) x
                            window w as (order by x.published_at, x.id)) m
                         where m.before < $7 order by m.published_at, m.id",
                    )
                    .bind(topic_id.0)
                    .bind(which.from)
                    .bind(to)
                    .bind(which.after.map(|a| a.published_at))
                    .bind(which.after.map(|a| a.message_id.0))
                    .bind(AT_ONCE)
                    .bind(BYTES_AT_ONCE)
                    .fetch_all(&mut *conn)
                    .await?;
                    let mut next = None;
                    let mut events = Vec::with_capacity(rows.len());
                    for row in &rows {
                        let id = MessageId(row.try_get::<Uuid, _>("id")?);
                        next = Some(MessagePosition { published_at: row.try_get("published_at")?, message_id: id });
                        let text: Vec<u8> = row.try_get("event")?;
                        let event = CloudEvent::parse(&text).map_err(|e| RegistryError::damaged("message", e))?;
                        events.push((event, text));
                    }
                    let mut outgoing = Vec::with_capacity(events.len());
                    for (event, text) in events.iter_mut() {
                        let value = event.as_value().map_err(|e| RegistryError::damaged("message", e))?;
                        outgoing.push(Outgoing { event, text: std::mem::take(text), value });
                    }
                    let counts = deliver(conn, &namespace, &routes, &outgoing, 0).await?;
                    let messages = u32::try_from(rows.len()).unwrap_or(u32::MAX);
                    Ok(Replayed { messages, deliveries: counts.iter().sum(), to, next })
                })
            })
            .await?;
        self.registry.poke(Topic::Queue);
        Ok(replayed)
    }
}
