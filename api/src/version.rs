//! Versions and their builds as the API shows them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{AliasShare, Digest, VersionId, VersionSpec};

crate::text::words! {
    /// Where a version is on its way to being callable.
    pub enum VersionState = "a version state" {
        /// Waits for a builder.
        Queued = "queued",
        /// A builder container works on it.
        Building = "building",
        /// Built; a first instance is being started to see whether it answers.
        Starting = "starting",
        /// Callable, and from now on immutable.
        Ready = "ready",
        /// Will never be callable; the error says why.
        Failed = "failed",
    }
}

/// A version as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionView {
    /// Its id.
    pub id: VersionId,
    /// Its number within the function, from 1.
    pub number: u32,
    /// Where it is.
    pub state: VersionState,
    /// Whether the alias `live` leads to it, and its routes and schedules are in force.
    pub live: bool,
    /// The aliases that lead to it, with the calls of a hundred that each gives it.
    #[serde(default)]
    pub aliases: Vec<AliasShare>,
    /// What is new in it, when the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its settings.
    pub spec: VersionSpec,
    /// Digest of the source archive.
    pub source: Digest,
    /// Digest of the built bundle, once built.
    pub bundle: Option<Digest>,
    /// Size of the bundle in bytes, once built.
    pub bundle_size: Option<u64>,
    /// Id of the image that its instances are started from, once it is built: the runtime's as it was then, or the
    /// function's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Git commit of the source, when the client knew it.
    pub git_commit: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it became ready.
    pub ready_at: Option<DateTime<Utc>>,
}

/// One line of a build's log, or a change of its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BuildEvent {
    /// Position; ask for events after it to follow.
    pub cursor: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// The state from here on, when it changed.
    pub state: Option<VersionState>,
    /// A line of output.
    pub line: String,
}
