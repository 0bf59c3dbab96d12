//! Functions as the API shows them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Access, AliasView, CanaryView, FunctionId, FunctionKind, FunctionName, FunctionUsage, NamespaceName,
    RouteSpec, RuntimeName, ScheduleView, VersionView,
};

/// Instances of a function by state; all zero is a normal condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InstanceCounts {
    /// Working, or about to.
    pub active: u32,
    /// Idle with their processes stopped.
    pub frozen: u32,
}

/// One line of `davit list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FunctionSummary {
    /// Its id.
    pub id: FunctionId,
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: FunctionName,
    /// Runtime of the live version.
    pub runtime: Option<RuntimeName>,
    /// Kind of the live version.
    pub kind: Option<FunctionKind>,
    /// Who may call it.
    pub access: Option<Access>,
    /// Number of the live version; none before the first one is ready.
    pub live_version: Option<u32>,
    /// Its instances now.
    pub instances: InstanceCounts,
    /// Its counters.
    pub usage: FunctionUsage,
    /// When it was first deployed.
    pub created_at: DateTime<Utc>,
}

/// Everything about a function: what `davit describe` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FunctionDetail {
    /// The line that lists show.
    pub summary: FunctionSummary,
    /// The live version.
    pub live: Option<VersionView>,
    /// The newest version, when it is not the live one.
    pub latest: Option<VersionView>,
    /// Routes in force.
    pub routes: Vec<RouteSpec>,
    /// Its aliases.
    #[serde(default)]
    pub aliases: Vec<AliasView>,
    /// The canary that runs, or the last one that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// Its schedules.
    pub schedules: Vec<ScheduleView>,
    /// Why instances of the live version cannot be started at present, as the container engine or cluster says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}
