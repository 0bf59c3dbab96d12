//! Replaying: messages that are kept are delivered to one subscription once more.

use chrono::{DateTime, Utc};
use davit_api::{
    CloudEvent, Lineage, MessageId, MessagePosition, NamespaceName, Replay, Replayed, SubscriptionName,
    TopicId, TopicName,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

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
                    let page = page(conn, topic_id, which.from, to, which.after).await?;
                    let next = page.last().map(|kept| kept.position);
                    let mut outgoing = Vec::with_capacity(page.len());
                    for kept in &page {
                        let value = kept.event.as_value().map_err(damaged)?;
                        outgoing.push(Outgoing { event: &kept.event, text: kept.event.to_json(), value });
                    }
                    let counts = deliver(conn, &namespace, &routes, &outgoing, &Lineage::default()).await?;
                    let messages = u32::try_from(page.len()).unwrap_or(u32::MAX);
                    Ok(Replayed { messages, deliveries: counts.iter().sum(), to, next })
                })
            })
            .await?;
        self.registry.poke(Topic::Queue);
        Ok(replayed)
    }
}

/// A message that is kept.
struct Kept {
    position: MessagePosition,
    event: CloudEvent,
}

/// The first messages of a span, as many as one call looks at.
async fn page(
    conn: &mut PgConnection,
    topic: TopicId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    after: Option<MessagePosition>,
) -> Result<Vec<Kept>> {
    let rows = sqlx::query(
        "select m.id, m.published_at, m.event from (
            select x.*, coalesce(sum(octet_length(x.event)) over (order by x.published_at, x.id
                rows between unbounded preceding and 1 preceding), 0) as before
            from (select id, published_at, event from messages where topic_id = $1 and published_at >= $2
                and published_at < $3 and ($4::timestamptz is null or (published_at, id) > ($4, $5))
                order by published_at, id limit $6) x) m
         where m.before < $7 order by m.published_at, m.id",
    )
    .bind(topic.0)
    // The start of a page is the end of the one before: so the index is entered there.
    .bind(after.map_or(from, |after| after.published_at.max(from)))
    .bind(to)
    .bind(after.map(|after| after.published_at))
    .bind(after.map(|after| after.message_id.0))
    .bind(AT_ONCE)
    .bind(BYTES_AT_ONCE)
    .fetch_all(conn)
    .await?;
    let kept = |row: &PgRow| {
        let position = MessagePosition {
            published_at: row.try_get("published_at")?,
            message_id: MessageId(row.try_get("id")?),
        };
        let event = CloudEvent::parse(row.try_get("event")?).map_err(damaged)?;
        Ok(Kept { position, event })
    };
    rows.iter().map(kept).collect()
}

fn damaged(problem: String) -> RegistryError {
    RegistryError::damaged("message", problem)
}
