//! Event sources: how events from outside come to functions. The controller takes them, gateways carry them out.

mod postgres;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiError, FunctionName, GatewayId, NamespaceName, SecretName, SourceId, SourceName, limits};

pub use postgres::{ChangeOrder, PostgresSource, TableEvent, TableName};

/// Longest name of a header that a source names, in bytes.
const HEADER_BYTES: usize = 64;

crate::text::words! {
    /// How a webhook's deliveries show who sent them. All but `none` need a secret of the namespace.
    pub enum Verification = "a verification" {
        /// `X-Hub-Signature-256`: HMAC-SHA-256 of the body, as GitHub signs.
        Github = "github",
        /// `Stripe-Signature`: HMAC-SHA-256 of time and body, as Stripe signs.
        Stripe = "stripe",
        /// `webhook-id`, `webhook-timestamp` and `webhook-signature`, as the Standard Webhooks specification has them.
        Standard = "standard",
        /// HMAC-SHA-256 of the body, in hexadecimal digits or base64, in a header of one's choice.
        Hmac = "hmac",
        /// The secret itself, as a bearer token or as the value of a header of one's choice.
        Bearer = "bearer",
        /// Nobody's: whoever knows the address may send.
        None = "none",
    }
}

/// A webhook: somebody outside sends events by HTTP POST to an address of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSource {
    /// How deliveries show who sent them.
    pub verify: Verification,
    /// The secret of the namespace that they are checked with; its value at the time of the delivery counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// With `hmac` and `bearer`: the header that is looked at. `x-signature` and `authorization` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The header with the sender's own id of a delivery, where the verification does not say which one it is. Without
    /// one, the same request within a day is the same delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_header: Option<String>,
    /// With `stripe` and `standard`: how far, in seconds, the sender's time may lie from the gateway's; 1 to 3,600.
    #[serde(default = "five_minutes")]
    pub tolerance_seconds: u32,
}

/// As both schemes that sign a time recommend.
fn five_minutes() -> u32 {
    300
}

/// Where a source's events come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceSpec {
    /// Somebody sends them by HTTP.
    Webhook(WebhookSource),
    /// They are changes of a table, which a gateway fetches.
    Postgres(PostgresSource),
}

impl SourceSpec {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Postgres(_) => "postgres",
        }
    }

    /// The secret that it uses.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            Self::Webhook(webhook) => webhook.secret.as_ref(),
            Self::Postgres(postgres) => Some(&postgres.secret),
        }
    }

    /// Whether a gateway fetches its events, instead of being sent them.
    pub fn is_fetched(&self) -> bool {
        match self {
            Self::Webhook(_) => false,
            Self::Postgres(_) => true,
        }
    }

    /// Refuses settings that contradict each other; the sentence names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::Webhook(webhook) => webhook.check(),
            Self::Postgres(postgres) => postgres.check(),
        }
    }
}

impl WebhookSource {
    /// A webhook with nothing out of the ordinary.
    pub fn new(verify: Verification, secret: Option<SecretName>) -> Self {
        Self { verify, secret, header: None, delivery_header: None, tolerance_seconds: five_minutes() }
    }

    /// The header that is looked at, where that can be chosen.
    pub fn header(&self) -> Option<&str> {
        match self.verify {
            Verification::Hmac => Some(self.header.as_deref().unwrap_or("x-signature")),
            Verification::Bearer => Some(self.header.as_deref().unwrap_or("authorization")),
            _ => None,
        }
    }

    fn check(&self) -> Result<(), ApiError> {
        use Verification::{Bearer, Hmac, None, Standard, Stripe};
        let verify = self.verify;
        match (verify, &self.secret) {
            (None, Some(_)) => {
                return Err(ApiError::field("secret", "verify = none checks nothing, so it needs no secret"));
            }
            (None, _) | (_, Some(_)) => {}
            _ => return Err(ApiError::field("secret", format!("verify = {verify} needs one"))),
        }
        if self.header.is_some() && !matches!(verify, Hmac | Bearer) {
            return Err(ApiError::field("header", "only verify = hmac and bearer let it be chosen"));
        }
        if self.delivery_header.is_some() && !matches!(verify, Hmac | Bearer | None) {
            return Err(ApiError::field(
                "delivery_header",
                format!("verify = {verify} says itself which one it is"),
            ));
        }
        if self.tolerance_seconds != five_minutes() && !matches!(verify, Stripe | Standard) {
            return Err(ApiError::field(
                "tolerance_seconds",
                "only verify = stripe and standard sign a time",
            ));
        }
        if !limits::TOLERANCE_SECONDS.contains(&self.tolerance_seconds) {
            let (least, most) = (limits::TOLERANCE_SECONDS.start(), limits::TOLERANCE_SECONDS.end());
            return Err(ApiError::field("tolerance_seconds", format!("must be {least} to {most}")));
        }
        check_header("header", self.header.as_deref())?;
        check_header("delivery_header", self.delivery_header.as_deref())
    }
}

