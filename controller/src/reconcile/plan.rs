//! Pure: what is wanted against what is there. Everything it needs to know, time included, is in its
//! argument, so each rule has a test and no engine. `reconcile::look` calls [`plan`] with what it read.

mod ask;
mod grow;
mod hold;
mod judge;
mod ledger;
mod resize;
mod shrink;
mod turns;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use davit_api::{GatewayId, InstanceId, InstanceState, PoolKey};

use crate::backend::{ContainerId, ImageId, Observed};

pub use resize::Resize;
pub use turns::Turns;

/// Whose and of which class: what a pool, a wish and a waiting call are counted by.
pub type Slot = (GatewayId, PoolKey);

/// Everything the plan looks at, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Gateways that hold their lease, or lost it so recently that they may come back.
    pub gateways: Vec<Gateway>,
    /// Every row that is not `removed`.
    pub instances: Vec<Instance>,
    /// Calls that wait, by gateway and key; stale reports left out.
    pub waiting: BTreeMap<Slot, u32>,
    /// How many generic instances should wait, from the pool's plan.
    pub standing: BTreeMap<Slot, u32>,
    /// Containers of this installation.
    pub containers: Vec<Observed>,
    /// What each key's image name means today; a key without an entry cannot be started.
    pub images: HashMap<String, ImageId>,
    /// Instances whose start runs in this process.
    pub starting_here: HashSet<InstanceId>,
    /// Containers whose removal runs in this process.
    pub removing_here: HashSet<ContainerId>,
    /// Instances that this process is giving another size.
    pub resizing_here: HashSet<InstanceId>,
    /// Whose turn it is among those that calls wait for, from the last look's plan.
    pub turns: Turns,
    /// Instances that had no container at the last look either.
    pub missing_before: HashSet<InstanceId>,
    /// Builders and smoke starts that this process runs.
    pub own_errands: HashSet<InstanceId>,
    /// Gateways that were asked for memory a moment ago.
    pub asked_lately: HashSet<GatewayId>,
    /// Bounds of the host.
    pub bounds: Bounds,
}

/// Bounds of all instances together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Memory of all instances, in MiB.
    pub memory_mb: u64,
    /// Number of instances.
    pub instances: usize,
    /// Starts at a time: each keeps a core busy, and more at a time only make each later.
    pub starts: usize,
    /// Removals at a time, while no call waits.
    pub removals: usize,
}

/// A gateway as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Which.
    pub id: GatewayId,
    /// Whether it holds its lease.
    pub alive: bool,
    /// Lapsed for long enough, at several looks, that its instances are nobody's.
    pub lost: bool,
}

/// An instance's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// Whose.
    pub gateway: GatewayId,
    /// Its class.
    pub key: PoolKey,
    /// The other size that its gateway wishes for, and holds it back for.
    pub wish: Option<Wish>,
    /// What its image's name meant when it started.
    pub image: ImageId,
    /// Where in its life.
    pub state: InstanceState,
    /// Since it was decided on.
    pub age: Duration,
    /// Since it got into this state.
    pub in_state: Duration,
}

/// What a waiting instance shall become instead of one's being started.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// The kind; it differs in memory and CPU alone.
    pub key: PoolKey,
    /// Whether its container may have the size already.
    pub begun: bool,
    /// Whether the engine changes sizes, and has not failed at this one a while ago.
    pub may: bool,
    /// Since it was wished for.
    pub age: Duration,
}

impl Instance {
    /// The kind that it is, or is about to be.
    fn kind(&self) -> &PoolKey {
        self.wish.as_ref().map_or(&self.key, |wish| &wish.key)
    }

    /// What it counts for, in MiB: its container may have either size.
    fn memory_mb(&self) -> u64 {
        u64::from(self.key.memory_mb.max(self.kind().memory_mb))
    }

    /// It waits for a call, and its gateway may give it to one at any moment.
    fn waits(&self) -> bool {
        self.state == InstanceState::Pooled && self.wish.is_none()
    }
}

