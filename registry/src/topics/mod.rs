//! Topics: publish and subscribe without a broker. A message and its deliveries, which are invocations of the queue,
//! are committed together: who was told 202 need not ask again, and nobody gets what was not kept.
//!
//! `publish.rs` accepts and fans out, `deliver.rs` makes invocations of messages, `replay.rs` does so again for what is
//! kept, `messages.rs` keeps it by days; this file and `subscriptions.rs` look after the topics themselves.

mod deliver;
mod messages;
mod publish;
mod replay;
mod subscriptions;

use chrono::{DateTime, Utc};
use davit_api::{COUNTED, NamespaceName, TopicDetail, TopicId, TopicName, TopicView, limits};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::namespaces::id_of;
use crate::rows::{count32, parsed};
use crate::{Audited, Registry, RegistryError, Result};

pub use publish::NewMessage;
pub(crate) use publish::publish_within;
pub(crate) use subscriptions::put_subscriptions;

fn view(row: &PgRow) -> Result<TopicView> {
    let subscriptions: i64 = row.try_get("subscriptions")?;
    Ok(TopicView {
        name: parsed(row, "name")?,
        created_at: row.try_get("created_at")?,
        subscriptions: u32::try_from(subscriptions).unwrap_or(u32::MAX),
    })
}

/// The topic's id. The tenant stands in the statement itself.
async fn topic_of(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    topic: &TopicName,
    lock: bool,
) -> Result<TopicId> {
    let lock = if lock { "for no key update of t" } else { "" };
    let id = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select t.id from topics t join namespaces n on n.id = t.namespace_id where n.name = $1 and t.name = $2 {lock}"
    )))
    .bind(namespace.as_str())
    .bind(topic.as_str())
    .fetch_optional(conn)
    .await?;
    id.map(TopicId).ok_or_else(|| missing(namespace, topic))
}

fn missing(namespace: &NamespaceName, topic: &TopicName) -> RegistryError {
    RegistryError::not_found("topic", format_args!("{namespace}/{topic}"))
}

impl Registry {
    /// Every topic of a namespace, by name; there are at most [`limits::TOPICS`].
    pub async fn list_topics(&self, namespace: &NamespaceName) -> Result<Vec<TopicView>> {
        self.namespace_id(namespace).await?;
        let rows = sqlx::query(
            "select t.name, t.created_at, (select count(*) from subscriptions s where s.topic_id = t.id) as subscriptions
             from topics t join namespaces n on n.id = t.namespace_id where n.name = $1 order by t.name",
        )
        .bind(namespace.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(view).collect()
    }

    /// Everything about one topic. Counts stop a little above [`COUNTED`], so that looking costs the same however much
    /// there is.
    pub async fn topic_detail(&self, namespace: &NamespaceName, topic: &TopicName) -> Result<TopicDetail> {
        let mut conn = self.pool.acquire().await?;
        let id = topic_of(&mut conn, namespace, topic, false).await?;
        let row = sqlx::query(
            "select t.name, t.created_at, (select count(*) from subscriptions s where s.topic_id = t.id) as subscriptions,
                (select count(*)::int from (select from messages m where m.topic_id = t.id limit $2 + 1) c) as messages,
                (select m.published_at from messages m where m.topic_id = t.id order by m.published_at desc limit 1) as last
             from topics t where t.id = $1",
        )
        .bind(id.0)
        .bind(i64::from(COUNTED))
        .fetch_optional(&mut *conn)
        .await?
        .ok_or_else(|| missing(namespace, topic))?;
        let last: Option<DateTime<Utc>> = row.try_get("last")?;
        Ok(TopicDetail {
            topic: view(&row)?,
            messages: count32(&row, "messages")?,
            last_published_at: last,
            subscribers: subscriptions::list(&mut conn, id).await?,
        })
    }
}

impl Audited {
    /// Makes a topic.
    pub async fn create_topic(&self, namespace: &NamespaceName, topic: &TopicName) -> Result<TopicView> {
        let (namespace, topic) = (namespace.clone(), topic.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let namespace = id_of(conn, &namespace).await?;
                // Whoever else makes one waits: the bound must hold.
                sqlx::query("select from namespaces where id = $1 for no key update")
                    .bind(namespace.0)
                    .execute(&mut *conn)
                    .await?;
                let topics: i64 = sqlx::query_scalar("select count(*) from topics where namespace_id = $1")
                    .bind(namespace.0)
                    .fetch_one(&mut *conn)
                    .await?;
                if topics >= i64::try_from(limits::TOPICS).unwrap_or(i64::MAX) {
                    let text = format!("the namespace has {} topics, which is the limit", limits::TOPICS);
                    return Err(RegistryError::conflict(text));
                }
                let row = sqlx::query(
                    "insert into topics (id, namespace_id, name) values ($1, $2, $3)
                     returning name, created_at, 0::bigint as subscriptions",
                )
                .bind(TopicId::new().0)
                .bind(namespace.0)
                .bind(topic.as_str())
                .fetch_one(conn)
                .await?;
                Ok((view(&row)?, topic.to_string()))
            })
        })
        .await
    }

    /// Removes a topic with its subscriptions, those of functions' manifests among them. What was accepted for delivery is
    /// delivered; messages that are kept can no longer be replayed.
    pub async fn delete_topic(&self, namespace: &NamespaceName, topic: &TopicName) -> Result<()> {
        let (namespace, topic) = (namespace.clone(), topic.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let id = topic_of(conn, &namespace, &topic, true).await?;
                sqlx::query("delete from topics where id = $1").bind(id.0).execute(conn).await?;
                Ok(())
            })
        })
        .await
    }
}
