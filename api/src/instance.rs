//! Instances: one container each, generic until it is given one version, destroyed after it.

use serde::{Deserialize, Serialize};

use crate::{RuntimeName, VersionSpec, limits};

crate::text::words! {
    /// What an instance can reach.
    #[derive(PartialOrd, Ord, Default, schemars::JsonSchema)]
    pub enum NetworkClass = "a network" {
        /// The outside world, but no other container and nothing on the host.
        #[default]
        Egress = "egress",
        /// Nothing at all.
        None = "none",
    }
}

/// Everything that must be equal for a waiting instance to fit a version. Two versions with one key draw
/// from one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolKey {
    /// The image that the container runs: [`RuntimeName::pinned_image`](crate::RuntimeName::pinned_image), or the id of a function's own one.
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
    /// The key of a version's instances. `pinned` is the id of the image that its build has settled on.
    pub fn of(spec: &VersionSpec, pinned: &str) -> Self {
        Self {
            image: match spec.runtime.is_own_image() {
                true => pinned.to_owned(),
                false => spec.runtime.pinned_image(pinned),
            },
            memory_mb: spec.memory_mb,
            cpu_millis: spec.cpu_millis,
            ephemeral_mb: spec.ephemeral_mb,
            network: spec.network,
        }
    }

    /// Whether the image is a function's own: known by its id, or in a cluster by its registry, repository and digest.
    /// Runtime images have their runtime's name, which no registry's is.
    pub fn is_own_image(&self) -> bool {
        self.image.starts_with("sha256:")
            || (self.image.contains("@sha256:") && RuntimeName::split_pinned(&self.image).is_none())
    }

    /// Whether the other one is another kind that differs in nothing but memory and CPU.
    pub fn is_other_size_of(&self, other: &Self) -> bool {
        let sized = Self { memory_mb: other.memory_mb, cpu_millis: other.cpu_millis, ..self.clone() };
        sized == *other && self != other
    }

    /// The largest memory file system that such an instance has, in MiB.
    pub fn largest_volume_mb(&self) -> u32 {
        // An image of a function's own has its code inside.
        let task_mb = if self.is_own_image() { 0 } else { limits::TASK_MB };
        self.ephemeral_mb.max(task_mb)
    }
}

crate::text::words! {
    /// Where an instance is in its life. It only moves forward through this list, except between `active` and
    /// `frozen`.
    pub enum InstanceState = "an instance state" {
        /// The controller is creating its container.
        Starting = "starting",
        /// Waits in its gateway's pool for a version.
        Pooled = "pooled",
        /// Has a version, and is working or ready to.
        Active = "active",
        /// Has a version, is idle, and its processes are stopped.
        Frozen = "frozen",
        /// Its gateway is done with it; the controller removes the container.
        Released = "released",
        /// The container is gone.
        Removed = "removed",
    }
}
