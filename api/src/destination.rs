//! Where the outcome of an asynchronous invocation is sent on to.

use serde::{Deserialize, Serialize};

use crate::{FunctionName, SecretName, TopicName};

/// Longest address of a webhook, in bytes.
const URL_BYTES: usize = 2_048;

/// How a CloudEvent lies in a request.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EventMode {
    /// As JSON, attributes and data together.
    #[default]
    Structured,
    /// Attributes as `ce-` headers, which a signature does not cover, and the data as the body.
    Binary,
}

fn is_structured(mode: &EventMode) -> bool {
    *mode == EventMode::Structured
}

/// An address outside that is sent events by HTTP POST.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://…`, or `http://…`; without user name, password or fragment.
    pub url: String,
    /// The secret of the namespace that requests are signed with; without it they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretName>,
    /// How CloudEvents are sent: `structured` (the default) or `binary`. Other events are JSON in any case.
    #[serde(default, skip_serializing_if = "is_structured")]
    pub mode: EventMode,
}

impl Webhook {
    /// Checks the address's form; where it may lead to is decided when it is used, because names move.
    pub fn check(&self) -> Result<(), String> {
        let url = &self.url;
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .ok_or("a webhook's url starts with https:// or http://")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.is_empty() || authority.starts_with(':') {
            return Err("a webhook's url names a host".into());
        }
        if authority.contains('@') {
            return Err("a webhook's url holds no user name or password; sign with a secret instead".into());
        }
        if url.len() > URL_BYTES || url.contains('#') || !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!(
                "a webhook's url is at most {URL_BYTES} printable ASCII characters, without spaces or fragment"
            ));
        }
        Ok(())
    }
}

/// One place to send an outcome to.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// Another function of the namespace, called with the record as its event.
    Function(#[schemars(with = "String")] FunctionName),
    /// An address outside.
    Webhook(Webhook),
    /// A topic of the namespace, to which the record is published as a CloudEvent.
    Topic(#[schemars(with = "String")] TopicName),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function(name) => write!(f, "function {name}"),
            Self::Webhook(hook) => write!(f, "webhook {}", hook.url),
            Self::Topic(name) => write!(f, "topic {name}"),
        }
    }
}

/// Where a function's asynchronous outcomes go. Stamped on the invocation when it is accepted.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Destinations {
    /// Of those that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// Of those that are dead: attempts or age were used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
}

impl Destinations {
    /// Whether nothing is sent anywhere.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without looking anything up.
    pub fn check(&self) -> Result<(), String> {
        [&self.on_success, &self.on_failure].into_iter().flatten().try_for_each(|one| match one {
            Destination::Webhook(hook) => hook.check(),
            Destination::Function(_) | Destination::Topic(_) => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhooks_address_is_checked_before_it_is_kept() {
        let check = |url: &str| Webhook { url: url.into(), secret: None, mode: EventMode::default() }.check();
        for good in ["https://example.com/hook?x=1", "http://[2001:db8::1]:8080/", "https://a"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("https://a/{}", "x".repeat(URL_BYTES));
        for bad in [
            "",
            "ftp://a/",
            "https://",
            "https:///x",
            "https://u:p@a/",
            "https://a/#f",
            "https://a b/",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destinations_are_written_by_their_kind() {
        let text = r#"{"on_success":{"function":"next"},"on_failure":{"webhook":{"url":"https://a/b"}}}"#;
        let read: Destinations = serde_json::from_str(text).unwrap();
        assert_eq!(read.on_success.as_ref().unwrap().to_string(), "function next");
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
