//! Topics: what is published to them, and who gets it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, CloudEvent, Destinations, FunctionName, MessageId, Pattern, Priority, RetryPolicy,
    SubscriptionName, TopicName, Webhook, limits,
};

/// Who gets the messages of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subscriber {
    /// A function of the namespace, called with the CloudEvent in its JSON form.
    Function(FunctionName),
    /// An address outside.
    Webhook(Webhook),
}

impl std::fmt::Display for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function(name) => write!(f, "function {name}"),
            Self::Webhook(hook) => write!(f, "webhook {}", hook.url),
        }
    }
}

/// Which messages a subscription takes, and how they are delivered.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliverySettings {
    /// Only messages that match; without it all of them. Attributes are its first level, and what is below `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Pattern>,
    /// How often deliveries are tried; without it what the function's live version says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Where outcomes are sent on to; without any what the function's live version says.
    #[serde(default, skip_serializing_if = "Destinations::is_empty")]
    pub destinations: Destinations,
    /// An attribute, such as `subject`: messages in which it is the same are delivered one after the other, in the order
    /// in which they were published. Functions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<String>,
    /// Before or after which others of the namespace they are delivered.
    #[serde(default, skip_serializing_if = "is_normal")]
    pub priority: Priority,
}

fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}

impl DeliverySettings {
    /// Checks what can be checked without looking anything up; the error names the field.
    pub fn check(&self, ordered: bool) -> Result<(), ApiError> {
        if let Some(retry) = &self.retry {
            retry.check().map_err(|e| ApiError::field("retry", e))?;
        }
        self.destinations.check().map_err(|e| ApiError::field("destinations", e))?;
        if let Some(name) = &self.ordering {
            if !ordered {
                return Err(ApiError::field("ordering", "is for functions only"));
            }
            if !CloudEvent::is_attribute_name(name) {
                return Err(ApiError::field("ordering", "names an attribute, such as subject"));
            }
        }
        let mut looked_at = self.filter.iter().flat_map(Pattern::first_level);
        let wrong = looked_at
            .find(|name| !matches!(*name, "data" | "data_base64") && !CloudEvent::is_attribute_name(name));
        wrong.map_or(Ok(()), |name| {
            let text = "no attribute is called so: write lower-case letters and digits, or data for what lies below it";
            Err(ApiError::field(&format!("filter: {name}"), text))
        })
    }
}

/// A subscription that comes and goes with a version of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionSubscription {
    /// The topic; it is made when there is none of that name.
    pub topic: TopicName,
    /// Its name, unique within the topic. Default: the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SubscriptionName>,
    /// Only messages that match, in the shape of EventBridge's patterns; without it all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Pattern>,
    /// How often deliveries are tried. Default: as the function's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Where outcomes of deliveries are sent on to. Default: as the function's.
    #[serde(default, skip_serializing_if = "Destinations::is_empty")]
    pub destinations: Destinations,
    /// An attribute, such as `subject`: messages in which it is the same are delivered one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<String>,
    /// Before or after which others of the namespace they are delivered. Default: `normal`.
    #[serde(default, skip_serializing_if = "is_normal")]
    #[schemars(with = "Option<String>")]
    pub priority: Priority,
}

impl FunctionSubscription {
    /// Which messages, and how.
    pub fn settings(&self) -> DeliverySettings {
        DeliverySettings {
            filter: self.filter.clone(),
            retry: self.retry,
            destinations: self.destinations.clone(),
            ordering: self.ordering.clone(),
            priority: self.priority,
        }
    }
}

/// A topic to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
}

/// A subscription to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    /// Its name, unique within the topic.
    pub name: SubscriptionName,
    /// Who gets the messages.
    pub to: Subscriber,
    /// Which messages, and how.
    #[serde(default)]
    pub settings: DeliverySettings,
    /// Takes the place of the one of that name, if there is one; what is queued for that stays so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

impl NewSubscription {
    /// Checks what can be checked without looking anything up; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        if let Subscriber::Webhook(hook) = &self.to {
            hook.check().map_err(|e| ApiError::field("to", e))?;
        }
        self.settings.check(matches!(self.to, Subscriber::Function(_)))
    }
}

