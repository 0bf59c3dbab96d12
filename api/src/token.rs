//! API tokens and what they may do.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{NamespaceName, TokenId};

/// What a token may do in its namespace. Ordered: each role includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything but secrets' values.
    Read,
    /// And call functions.
    Invoke,
    /// And deploy, roll back, schedule, set secrets, delete.
    Deploy,
    /// And manage tokens and namespaces, read the audit log.
    Admin,
}

impl Role {
    /// The word in the database and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoke => "invoke",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}
impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Read, Self::Invoke, Self::Deploy, Self::Admin]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a role; use read, invoke, deploy or admin"))
    }
}
impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for; shown in lists. 1 to 100 characters.
    pub description: String,
    /// The namespace it is bound to; none means all, which only an unbound admin may give.
    #[serde(default)]
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it stops working; none means never.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token as lists show it: never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// The first characters of the secret, to recognise it by.
    pub prefix: String,
    /// What it is for.
    pub description: String,
    /// The namespace it is bound to.
    pub namespace: Option<NamespaceName>,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to within a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The answer to making a token: the only time the secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenCreated {
    /// The secret, `dvt_` and 43 characters.
    pub token: String,
    /// What lists will show.
    pub view: TokenView,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated").field("view", &self.view).finish_non_exhaustive()
    }
}
