//! Subscriptions: added by hand, or with the version of a function whose manifest lists them.

use davit_api::{
    COUNTED, DeliverySettings, FunctionId, FunctionName, FunctionSubscription, NamespaceName,
    NewSubscription, Subscriber, SubscriptionId, SubscriptionName, SubscriptionView, TopicId, TopicName,
    limits,
};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::topic_of;
use crate::namespaces::function_of;
use crate::rows::{count32, json, json_opt, parsed, parsed_opt, to_json};
use crate::{Audited, RegistryError, Result};

/// Subscriptions with what each has still to deliver, by name.
const VIEW: &str = "select s.name, s.webhook, s.settings, s.from_manifest, s.created_at, f.name as function,
        (select count(*)::int from (select from invocations i where i.subscription_id = s.id limit $2 + 1) c) as queued,
        (select count(*)::int from (select from ended_invocations e where e.subscription_id = s.id and e.state = 'dead'
            and e.redriven_as is null limit $2 + 1) c) as dead
    from subscriptions s left join functions f on f.id = s.function_id";

fn view(row: &PgRow) -> Result<SubscriptionView> {
    let to = match (parsed_opt::<FunctionName>(row, "function")?, json_opt(row, "webhook")?) {
        (Some(name), _) => Subscriber::Function(name),
        (None, Some(hook)) => Subscriber::Webhook(hook),
        (None, None) => return Err(RegistryError::damaged("subscription", "it leads nowhere")),
    };
    Ok(SubscriptionView {
        name: parsed(row, "name")?,
        to,
        settings: json(row, "settings")?,
        from_manifest: row.try_get("from_manifest")?,
        created_at: row.try_get("created_at")?,
        queued: count32(row, "queued")?,
        dead: count32(row, "dead")?,
    })
}

pub(super) async fn list(conn: &mut PgConnection, topic: TopicId) -> Result<Vec<SubscriptionView>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{VIEW} where s.topic_id = $1 order by s.name")))
        .bind(topic.0)
        .bind(i64::from(COUNTED))
        .fetch_all(conn)
        .await?;
    rows.iter().map(view).collect()
}

impl Audited {
    /// Adds a subscription by hand, or, if that is asked for, changes the one of its name, unless a manifest has it. It
    /// stays over deployments.
    pub async fn subscribe(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        new: &NewSubscription,
    ) -> Result<SubscriptionView> {
        let (namespace, topic, new) = (namespace.clone(), topic.clone(), new.clone());
        self.change_named(move |conn| {
            Box::pin(async move {
                let topic_id = topic_of(conn, &namespace, &topic, true).await?;
                let (function, webhook) = match &new.to {
                    Subscriber::Function(name) => (Some(function_of(conn, &namespace, name).await?.1), None),
                    Subscriber::Webhook(hook) => (None, Some(to_json(hook)?)),
                };
                if !(new.replace && change(conn, topic_id, &new, function, webhook.as_ref()).await?) {
                    room(conn, topic_id, &topic).await?;
                    sqlx::query(
                        "insert into subscriptions (id, topic_id, name, function_id, webhook, settings, from_manifest)
                         values ($1, $2, $3, $4, $5, $6, false)",
                    )
                    .bind(SubscriptionId::new().0)
                    .bind(topic_id.0)
                    .bind(new.name.as_str())
                    .bind(function.map(|id| id.0))
                    .bind(webhook)
                    .bind(to_json(&new.settings)?)
                    .execute(&mut *conn)
                    .await?;
                }
                let row = sqlx::query(sqlx::AssertSqlSafe(format!("{VIEW} where s.topic_id = $1 and s.name = $3")))
                    .bind(topic_id.0)
                    .bind(i64::from(COUNTED))
                    .bind(new.name.as_str())
                    .fetch_one(conn)
                    .await?;
                Ok((view(&row)?, format!("{topic}/{}", new.name)))
            })
        })
        .await
    }

    /// Removes a subscription. What was accepted for delivery is delivered.
    pub async fn unsubscribe(
        &self,
        namespace: &NamespaceName,
        topic: &TopicName,
        name: &SubscriptionName,
    ) -> Result<()> {
        let (namespace, topic, name) = (namespace.clone(), topic.clone(), name.clone());
        self.change(move |conn| {
            Box::pin(async move {
                let topic = topic_of(conn, &namespace, &topic, true).await?;
                let done = sqlx::query("delete from subscriptions where topic_id = $1 and name = $2")
                    .bind(topic.0)
                    .bind(name.as_str())
                    .execute(conn)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(RegistryError::not_found("subscription", name));
                }
                Ok(())
            })
        })
        .await
    }
}

