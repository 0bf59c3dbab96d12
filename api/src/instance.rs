//! Instances: one container each, generic until it is given one version, destroyed after it.

use serde::{Deserialize, Serialize};

use crate::VersionSpec;

/// What an instance can reach.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NetworkClass {
    /// The outside world, but no other container and nothing on the host.
    #[default]
    Egress,
    /// Nothing at all.
    None,
}

/// Everything that must be equal for a waiting instance to fit a version. Two versions with one key draw
/// from one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolKey {
    /// Image reference or id that the container runs.
    pub image: String,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// CPU limit in thousandths of a core.
    pub cpu_millis: u32,
    /// Size of /tmp in MiB.
    pub ephemeral_mb: u32,
    /// What it can reach.
    pub network: NetworkClass,
}

impl PoolKey {
    /// The key of a version's instances.
    pub fn of(spec: &VersionSpec) -> Self {
        Self {
            image: spec.runtime.image(),
            memory_mb: spec.memory_mb,
            cpu_millis: spec.cpu_millis,
            ephemeral_mb: spec.ephemeral_mb,
            network: spec.network,
        }
    }
}

/// Where an instance is in its life. It only moves forward through this list, except between `active` and
/// `frozen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// The controller is creating its container.
    Starting,
    /// Waits in its gateway's pool for a version.
    Pooled,
    /// Has a version, and is working or ready to.
    Active,
    /// Has a version, is idle, and its processes are stopped.
    Frozen,
    /// Its gateway is done with it; the controller removes the container.
    Released,
    /// The container is gone.
    Removed,
}

impl InstanceState {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Pooled => "pooled",
            Self::Active => "active",
            Self::Frozen => "frozen",
            Self::Released => "released",
            Self::Removed => "removed",
        }
    }
    /// Every state, in order.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Pooled, Self::Active, Self::Frozen, Self::Released, Self::Removed];
}
impl std::str::FromStr for InstanceState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| format!("unknown instance state {text:?}"))
    }
}