fn check_header(field: &str, name: Option<&str>) -> Result<(), ApiError> {
    let fine = |name: &str| {
        (1..=HEADER_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    match name {
        Some(name) if !fine(name) => Err(ApiError::field(
            field,
            format!(
                "a header's name has 1 to {HEADER_BYTES} lower-case letters, digits, hyphens and underscores"
            ),
        )),
        _ => Ok(()),
    }
}

/// A source to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSource {
    /// Its name, unique within the namespace.
    pub name: SourceName,
    /// The function that gets its events.
    pub function: FunctionName,
    /// Where they come from.
    pub spec: SourceSpec,
    /// Whether it is paused from the beginning.
    #[serde(default)]
    pub paused: bool,
}

/// A source as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceView {
    /// Its id.
    pub id: SourceId,
    /// Its name.
    pub name: SourceName,
    /// The function that gets its events.
    pub function: FunctionName,
    /// Where they come from.
    pub spec: SourceSpec,
    /// Whether it takes nothing for now.
    pub paused: bool,
    /// Where on the gateway its deliveries are taken; none for what is fetched.
    pub path: Option<String>,
    /// How it is getting on, where a gateway fetches its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SourceStatus>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

crate::text::words! {
    /// What a source whose events are fetched is doing.
    pub enum SourceState = "a state of a source" {
        /// Nothing until it is resumed; its events gather where they are.
        Paused = "paused",
        /// No gateway has taken it over yet.
        Unheld = "unheld",
        /// A gateway fetches its events.
        Active = "active",
        /// Nothing is fetched because too many calls of the function have not ended.
        HeldBack = "held_back",
        /// It cannot be reached or read, and is tried again; the last error says why.
        Failing = "failing",
    }
}

/// How a source whose events are fetched is getting on, as its gateway last noted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceStatus {
    /// What it is doing.
    pub state: SourceState,
    /// The gateway that fetches; none while nobody does.
    pub gateway: Option<GatewayId>,
    /// Events that were handed to the queue since it was made.
    pub delivered: u64,
    /// When the last of them was.
    pub last_event_at: Option<DateTime<Utc>>,
    /// How old, in seconds, the oldest event was that the last look found; 0 when it found none.
    pub lag_seconds: Option<f64>,
    /// What last went wrong.
    pub last_error: Option<String>,
    /// When it did.
    pub last_error_at: Option<DateTime<Utc>>,
}

/// The statements with which a source's part of somebody's own database is put there and taken away, for whoever
/// looks after that database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SourceSql {
    /// Puts it there; does nothing where it is there already.
    pub install: String,
    /// Takes it away, and what was not fetched with it.
    pub remove: String,
}

impl SourceSpec {
    /// Where on the gateway deliveries are taken. Below `/v1`, which no namespace and no route of a function can be.
    pub fn path(&self, namespace: &NamespaceName, name: &SourceName) -> Option<String> {
        match self {
            Self::Webhook(_) => Some(format!("/v1/namespaces/{namespace}/sources/{name}/hook")),
            Self::Postgres(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut WebhookSource), verify: Verification) -> Result<(), String> {
        let secret = (verify != Verification::None).then(|| "s".parse().unwrap());
        let mut webhook = WebhookSource::new(verify, secret);
        change(&mut webhook);
        SourceSpec::Webhook(webhook).check().map_err(|e| e.message)
    }

    #[test]
    fn settings_that_would_be_ignored_are_refused_by_name() {
        for verify in Verification::ALL {
            assert_eq!(checked(|_| {}, *verify), Ok(()), "{verify}");
        }
        type Change = fn(&mut WebhookSource);
        let refused: [(Verification, Change, &str); 8] = [
            (Verification::Github, |w| w.secret = None, "secret: verify = github needs one"),
            (Verification::None, |w| w.secret = Some("s".parse().unwrap()), "secret: "),
            (Verification::Github, |w| w.header = Some("x".into()), "header: only"),
            (Verification::Standard, |w| w.delivery_header = Some("x".into()), "delivery_header: "),
            (Verification::Hmac, |w| w.header = Some("X Y".into()), "header: a header's name"),
            (
                Verification::Bearer,
                |w| w.delivery_header = Some(String::new()),
                "delivery_header: a header's name",
            ),
            (Verification::Hmac, |w| w.tolerance_seconds = 10, "tolerance_seconds: only"),
            (Verification::Stripe, |w| w.tolerance_seconds = 3_601, "tolerance_seconds: must be 1 to 3600"),
        ];
        for (verify, change, why) in refused {
            let message = checked(change, verify).unwrap_err();
            assert!(message.starts_with(why), "{message}");
        }
    }

    #[test]
    fn its_json_says_the_kind_and_takes_no_unknown_field() {
        let text = r#"{"kind":"webhook","verify":"github","secret":"s"}"#;
        let spec: SourceSpec = serde_json::from_str(text).unwrap();
        assert_eq!(
            spec,
            SourceSpec::Webhook(WebhookSource::new(Verification::Github, Some("s".parse().unwrap())))
        );
        for bad in [
            r#"{"kind":"webhook","verify":"github","secrets":"s"}"#,
            r#"{"kind":"kafka"}"#,
            r#"{"verify":"none"}"#,
        ] {
            assert!(serde_json::from_str::<SourceSpec>(bad).is_err(), "{bad}");
        }
    }
}
