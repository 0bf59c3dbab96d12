//! How many removals run at a time. A removal and a start compete for the same cores and the engine's locks,
//! so while calls wait, removals do.

use davit_api::InstanceState;

use super::{Plan, Reason, World};

/// Removals at a time while calls wait.
const WHILE_CALLS_WAIT: usize = 1;
/// More containers to remove than this are a burden themselves, whoever waits.
const BACKLOG: usize = 16;

/// Leaves out removals that have to wait; a later look plans them again. Evictions never wait: a start depends
/// on them.
pub(super) fn hold_back(world: &World, plan: &mut Plan) {
    let limit = if yields(world, plan) { WHILE_CALLS_WAIT } else { world.bounds.removals };
    let mut room = limit.saturating_sub(world.removing_here.len());
    plan.remove.sort_by_key(|removal| removal.reason != Reason::Evicted);
    plan.remove.retain(|removal| {
        let goes = removal.reason == Reason::Evicted || room > 0;
        room = room.saturating_sub(1);
        goes
    });
}

fn yields(world: &World, plan: &Plan) -> bool {
    let alive = |gateway| world.gateways.iter().any(|g| g.alive && g.id == gateway);
    let calls_wait = world.waiting.iter().any(|(slot, calls)| *calls > 0 && alive(slot.0));
    calls_wait && plan.remove.len() <= BACKLOG && !tight(world, plan)
}

/// Whether the starts fit only because something goes.
fn tight(world: &World, plan: &Plan) -> bool {
    let there = world.instances.iter().filter(|row| row.state != InstanceState::Removed);
    let starts = plan.start.iter().map(|start| u64::from(start.1.memory_mb));
    let sizes = there.map(super::Instance::memory_mb).chain(starts);
    sizes.clone().sum::<u64>() > world.bounds.memory_mb || sizes.count() > world.bounds.instances
}
