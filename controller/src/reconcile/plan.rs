//! Pure: what is wanted against what is there. Everything it needs to know, time included, is in its
//! argument, so each rule below has a test and no engine.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use davit_api::{GatewayId, InstanceId, InstanceState, PoolKey};

use crate::backend::{ContainerId, ImageId, Observed, Role};

/// A start that has come to nothing for so long will not come.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A pool shrinks slower than it grows: what waits now may be claimed in a moment.
const SHRINK_AFTER: Duration = Duration::from_secs(60);

/// Everything the plan looks at, as of one moment.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Gateways that hold their lease, or lost it so recently that they may come back.
    pub gateways: Vec<Gateway>,
    /// Every row that is not `removed`.
    pub instances: Vec<Instance>,
    /// Calls that wait, by gateway and key; stale reports left out.
    pub waiting: BTreeMap<(GatewayId, PoolKey), u32>,
    /// How many generic instances should wait, from the pool's plan.
    pub standing: BTreeMap<(GatewayId, PoolKey), u32>,
    /// Containers of this installation.
    pub containers: Vec<Observed>,
    /// What each key's image name means today; a key without an entry cannot be started.
    pub images: HashMap<String, ImageId>,
    /// Instances whose start runs in this process.
    pub starting_here: HashSet<InstanceId>,
    /// Instances that had no container at the last look either.
    pub missing_before: HashSet<InstanceId>,
    /// Builders and smoke starts that this process runs.
    pub own_errands: HashSet<InstanceId>,
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
    /// What its image's name meant when it started.
    pub image: ImageId,
    /// Where in its life.
    pub state: InstanceState,
    /// Since it was decided on.
    pub age: Duration,
    /// Since it got into this state.
    pub in_state: Duration,
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
    /// It has a row and no container.
    Vanished,
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
            Self::Vanished => f.write_str("its container is gone"),
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
    /// Instances to start; those that calls wait for come first.
    pub start: Vec<(GatewayId, PoolKey, ImageId)>,
    /// Gateways to forget.
    pub forget: Vec<GatewayId>,
    /// Rows without a container, to be compared at the next look.
    pub missing: HashSet<InstanceId>,
    /// Calls that wait for something this host has no image or no room for.
    pub unmet: u32,
}

/// The difference.
pub fn plan(world: &World) -> Plan {
    let mut plan = Plan::default();
    let mut doomed = HashSet::new();
    let rows: HashMap<InstanceId, &Instance> = world.instances.iter().map(|i| (i.id, i)).collect();
    for container in &world.containers {
        judge_container(world, &rows, container, &mut doomed, &mut plan);
    }
    judge_rows(world, &mut doomed, &mut plan);
    shrink(world, &mut doomed, &mut plan);
    grow(world, &doomed, &mut plan);
    for gateway in world.gateways.iter().filter(|g| g.lost) {
        if !world.instances.iter().any(|i| i.gateway == gateway.id && !doomed.contains(&i.id)) {
            plan.forget.push(gateway.id);
        }
    }
    plan
}

fn judge_container(
    world: &World,
    rows: &HashMap<InstanceId, &Instance>,
    container: &Observed,
    doomed: &mut HashSet<InstanceId>,
    plan: &mut Plan,
) {
    let id = container.instance;
    let here = |set: &HashSet<InstanceId>| id.is_some_and(|id| set.contains(&id));
    let reason = match (container.role, id.and_then(|id| rows.get(&id))) {
        (Some(Role::Smoke | Role::Builder), _) if here(&world.own_errands) => None,
        (Some(Role::Smoke | Role::Builder), _) => Some(Reason::Leftover),
        _ if here(&world.starting_here) => None,
        (_, None) => Some(Reason::Unknown),
        (_, Some(row)) => judge_instance(world, row, container, plan),
    };
    let Some(reason) = reason else { return };
    let has_row = id.is_some_and(|id| rows.contains_key(&id));
    doomed.extend(id);
    plan.remove.push(Removal { container: container.container.clone(), instance: id, has_row, reason });
}

fn judge_instance(world: &World, row: &Instance, container: &Observed, plan: &mut Plan) -> Option<Reason> {
    let owner = world.gateways.iter().find(|g| g.id == row.gateway);
    if row.state == InstanceState::Released {
        Some(Reason::Released)
    } else if !container.running {
        Some(Reason::Died(container.status.clone()))
    } else if owner.is_none_or(|g| g.lost) {
        Some(Reason::GatewayLost)
    } else if row.state == InstanceState::Starting && row.age > START_LIMIT {
        Some(Reason::NeverReady)
    } else {
        if row.state == InstanceState::Starting {
            plan.watch.push((row.id, container.container.clone()));
        }
        None
    }
}

