//! Bodies of the management API that are not a stored thing themselves: what a client sends, and lists that
//! only operators see.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    AliasName, ApiError, CanarySpec, Digest, FunctionName, GatewayId, InstanceId, InstanceState,
    InvocationId, NamespaceName, PoolKey, Qualifier, RequestId, ScheduleName, ScheduleSpec, SecretName,
    TokenId, VersionId, VersionSpec, VersionView, VersionWeight, alias, limits,
};

/// Where a client finds the rest of this installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Info {
    /// Version of the answering davit.
    pub version: String,
    /// Where functions are called.
    pub gateway_url: String,
    /// The caller's namespace; none means all.
    pub namespace: Option<NamespaceName>,
}

/// A namespace to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNamespace {
    /// Its name.
    pub name: NamespaceName,
}

/// A version to build, from a source archive that was uploaded before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersion {
    /// How it runs.
    pub spec: VersionSpec,
    /// Digest of the uploaded source archive.
    pub source: Digest,
    /// Git commit of the source, when the client knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_commit: Option<String>,
    /// Schedules that come and go with the version.
    #[serde(default)]
    pub schedules: BTreeMap<ScheduleName, ScheduleSpec>,
    /// What is new in it, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is to happen when it is ready.
    #[serde(default)]
    pub rollout: Rollout,
}

impl NewVersion {
    /// A version of this source that goes live, with nothing said about it.
    pub fn of(spec: VersionSpec, source: Digest) -> Self {
        Self {
            spec,
            source,
            git_commit: None,
            schedules: BTreeMap::new(),
            description: None,
            rollout: Rollout::Live,
        }
    }

    /// Checks what is said about the version, not how it runs; the error names the field.
    pub fn check_words(&self) -> Result<(), ApiError> {
        alias::check_description(self.description.as_deref())?;
        if self.git_commit.as_ref().is_some_and(|c| c.chars().count() > 200 || c.contains(char::is_control)) {
            let text = "at most 200 characters, none of them control characters";
            return Err(ApiError::field("git_commit", text));
        }
        self.rollout.check()
    }
}

/// What happens to a version when it is ready.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rollout {
    /// It goes live.
    #[default]
    Live,
    /// Nothing: it waits for a promotion.
    Hold,
    /// This alias leads to it, and is made if there is none of that name.
    Alias(AliasName),
    /// It goes live in steps.
    Canary(CanarySpec),
}

impl Rollout {
    /// Checks its settings; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::Canary(spec) => {
                spec.check().map_err(|e| ApiError::new(e.code, format!("rollout.canary.{}", e.message)))
            }
            Self::Alias(name) if name.as_str() == alias::LIVE => {
                Err(ApiError::field("rollout.alias", "live is where versions go without this"))
            }
            Self::Alias(name) => alias::check_alias_name(name),
            Self::Live | Self::Hold => Ok(()),
        }
    }
}

/// A deployment that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionAccepted {
    /// Whether a ready version has the same content and configuration already: this is that one, and nothing is built.
    #[serde(default)]
    pub unchanged: bool,
    /// The version.
    #[serde(flatten)]
    pub version: VersionView,
}

/// Which version is to go live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// Its number, or an alias that leads to it and to no other.
    #[schema(value_type = String, example = "7")]
    pub version: Qualifier,
    /// In steps; at once without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySpec>,
}

/// How many of a function's versions are kept. What is left out is asked of the next one: the function, its namespace,
/// the installation. A version that is in use is kept in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionPolicy {
    /// The newest ready versions, 1 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<u32>,
    /// All that are younger than so many days, 0 to 3,650.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
}

impl RetentionPolicy {
    /// Checks every bound; the error names the field.
    pub fn check(&self) -> Result<(), ApiError> {
        for (field, value, range) in
            [("versions", self.versions, limits::KEEP_VERSIONS), ("days", self.days, limits::KEEP_DAYS)]
        {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let text = format!("{} to {}, not {value}", range.start(), range.end());
                return Err(ApiError::field(field, text));
            }
        }
        Ok(())
    }
}

/// A retention policy, and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RetentionView {
    /// What was set here.
    pub own: RetentionPolicy,
    /// The newest ready versions that are kept.
    pub versions: u32,
    /// Days for which all are kept.
    pub days: u32,
}

