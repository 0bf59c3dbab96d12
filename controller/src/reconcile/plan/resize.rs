//! Which wishes for another size are carried out. One that is not costs nothing: the instance goes back to its pool, and the
//! same look starts what the call waits for.

use std::collections::HashSet;
use std::time::Duration;

use davit_api::{InstanceId, InstanceState, PoolKey};

use super::{Instance, Plan, Wish, World};
use crate::backend::ContainerId;

/// A kubelet does it at once and says so within two seconds. One that takes longer no longer counts, so that the call which
/// waits for it gets a start as well.
pub(super) const SLOW_RESIZE: Duration = Duration::from_secs(3);

/// An instance to give another size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// Which.
    pub instance: InstanceId,
    /// Its container.
    pub container: ContainerId,
    /// What it becomes.
    pub key: PoolKey,
    /// Whether it was begun before, so that the container may have the size already.
    pub again: bool,
}

/// Whether nobody should count on an instance's new size any more.
pub(super) fn is_slow(row: &Instance) -> bool {
    row.wish.as_ref().is_some_and(|wish| wish.age >= SLOW_RESIZE)
}

/// Decides on the wishes. What was begun goes on until it is known how it ended, whatever has changed since. Gives the world
/// without the wishes that are declined, if any are.
pub(super) fn settle(world: &World, doomed: &HashSet<InstanceId>, plan: &mut Plan) -> Option<World> {
    let stays = |row: &&Instance| !doomed.contains(&row.id);
    let under_way = |row: &Instance, wish: &Wish| wish.begun || world.resizing_here.contains(&row.id);
    let size = |row: &Instance| match &row.wish {
        Some(wish) if !under_way(row, wish) => u64::from(row.key.memory_mb),
        _ => row.memory_mb(),
    };
    let mut memory_mb: u64 = world.instances.iter().filter(stays).map(size).sum();
    for row in world.instances.iter().filter(stays).filter(|row| row.state == InstanceState::Pooled) {
        let Some(wish) = row.wish.as_ref().filter(|_| !world.resizing_here.contains(&row.id)) else {
            continue;
        };
        let Some(container) = world.containers.iter().find(|c| c.instance == Some(row.id)) else { continue };
        let more_mb = row.memory_mb() - size(row);
        let fits = more_mb == 0 || memory_mb + more_mb <= world.bounds.memory_mb;
        let goes_on = wish.begun || (wish.may && fits);
        if !goes_on {
            plan.decline.push(row.id);
            continue;
        }
        memory_mb += more_mb;
        plan.resize.push(Resize {
            instance: row.id,
            container: container.container.clone(),
            key: wish.key.clone(),
            again: wish.begun,
        });
    }
    if plan.decline.is_empty() {
        return None;
    }
    let mut world = world.clone();
    for row in world.instances.iter_mut().filter(|row| plan.decline.contains(&row.id)) {
        row.wish = None;
    }
    Some(world)
}

#[cfg(test)]
mod tests;
