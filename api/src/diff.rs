//! What is different between two versions of a function.

use serde::{Deserialize, Serialize};

/// A setting that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// Its path, such as `memory_mb`, `env.STAGE` or `routes[GET /orders]`.
    pub setting: String,
    /// As it was; none where there was none. Of environment variables the value is not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// As it is; none where there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// A file that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FileChange {
    /// Its path.
    pub path: String,
    /// Its size before, in bytes; none for a new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_bytes: Option<u64>,
    /// Its size after; none for one that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_bytes: Option<u64>,
    /// The lines that differ, as a unified diff, when it was asked for and the file is text of at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// Everything that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionDiff {
    /// The older one's number.
    pub from: u32,
    /// The newer one's number.
    pub to: u32,
    /// Settings, names of environment variables, routes, schedules and subscriptions.
    pub settings: Vec<Change>,
    /// Files of the source, by path.
    pub files: Vec<FileChange>,
    /// Whether there are more files, or longer diffs, than are shown.
    pub cut: bool,
}