/// What became of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ArtifactAccepted {
    /// Under which versions refer to it.
    pub digest: Digest,
    /// Files in it.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// How much of an archive is here whose upload broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ArtifactReceived {
    /// Bytes, from its beginning.
    pub received: u64,
}

/// Which version shall answer again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Its number; without it, the newest ready one before the live one.
    #[serde(default)]
    pub to: Option<u32>,
}

/// A schedule to add by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// Its name, unique within the function.
    pub name: ScheduleName,
    /// Its settings.
    pub spec: ScheduleSpec,
}

/// A schedule's timing to look at: the fields of a schedule that say when it comes due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRequest {
    /// Five cron fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A steady interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// One moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// IANA time zone; UTC without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// No instant before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// No instant after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Width of the window over which instants are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// How many instants, 1 to 100; 5 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl PreviewRequest {
    /// The schedule that has this timing.
    pub fn spec(&self) -> ScheduleSpec {
        let base = ScheduleSpec::default();
        ScheduleSpec {
            cron: self.cron.clone(),
            every: self.every.clone(),
            at: self.at.clone(),
            timezone: self.timezone.clone().unwrap_or(base.timezone),
            start: self.start.clone(),
            end: self.end.clone(),
            jitter: self.jitter.clone(),
            ..ScheduleSpec::default()
        }
    }
}

/// When a schedule would come due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Preview {
    /// The next instants, in order.
    pub fires: Vec<DateTime<Utc>>,
    /// The same, as the time zone's clock shows them.
    pub instants: Vec<PreviewInstant>,
}

/// An instant of a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PreviewInstant {
    /// The instant.
    pub due_at: DateTime<Utc>,
    /// By the time zone's clock, with its offset from UTC.
    pub local: String,
    /// The abbreviation of the offset, such as `CEST`.
    pub abbreviation: String,
    /// What the clocks do at it or did since the one before, where they do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<String>,
    /// With jitter: it rings before this moment, at one that depends on the schedule's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rings_before: Option<DateTime<Utc>>,
}

/// What a gateway serves for a function at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveView {
    /// Number of the version whose routes and schedules are in force.
    pub version: u32,
    /// The versions that calls go to, where there are several, with their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionWeight>,
}

/// A secret's value. It is never shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretValue {
    /// At most 64 KiB of text.
    pub value: String,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// A secret as lists show it: never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretView {
    /// Its name.
    pub name: SecretName,
    /// When it was first set.
    pub created_at: DateTime<Utc>,
    /// When it was last set.
    pub updated_at: DateTime<Utc>,
}

/// An instance as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// The gateway that owns it.
    pub gateway: GatewayId,
    /// What it was started as.
    pub pool: PoolKey,
    /// Where it is in its life.
    pub state: InstanceState,
    /// The version it serves, once it has one.
    pub version_id: Option<VersionId>,
}

/// One entry of the audit log: who tried to change what, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditView {
    /// Position; ask for entries before it to go back in time.
    pub cursor: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The request, as in the access log.
    pub request_id: Option<RequestId>,
    /// With which token.
    pub token_id: Option<TokenId>,
    /// The token's description at that time, or `davit` itself.
    pub actor: String,
    /// In which namespace, when it was in one.
    pub namespace: Option<NamespaceName>,
    /// What was tried, such as `versions.create`.
    pub action: String,
    /// On what.
    pub object: String,
    /// `ok`, or the code of the error.
    pub outcome: String,
}

/// Which dead letters are meant; without any part, all of the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetters {
    /// Those of this function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
}

/// How many dead letters were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Purged {
    /// In this call.
    pub purged: u64,
}

/// What of a function's asynchronous work has not ended, and its dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QueueView {
    /// The function; none for what is sent to webhooks.
    pub function: Option<FunctionName>,
    /// Due and waiting for a gateway.
    pub due: u64,
    /// Since when the oldest of these is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// Waiting for a later time: put off, or between two attempts.
    pub delayed: u64,
    /// Waiting for an earlier one of the same ordering key.
    pub behind: u64,
    /// Running.
    pub running: u64,
    /// Dead letters that were not redriven.
    pub dead: u64,
}