fn judge_rows(world: &World, doomed: &mut HashSet<InstanceId>, plan: &mut Plan) {
    let seen: HashSet<InstanceId> = world.containers.iter().filter_map(|c| c.instance).collect();
    for row in &world.instances {
        if seen.contains(&row.id) || world.starting_here.contains(&row.id) {
            continue;
        }
        plan.missing.insert(row.id);
        // The list of containers is read before the rows: one look can miss a container made in between.
        if world.missing_before.contains(&row.id) {
            doomed.insert(row.id);
            let reason =
                if row.state == InstanceState::Released { Reason::Released } else { Reason::Vanished };
            plan.close.push((row.id, reason));
        }
    }
}

fn slot(row: &Instance) -> (GatewayId, PoolKey) {
    (row.gateway, row.key.clone())
}

fn goal(world: &World, slot: &(GatewayId, PoolKey)) -> usize {
    let of = |map: &BTreeMap<(GatewayId, PoolKey), u32>| map.get(slot).copied().unwrap_or(0) as usize;
    of(&world.standing) + of(&world.waiting)
}

fn current(world: &World, row: &Instance) -> bool {
    world.images.get(&row.key.image).is_none_or(|image| *image == row.image)
}

fn shrink(world: &World, doomed: &mut HashSet<InstanceId>, plan: &mut Plan) {
    let mut spare: BTreeMap<(GatewayId, PoolKey), usize> = BTreeMap::new();
    let generic = |i: &&Instance| matches!(i.state, InstanceState::Pooled | InstanceState::Starting);
    for row in world.instances.iter().filter(generic).filter(|i| !doomed.contains(&i.id) && current(world, i))
    {
        *spare.entry(slot(row)).or_insert(0) += 1;
    }
    let mut waiting: Vec<_> = world.instances.iter().filter(|i| i.state == InstanceState::Pooled).collect();
    waiting.sort_by_key(|i| std::cmp::Reverse(i.in_state));
    for row in waiting {
        let Some(container) = world.containers.iter().find(|c| c.instance == Some(row.id)) else { continue };
        if doomed.contains(&row.id) || row.in_state < SHRINK_AFTER {
            continue;
        }
        let reason = if current(world, row) {
            let have = spare.entry(slot(row)).or_insert(0);
            if *have <= goal(world, &slot(row)) {
                continue;
            }
            *have -= 1;
            Reason::Surplus
        } else {
            Reason::OldImage
        };
        doomed.insert(row.id);
        plan.remove.push(Removal {
            container: container.container.clone(),
            instance: Some(row.id),
            has_row: true,
            reason,
        });
    }
}

fn grow(world: &World, doomed: &HashSet<InstanceId>, plan: &mut Plan) {
    let mut have: BTreeMap<(GatewayId, PoolKey), usize> = BTreeMap::new();
    let mut memory = 0;
    let mut count = 0;
    for row in world.instances.iter().filter(|i| !doomed.contains(&i.id)) {
        memory += u64::from(row.key.memory_mb);
        count += 1;
        if matches!(row.state, InstanceState::Pooled | InstanceState::Starting) && current(world, row) {
            *have.entry(slot(row)).or_insert(0) += 1;
        }
    }
    let mut room = |key: &PoolKey| {
        let fits =
            memory + u64::from(key.memory_mb) <= world.bounds.memory_mb && count < world.bounds.instances;
        if fits {
            memory += u64::from(key.memory_mb);
            count += 1;
        }
        fits
    };
    let alive: HashSet<GatewayId> = world.gateways.iter().filter(|g| g.alive).map(|g| g.id).collect();
    // Two passes: no pool is filled while a call waits for room.
    for (waiters, goals) in [(true, &world.waiting), (false, &world.standing)] {
        for (slot, goal) in goals.iter().filter(|(slot, _)| alive.contains(&slot.0)) {
            let held = have.entry(slot.clone()).or_insert(0);
            for _ in 0..*goal {
                if *held > 0 {
                    *held -= 1;
                    continue;
                }
                match world.images.get(&slot.1.image) {
                    Some(image) if room(&slot.1) => plan.start.push((slot.0, slot.1.clone(), image.clone())),
                    _ => plan.unmet += u32::from(waiters),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