/// Changes the subscription of that name that was added by hand; false when there is none. The topic is locked.
async fn change(
    conn: &mut PgConnection,
    topic: TopicId,
    new: &NewSubscription,
    function: Option<FunctionId>,
    webhook: Option<&serde_json::Value>,
) -> Result<bool> {
    let changed = sqlx::query(
        "update subscriptions set function_id = $3, webhook = $4, settings = $5
         where topic_id = $1 and name = $2 and not from_manifest",
    )
    .bind(topic.0)
    .bind(new.name.as_str())
    .bind(function.map(|id| id.0))
    .bind(webhook)
    .bind(to_json(&new.settings)?)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Refuses one too many. The topic is locked.
async fn room(conn: &mut PgConnection, topic: TopicId, name: &TopicName) -> Result<()> {
    let count: i64 = sqlx::query_scalar("select count(*) from subscriptions where topic_id = $1")
        .bind(topic.0)
        .fetch_one(conn)
        .await?;
    if count >= i64::try_from(limits::SUBSCRIPTIONS).unwrap_or(i64::MAX) {
        let text =
            format!("the topic {name} has {} subscriptions, which is the limit", limits::SUBSCRIPTIONS);
        return Err(RegistryError::conflict(text));
    }
    Ok(())
}

/// Subscriptions of the manifest come and go with the version; one that stays keeps what it has queued. A topic that
/// does not exist is made, so that it does not matter whether who publishes or who subscribes is deployed first.
pub(crate) async fn put_subscriptions(
    conn: &mut PgConnection,
    function: FunctionId,
    listed: &[FunctionSubscription],
) -> Result<()> {
    let row = sqlx::query("select namespace_id, name from functions where id = $1")
        .bind(function.0)
        .fetch_one(&mut *conn)
        .await?;
    let namespace: uuid::Uuid = row.try_get("namespace_id")?;
    // A function's name is always a subscription's, too: both are labels.
    let own_name: SubscriptionName = parsed(&row, "name")?;
    let mut listed: Vec<(&TopicName, &SubscriptionName, DeliverySettings)> =
        listed.iter().map(|s| (&s.topic, s.name.as_ref().unwrap_or(&own_name), s.settings())).collect();
    // Always in the same order, so that two deployments do not wait for each other.
    listed.sort_by_key(|(topic, name, _)| (*topic, *name));
    let topics: Vec<&str> = listed.iter().map(|(topic, ..)| topic.as_str()).collect();
    let names: Vec<&str> = listed.iter().map(|(_, name, _)| name.as_str()).collect();
    sqlx::query(
        "delete from subscriptions s using topics t where t.id = s.topic_id and s.function_id = $1 and s.from_manifest
            and not exists (select from unnest($2::text[], $3::text[]) as g(topic, name) where g.topic = t.name and g.name = s.name)",
    )
    .bind(function.0)
    .bind(&topics)
    .bind(&names)
    .execute(&mut *conn)
    .await?;
    for (topic, name, settings) in listed {
        sqlx::query(
            "insert into topics (id, namespace_id, name) values ($1, $2, $3) on conflict (namespace_id, name) do nothing",
        )
        .bind(TopicId::new().0)
        .bind(namespace)
        .bind(topic.as_str())
        .execute(&mut *conn)
        .await?;
        let id: uuid::Uuid = sqlx::query_scalar(
            "select id from topics where namespace_id = $1 and name = $2 for no key update",
        )
        .bind(namespace)
        .bind(topic.as_str())
        .fetch_optional(&mut *conn)
        .await?
        .ok_or_else(|| RegistryError::conflict(format!("the topic {topic} is being deleted; try again")))?;
        put(conn, function, TopicId(id), topic, name, &settings).await?;
    }
    Ok(())
}

async fn put(
    conn: &mut PgConnection,
    function: FunctionId,
    topic: TopicId,
    topic_name: &TopicName,
    name: &SubscriptionName,
    settings: &DeliverySettings,
) -> Result<()> {
    let changed = sqlx::query(
        "update subscriptions set settings = $4, from_manifest = true where topic_id = $1 and name = $2 and function_id = $3",
    )
    .bind(topic.0)
    .bind(name.as_str())
    .bind(function.0)
    .bind(to_json(settings)?)
    .execute(&mut *conn)
    .await?;
    if changed.rows_affected() == 1 {
        return Ok(());
    }
    room(conn, topic, topic_name).await?;
    let added = sqlx::query(
        "insert into subscriptions (id, topic_id, name, function_id, settings, from_manifest) values ($1, $2, $3, $4, $5, true)
         on conflict (topic_id, name) do nothing",
    )
    .bind(SubscriptionId::new().0)
    .bind(topic.0)
    .bind(name.as_str())
    .bind(function.0)
    .bind(to_json(settings)?)
    .execute(conn)
    .await?;
    if added.rows_affected() == 0 {
        let text = format!(
            "the topic {topic_name} has another subscription called {name}; give this one a name of its own"
        );
        return Err(RegistryError::conflict(text));
    }
    Ok(())
}
