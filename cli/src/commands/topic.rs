//! `davit topic`: publish and subscribe.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use davit_api::{
    COUNTED, DeliverySettings, Destination, Destinations, EventMode, FunctionName, NewSubscription, Pattern,
    Priority, Replay, RetryPolicy, SecretName, Subscriber, SubscriptionName, SubscriptionView, TopicDetail,
    TopicName, Webhook,
};

use super::invoke::given_json;
use crate::api::{Api, PublishQuery};
use crate::context::Globals;
use crate::failure::{Failure, Result};
use crate::output::{Table, json, line, note, or_dash, when};
use crate::prompt::confirm;

/// Publish messages, and subscribe functions and webhooks to them
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit topic create orders
  davit topic subscribe orders --function billing --filter '{\"type\": [\"order.created\"]}'
  davit topic subscribe orders --name partner --webhook https://example.com/hook --secret partner-key
  davit topic publish orders '{\"sum\": 12}' --type order.created --subject order-7
  davit topic describe orders                      who gets what, and how much waits
  davit topic replay orders --from 2030-01-01T00:00:00Z --subscription billing")]
pub(crate) struct Topic {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a topic
    Create { topic: TopicName },
    /// List the topics
    #[command(visible_alias = "ls")]
    List,
    /// Show a topic: its messages, its subscriptions, and what each has still to deliver
    Describe { topic: TopicName },
    /// Delete a topic and its subscriptions; what was accepted for delivery is delivered
    #[command(visible_alias = "rm")]
    Delete {
        topic: TopicName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Publish a message; when the answer is there, it will be delivered
    Publish(Publish),
    /// Let a function or an address get the messages
    #[command(after_help = "\
Examples:
  davit topic subscribe orders --function billing --filter '{\"type\": [\"order.created\"]}'
  davit topic subscribe orders --name partner --webhook https://example.com/hook --secret partner-key")]
    Subscribe(Box<Subscribe>),
    /// Remove a subscription; what was accepted for delivery is delivered
    Unsubscribe {
        topic: TopicName,
        /// Its name
        subscription: SubscriptionName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Deliver messages that are kept to one subscription once more
    Replay(ReplayArgs),
}

#[derive(Args)]
struct Publish {
    topic: TopicName,
    /// The message's data as JSON, @FILE, or - for standard input [default: {}]
    data: Option<String>,
    /// The event's type, such as order.created
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// What it is about, such as an order's number
    #[arg(long)]
    subject: Option<String>,
    /// Its id: within 24 hours the same source and id are the same event [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Where it comes from, a URI or path [default: the topic's path]
    #[arg(long)]
    source: Option<String>,
}

#[derive(Args)]
struct Subscribe {
    topic: TopicName,
    #[command(flatten)]
    to: To,
    /// The subscription's name [default: the function's]
    #[arg(long, required_unless_present = "function")]
    name: Option<SubscriptionName>,
    /// The secret that requests to the webhook are signed with
    #[arg(long, requires = "webhook")]
    secret: Option<SecretName>,
    /// Send attributes as headers and the data as the body
    #[arg(long, requires = "webhook")]
    binary: bool,
    /// Only messages that match this pattern, as JSON
    #[arg(long, value_name = "JSON")]
    filter: Option<Pattern>,
    /// An attribute: messages in which it is the same are delivered one after the other
    #[arg(long, value_name = "ATTRIBUTE", requires = "function")]
    ordering: Option<String>,
    /// Before or after which others of the namespace: low, normal, high
    #[arg(long, default_value_t = Priority::Normal)]
    priority: Priority,
    /// Attempts in all [default: the function's]
    #[arg(long)]
    max_attempts: Option<u32>,
    /// Call this function with the record of a delivery that failed for good
    #[arg(long, value_name = "FUNCTION")]
    on_failure: Option<FunctionName>,
    /// Change the subscription of that name, if there is one; what it has queued stays
    #[arg(long)]
    replace: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// A function that is called
    #[arg(long)]
    function: Option<FunctionName>,
    /// An address that is sent to
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

#[derive(Args)]
struct ReplayArgs {
    topic: TopicName,
    /// To whom
    #[arg(long)]
    subscription: SubscriptionName,
    /// Messages published at this instant or later, such as 2030-01-01T00:00:00Z
    #[arg(long, value_name = "INSTANT")]
    from: DateTime<Utc>,
    /// Messages published before this instant [default: now]
    #[arg(long, value_name = "INSTANT")]
    to: Option<DateTime<Utc>>,
}

impl Topic {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let (api, as_json) = (globals.api()?, globals.json());
        match self.verb {
            Verb::Create { topic } => {
                let view = api.create_topic(&topic).await?;
                if as_json { json(&view) } else { note(format!("{topic} is there")) }
            }
            Verb::List => list(&api, as_json).await?,
            Verb::Describe { topic } => {
                let detail = api.topic(&topic).await?;
                if as_json { json(&detail) } else { print(&detail) }
            }
            Verb::Delete { topic, yes } => {
                if !yes {
                    let count = api.topic(&topic).await?.subscribers.len();
                    confirm(&format!(
                        "Delete the topic {topic} in namespace {} and its {count} subscriptions?",
                        api.namespace()
                    ))?;
                }
                api.delete_topic(&topic).await?;
                note(format!("{topic} is deleted"));
            }
            Verb::Publish(publish) => publish.run(api.with_gateway().await?, as_json).await?,
            Verb::Subscribe(subscribe) => {
                let topic = subscribe.topic.clone();
                let view = api.subscribe(&topic, &subscribe.body()?).await?;
                if as_json {
                    json(&view)
                } else {
                    note(format!("{} gets what is published to {topic}", view.to))
                }
            }
            Verb::Unsubscribe { topic, subscription, yes } => {
                if !yes {
                    confirm(&format!("Remove the subscription {subscription} of {topic}?"))?;
                }
                api.unsubscribe(&topic, &subscription).await?;
                note(format!("{subscription} is removed"));
            }
            Verb::Replay(replay) => replay.run(&api, as_json).await?,
        }
        Ok(())
    }
}

impl Publish {
    async fn run(self, api: Api, as_json: bool) -> Result<()> {
        let data = given_json(self.data.as_deref())?;
        let query = PublishQuery { kind: self.kind, subject: self.subject, id: self.id, source: self.source };
        let published = api.publish(&self.topic, data, &query).await?;
        if as_json {
            json(&published);
            return Ok(());
        }
        line(published.message_id);
        if published.duplicate {
            note("it was published before, and is not delivered again");
        } else {
            note(format!("{} deliveries", published.deliveries));
        }
        Ok(())
    }
}

impl Subscribe {
    fn body(self) -> Result<NewSubscription> {
        let To { function, webhook } = self.to;
        let name = match (&self.name, &function) {
            (Some(name), _) => name.clone(),
            // Both are labels.
            (None, Some(function)) => {
                function.as_str().parse().map_err(|e| Failure::Usage(format!("{e}")))?
            }
            (None, None) => return Err(Failure::Usage("a webhook's subscription needs a --name".into())),
        };
        let to = match (function, webhook) {
            (Some(function), _) => Subscriber::Function(function),
            (None, url) => {
                let mode = if self.binary { EventMode::Binary } else { EventMode::Structured };
                Subscriber::Webhook(Webhook { url: url.unwrap_or_default(), secret: self.secret, mode })
            }
        };
        let retry = self.max_attempts.map(|n| RetryPolicy { max_attempts: n, ..RetryPolicy::default() });
        let on_failure = self.on_failure.map(Destination::Function);
        let settings = DeliverySettings {
            filter: self.filter,
            retry,
            destinations: Destinations { on_success: None, on_failure },
            ordering: self.ordering,
            priority: self.priority,
        };
        let new = NewSubscription { name, to, settings, replace: self.replace };
        new.check().map_err(|e| Failure::Usage(e.to_string()))?;
        Ok(new)
    }
}

impl ReplayArgs {
    async fn run(self, api: &Api, as_json: bool) -> Result<()> {
        let mut which = Replay { from: self.from, to: self.to, after: None };
        let (mut messages, mut deliveries) = (0_u64, 0_u64);
        loop {
            let done = api.replay(&self.topic, &self.subscription, &which).await?;
            messages += u64::from(done.messages);
            deliveries += u64::from(done.deliveries);
            if done.next.is_none() {
                break;
            }
            (which.to, which.after) = (Some(done.to), done.next);
            note(format!("{messages} messages so far"));
        }
        if as_json {
            json(&serde_json::json!({"messages": messages, "deliveries": deliveries}));
        } else {
            note(format!(
                "{messages} messages, of which {deliveries} are delivered to {} again",
                self.subscription
            ));
        }
        Ok(())
    }
}

async fn list(api: &Api, as_json: bool) -> Result<()> {
    let topics = api.topics().await?;
    if as_json {
        json(&topics);
        return Ok(());
    }
    let mut table = Table::new(&["NAME", "SUBSCRIPTIONS", "CREATED"]);
    for topic in &topics {
        table.row(&[&topic.name, &topic.subscriptions, &when(topic.created_at)]);
    }
    table.print("no topics");
    Ok(())
}

/// A count, or that there are more than are counted.
fn counted(count: u32) -> String {
    if count > COUNTED { format!("> {COUNTED}") } else { count.to_string() }
}

fn print(detail: &TopicDetail) {
    line(format!("topic        {}", detail.topic.name));
    line(format!("created      {}", when(detail.topic.created_at)));
    line(format!("messages     {}", counted(detail.messages)));
    line(format!("last         {}", or_dash(detail.last_published_at.map(when))));
    line("");
    let mut table = Table::new(&["SUBSCRIPTION", "TO", "FROM", "FILTER", "QUEUED", "DEAD"]);
    for one in &detail.subscribers {
        let SubscriptionView { name, to, settings, from_manifest, queued, dead, .. } = one;
        let from = if *from_manifest { "davit.toml" } else { "hand" };
        let filter = or_dash(settings.filter.as_ref());
        table.row(&[name, to, &from, &filter, &counted(*queued), &counted(*dead)]);
    }
    table.print("no subscriptions");
}