/// A topic as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TopicView {
    /// Its name.
    pub name: TopicName,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// How many subscriptions it has.
    pub subscriptions: u32,
}

/// Everything about one topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TopicDetail {
    /// The topic.
    #[serde(flatten)]
    pub topic: TopicView,
    /// Messages that are kept, counted up to 10,000: 10,001 stands for more.
    pub messages: u32,
    /// When the last one was published.
    pub last_published_at: Option<DateTime<Utc>>,
    /// Its subscriptions, by name, with what each has still to deliver.
    pub subscribers: Vec<SubscriptionView>,
}

/// Most that counts of messages and deliveries say; one more stands for more than that.
pub const COUNTED: u32 = 10_000;

/// A subscription as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SubscriptionView {
    /// Its name.
    pub name: SubscriptionName,
    /// Who gets the messages.
    pub to: Subscriber,
    /// Which messages, and how.
    pub settings: DeliverySettings,
    /// Whether it came from the version's `davit.toml` (and moves with it) or was added by hand.
    pub from_manifest: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Deliveries that have not ended, counted as messages are.
    pub queued: u32,
    /// Dead letters that were not redriven, counted as messages are.
    pub dead: u32,
}

/// What became of a published event. It was sent after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Published {
    /// The message's id.
    pub message_id: MessageId,
    /// Deliveries that were accepted with it; none when it was there already.
    pub deliveries: u32,
    /// An event with the same `source` and `id` was published within the last 24 hours: this is its message's id.
    pub duplicate: bool,
}

/// What became of a batch, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BatchPublished {
    /// One for each event.
    pub messages: Vec<Published>,
}

/// Which messages to deliver to a subscription once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Those that were published at this instant or later …
    pub from: DateTime<Utc>,
    /// … and before this one. Default: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// Only those after this one: `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<MessagePosition>,
}

/// A place in the order of a topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MessagePosition {
    /// When the message was published.
    pub published_at: DateTime<Utc>,
    /// The message.
    pub message_id: MessageId,
}

/// What one call of a replay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Replayed {
    /// Messages that were looked at.
    pub messages: u32,
    /// Deliveries that were accepted: those that the subscription's filter lets pass.
    pub deliveries: u32,
    /// Up to which instant; to be said again with the next call.
    pub to: DateTime<Utc>,
    /// Where the next call goes on; none when all are done.
    pub next: Option<MessagePosition>,
}

/// Checks the subscriptions of one version.
pub(crate) fn check_subscriptions(all: &[FunctionSubscription]) -> Result<(), ApiError> {
    if all.len() > limits::SUBSCRIPTIONS {
        return Err(ApiError::field("subscriptions", format!("at most {}", limits::SUBSCRIPTIONS)));
    }
    let mut seen = std::collections::HashSet::new();
    for one in all {
        if !seen.insert((&one.topic, &one.name)) {
            let text = format!("{} is listed twice; give each a name of its own", one.topic);
            return Err(ApiError::field("subscriptions", text));
        }
        let named =
            |e: ApiError| ApiError::new(e.code, format!("subscriptions: {}: {}", one.topic, e.message));
        one.settings().check(true).map_err(named)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_looks_at_attributes_and_data_only() {
        let check = |filter: &str| {
            DeliverySettings { filter: Some(filter.parse().unwrap()), ..Default::default() }.check(true)
        };
        assert_eq!(check(r#"{"type": ["a"], "data": {"Any_Name": [1]}}"#), Ok(()));
        let refused = check(r#"{"$or": [{"type": ["a"]}, {"Type": ["a"]}]}"#).unwrap_err();
        assert!(refused.message.starts_with("filter: Type: "), "{}", refused.message);
    }

    #[test]
    fn only_functions_have_an_order() {
        let mut settings = DeliverySettings { ordering: Some("subject".into()), ..Default::default() };
        assert!(settings.check(true).is_ok() && settings.check(false).is_err());
        settings.ordering = Some("data".into());
        assert!(settings.check(true).is_err());
    }
}
