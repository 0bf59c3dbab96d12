//! API tokens and what they may do.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{NamespaceName, TokenId};

crate::text::words! {
    /// What a token may do in its namespace. Ordered: each role includes those before it.
    #[derive(PartialOrd, Ord)]
    pub enum Role = "a role" {
        /// Look at everything but secrets' values.
        Read = "read",
        /// And call functions.
        Invoke = "invoke",
        /// And deploy, roll back, schedule, set secrets, delete.
        Deploy = "deploy",
        /// And manage tokens and namespaces, read the audit log.
        Admin = "admin",
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
