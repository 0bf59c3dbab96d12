//! From a message to deliveries: which subscriptions want it, and the invocations that carry it there.

use davit_api::{
    CloudEvent, DeliverySettings, Destinations, FunctionId, InvocationSource, Lineage, NamespaceName,
    RetryPolicy, SubscriptionId, TopicId, TopicName, Webhook, limits,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use crate::Result;
use crate::queue::{JobTarget, NewInvocation, accept_present};
use crate::rows::{json, json_opt};

/// Bytes of deliveries in one statement; a delivery may be as large by itself.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Deliveries in one statement.
const MOST: usize = 1_000;

/// A subscription as a delivery needs it.
pub(super) struct Route {
    id: SubscriptionId,
    target: JobTarget,
    settings: DeliverySettings,
    /// What is promised for its deliveries.
    policy: RetryPolicy,
    destinations: Destinations,
}

/// A topic and the ways that lead from it; none when there is no such topic. `only`: of its subscriptions this one.
pub(super) async fn routes(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    topic: &TopicName,
    only: Option<&str>,
) -> Result<Option<(TopicId, Vec<Route>)>> {
    let rows = sqlx::query(
        "select t.id as topic_id, s.id, s.function_id, s.webhook, s.settings, coalesce(v.spec->'retry', '{}') as policy,
            v.spec->'destinations' as destinations
         from topics t join namespaces n on n.id = t.namespace_id
         left join subscriptions s on s.topic_id = t.id and ($3::text is null or s.name = $3)
         left join aliases a on a.function_id = s.function_id and a.name = 'live' left join versions v on v.id = a.version_id
         where n.name = $1 and t.name = $2 order by s.name",
    )
    .bind(namespace.as_str())
    .bind(topic.as_str())
    .bind(only)
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let topic = TopicId(first.try_get("topic_id")?);
    let routes: Result<Vec<Route>> = rows.iter().filter_map(|row| route(row).transpose()).collect();
    Ok(Some((topic, routes?)))
}

fn route(row: &PgRow) -> Result<Option<Route>> {
    let Some(id) = row.try_get::<Option<Uuid>, _>("id")? else { return Ok(None) };
    let target = match (row.try_get::<Option<Uuid>, _>("function_id")?, json_opt::<Webhook>(row, "webhook")?)
    {
        (Some(id), _) => JobTarget::Function(FunctionId(id)),
        (None, Some(hook)) => JobTarget::Webhook(hook),
        (None, None) => return Ok(None),
    };
    let settings: DeliverySettings = json(row, "settings")?;
    let policy = match settings.retry {
        Some(own) => own,
        None => json(row, "policy")?,
    };
    let destinations = if settings.destinations.is_empty() {
        json_opt(row, "destinations")?.unwrap_or_default()
    } else {
        settings.destinations.clone()
    };
    Ok(Some(Route { id: SubscriptionId(id), target, settings, policy, destinations }))
}

/// A message that is to be delivered.
pub(super) struct Outgoing<'e> {
    pub(super) event: &'e CloudEvent,
    /// Its JSON form.
    pub(super) text: Vec<u8>,
    /// What filters look into.
    pub(super) value: Value,
}

impl Outgoing<'_> {
    fn wanted_by(&self, route: &Route) -> bool {
        route.settings.filter.as_ref().is_none_or(|filter| filter.matches(&self.value))
    }

    fn by(&self, route: &Route, namespace: &NamespaceName, lineage: &Lineage) -> NewInvocation {
        let key = route.settings.ordering.as_ref().and_then(|name| self.event.attribute(name));
        let text = self.text.clone();
        let new = NewInvocation::new(
            namespace.clone(),
            FunctionId::default(),
            InvocationSource::Topic,
            text,
            route.policy,
        );
        NewInvocation {
            target: route.target.clone(),
            destinations: route.destinations.clone(),
            priority: route.settings.priority,
            ordering_key: key.filter(|key| !key.is_empty()).map(short),
            subscription: Some(route.id),
            lineage: lineage.clone(),
            ..new
        }
    }
}

/// A key that fits its column; longer ones by their digest, which keeps apart what is not the same.
fn short(key: String) -> String {
    if key.chars().count() <= limits::ORDERING_KEY_CHARS {
        return key;
    }
    Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Accepts the deliveries of messages, in their order; answers how many each became. A subscription whose function was
/// deleted at this moment gets nothing.
pub(super) async fn deliver(
    conn: &mut PgConnection,
    namespace: &NamespaceName,
    routes: &[Route],
    messages: &[Outgoing<'_>],
    lineage: &Lineage,
) -> Result<Vec<u32>> {
    let mut counts = Vec::with_capacity(messages.len());
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for message in messages {
        let mut count = 0;
        for route in routes.iter().filter(|route| message.wanted_by(route)) {
            if bytes + message.text.len() > MOST_BYTES || batch.len() == MOST {
                accept_present(conn, &std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            bytes += message.text.len();
            batch.push(message.by(route, namespace, lineage));
            count += 1;
        }
        counts.push(count);
    }
    if !batch.is_empty() {
        accept_present(conn, &batch).await?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_fit_and_stay_apart() {
        let long = |end: &str| short(format!("{}{end}", "é".repeat(128)));
        assert_eq!(short("a".repeat(128)), "a".repeat(128));
        assert_eq!(long("1").len(), 64);
        assert_ne!(long("1"), long("2"));
    }
}
