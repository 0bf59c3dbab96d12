//! Publishing: the messages, and a delivery for each subscription that wants them, in one transaction.

use std::collections::HashMap;

use davit_api::{
    ApiError, CloudEvent, ErrorCode, Lineage, MessageId, NamespaceName, Published, TopicId, TopicName, limits,
};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::deliver::{Outgoing, deliver, routes};
use super::missing;
use crate::days::IDEMPOTENT_FOR;
use crate::{Registry, Result, Topic};

/// An event to publish.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The event.
    pub event: CloudEvent,
    /// Its id was made for it, so that nothing published before can have the same.
    pub fresh: bool,
}

impl Registry {
    /// Publishes events, all or none; what each became is answered in order. When this has returned, neither the
    /// messages nor their deliveries will be lost. An event with the `source` and `id` of one that was published within
    /// 24 hours is that one, and is not delivered again. `lineage`: of the deliveries.
    pub async fn publish(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        messages: Vec<NewMessage>,
        lineage: Lineage,
    ) -> Result<Vec<Published>> {
        let (namespace, topic) = (namespace.clone(), topic.clone());
        let published = self
            .transact(move |conn| {
                Box::pin(async move {
                    let published = publish_within(conn, &namespace, &topic, &messages, &lineage).await?;
                    published.ok_or_else(|| missing(&namespace, &topic))
                })
            })
            .await?;
        if published.iter().any(|one| one.deliveries > 0) {
            self.poke(Topic::Queue);
        }
        Ok(published)
    }
}

/// Publishes within a transaction; none when there is no such topic. `lineage`: of the deliveries.
pub(crate) async fn publish_within(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    topic: &TopicName,
    messages: &[NewMessage],
    lineage: &Lineage,
) -> Result<Option<Vec<Published>>> {
    let outgoing = messages.iter().map(|one| outgoing(&one.event)).collect::<Result<Vec<_>, ApiError>>()?;
    let Some((topic, routes)) = routes(conn, namespace, topic, None).await? else { return Ok(None) };
    let mut published: Vec<Published> = messages
        .iter()
        .map(|_| Published { message_id: MessageId::new(), deliveries: 0, duplicate: false })
        .collect();
    recognise(conn, topic, messages, &mut published).await?;
    let (places, fresh): (Vec<usize>, Vec<Outgoing<'_>>) =
        outgoing.into_iter().enumerate().filter(|(n, _)| !published[*n].duplicate).unzip();
    if fresh.is_empty() {
        return Ok(Some(published));
    }
    sqlx::query(
        "insert into messages (id, topic_id, event) select g.id, $1, g.event
         from unnest($2::uuid[], $3::bytea[]) with ordinality as g(id, event, n) order by g.n",
    )
    .bind(topic.0)
    .bind(places.iter().map(|n| published[*n].message_id.0).collect::<Vec<_>>())
    .bind(fresh.iter().map(|one| one.text.as_slice()).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    let counts = deliver(conn, namespace, &routes, &fresh, lineage).await?;
    for (place, count) in places.into_iter().zip(counts) {
        published[place].deliveries = count;
    }
    Ok(Some(published))
}

fn outgoing(event: &CloudEvent) -> Result<Outgoing<'_>, ApiError> {
    let text = event.to_json();
    if text.len() > limits::EVENT_BYTES {
        let problem =
            format!("the event is {} bytes in its JSON form; at most {}", text.len(), limits::EVENT_BYTES);
        return Err(ApiError::new(ErrorCode::TooLarge, problem));
    }
    let value = event.as_value().map_err(|e| ApiError::new(ErrorCode::InvalidRequest, e))?;
    Ok(Outgoing { event, text, value })
}

/// Finds those that were published before, by source and id.
async fn recognise(
    conn: &mut PgConnection,
    topic: TopicId,
    messages: &[NewMessage],
    published: &mut [Published],
) -> Result<()> {
    let mut first: HashMap<[u8; 32], usize> = HashMap::new();
    let mut keys: Vec<(usize, [u8; 32])> = Vec::new();
    for (n, one) in messages.iter().enumerate().filter(|(_, one)| !one.fresh) {
        let key = key(&one.event);
        keys.push((n, key));
        first.entry(key).or_insert(n);
    }
    if keys.is_empty() {
        return Ok(());
    }
    // Always in the same order: who publishes the same at the same moment waits, and not in a ring.
    let mut wanted: Vec<([u8; 32], Uuid)> =
        first.iter().map(|(key, n)| (*key, published[*n].message_id.0)).collect();
    wanted.sort_unstable();
    let (digests, ids): (Vec<&[u8]>, Vec<Uuid>) =
        wanted.iter().map(|(key, id)| (key.as_slice(), *id)).unzip();
    let taken: Vec<Vec<u8>> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "insert into message_keys as k (topic_id, key, message_id)
         select $1, g.key, g.id from unnest($2::bytea[], $3::uuid[]) as g(key, id) order by g.key
         on conflict (topic_id, key) do update set message_id = excluded.message_id, published_at = clock_timestamp()
            where k.published_at < clock_timestamp() - interval '{IDEMPOTENT_FOR}'
         returning k.key"
    )))
    .bind(topic.0)
    .bind(&digests)
    .bind(&ids)
    .fetch_all(&mut *conn)
    .await?;
    let mut known: HashMap<Vec<u8>, Uuid> = HashMap::new();
    if taken.len() < digests.len() {
        let rows: Vec<(Vec<u8>, Uuid)> = sqlx::query_as(
            "select key, message_id from message_keys where topic_id = $1 and key = any($2) and key <> all($3)",
        )
        .bind(topic.0)
        .bind(&digests)
        .bind(&taken)
        .fetch_all(conn)
        .await?;
        known.extend(rows);
    }
    for (n, key) in keys {
        let earlier = known.get(key.as_slice()).map(|id| MessageId(*id));
        // Twice in one batch is twice published, too.
        let in_batch = first.get(&key).filter(|place| **place != n).map(|place| published[*place].message_id);
        if let Some(message_id) = earlier.or(in_batch) {
            published[n] = Published { message_id, deliveries: 0, duplicate: true };
        }
    }
    Ok(())
}

/// What an event is recognised by.
fn key(event: &CloudEvent) -> [u8; 32] {
    let mut hash = Sha256::new();
    for name in ["source", "id"] {
        let text = event.attribute(name).unwrap_or_default();
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}