/// Why something is removed; also what the closed row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its gateway is done with it.
    Released,
    /// Its process ended; the engine's sentence.
    Died(String),
    /// No row knows it.
    Unknown,
    /// Its gateway is gone.
    GatewayLost,
    /// It never became ready.
    NeverReady,
    /// More wait than are needed.
    Surplus,
    /// Its image has been replaced.
    OldImage,
    /// A call waits for the room it takes, and none waits for its like.
    Evicted,
    /// It has a row and no container.
    Vanished,
    /// It was to get another size, and nobody knows which it has now; why.
    SizeUnknown(String),
    /// What a build or first start left behind.
    Leftover,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Released => f.write_str("released by its gateway"),
            Self::Died(status) => write!(f, "ended by itself: {status}"),
            Self::Unknown => f.write_str("no row knows this container"),
            Self::GatewayLost => f.write_str("its gateway is gone"),
            Self::NeverReady => f.write_str("did not become ready"),
            Self::Surplus => f.write_str("more were waiting than needed"),
            Self::OldImage => f.write_str("its image was replaced"),
            Self::Evicted => f.write_str("a waiting call needed its room"),
            Self::Vanished => f.write_str("its container is gone"),
            Self::SizeUnknown(why) => write!(f, "could not be given another size: {why}"),
            Self::Leftover => f.write_str("left behind by a build or a first start"),
        }
    }
}

/// A container to remove, and the row to close with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// What to remove.
    pub container: ContainerId,
    /// Whose directory goes with it.
    pub instance: Option<InstanceId>,
    /// Whether a row is to be closed.
    pub has_row: bool,
    /// Why.
    pub reason: Reason,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Containers to remove.
    pub remove: Vec<Removal>,
    /// Rows to close that have no container.
    pub close: Vec<(InstanceId, Reason)>,
    /// Instances to watch until they are ready, whose start this process did not do.
    pub watch: Vec<(InstanceId, ContainerId)>,
    /// Instances to give another size.
    pub resize: Vec<Resize>,
    /// Instances that keep theirs, though another one is wished for.
    pub decline: Vec<InstanceId>,
    /// Instances to start now; those that calls wait for come first.
    pub start: Vec<(GatewayId, PoolKey, ImageId)>,
    /// Gateways to ask for memory, and for how much, in MiB.
    pub ask: BTreeMap<GatewayId, u64>,
    /// Gateways to forget.
    pub forget: Vec<GatewayId>,
    /// Rows without a container, to be compared at the next look.
    pub missing: HashSet<InstanceId>,
    /// Whose turn it is after these starts; the next look begins with it.
    pub turns: Turns,
    /// Calls that wait for something this host has no image or no room for.
    pub unmet: u32,
    /// Calls whose start waits until another has ended.
    pub queued: u32,
}

/// The difference.
pub fn plan(world: &World) -> Plan {
    let mut plan = Plan::default();
    let mut doomed = HashSet::new();
    let rows: HashMap<InstanceId, &Instance> = world.instances.iter().map(|i| (i.id, i)).collect();
    for container in &world.containers {
        judge::container(world, &rows, container, &mut doomed, &mut plan);
    }
    judge::rows(world, &mut doomed, &mut plan);
    let settled = resize::settle(world, &doomed, &mut plan);
    let world = settled.as_ref().unwrap_or(world);
    shrink::shrink(world, &mut doomed, &mut plan);
    grow::grow(world, &mut doomed, &mut plan);
    hold::hold_back(world, &mut plan);
    for gateway in world.gateways.iter().filter(|g| g.lost) {
        if !world.instances.iter().any(|i| i.gateway == gateway.id && !doomed.contains(&i.id)) {
            plan.forget.push(gateway.id);
        }
    }
    plan
}

fn slot(row: &Instance) -> Slot {
    (row.gateway, row.kind().clone())
}

fn goal(world: &World, slot: &Slot) -> usize {
    let of = |map: &BTreeMap<Slot, u32>| map.get(slot).copied().unwrap_or(0) as usize;
    of(&world.standing) + of(&world.waiting)
}

fn current(world: &World, row: &Instance) -> bool {
    world.images.get(&row.key.image).is_none_or(|image| *image == row.image)
}

/// The removal of an instance that waits, when its container is there.
fn removal(world: &World, row: &Instance, reason: Reason) -> Option<Removal> {
    let container = world.containers.iter().find(|c| c.instance == Some(row.id))?.container.clone();
    Some(Removal { container, instance: Some(row.id), has_row: true, reason })
}

#[cfg(test)]
mod tests;
