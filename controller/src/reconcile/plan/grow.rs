//! What to start now. Calls that wait come first, a turn each; then standing pools, one of every kind before a
//! second of any, and none while a call waits for a start. No more is planned than may run at a time: what is
//! left is planned anew when a start ends, so that a call which came in the meantime is not behind a pool's refill.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use davit_api::{GatewayId, InstanceId, InstanceState};
use davit_scaling::pool_size::{Machine, refills_allowed};

use super::ask::ask;
use super::ledger::Ledger;
use super::resize::is_slow;
use super::{Instance, Plan, Reason, Slot, World, removal, slot};

/// A start usually takes less than a second. One that takes longer hangs rather than works, and must not keep
/// others from starting.
pub(super) const SLOW_START: Duration = Duration::from_secs(5);

/// Plans starts, and the evictions that make room for those that calls wait for.
pub(super) fn grow(world: &World, doomed: &mut HashSet<InstanceId>, plan: &mut Plan) {
    let alive: HashSet<GatewayId> = world.gateways.iter().filter(|g| g.alive).map(|g| g.id).collect();
    let of_the_living = |goals: &BTreeMap<Slot, u32>| -> BTreeMap<Slot, u32> {
        let living = goals.iter().filter(|(slot, goal)| alive.contains(&slot.0) && **goal > 0);
        living.map(|(slot, goal)| (slot.clone(), *goal)).collect()
    };
    let waiting = of_the_living(&world.waiting);
    let mut ledger = Ledger::new(world, doomed);
    let running = running(world);
    let mut free = world.bounds.starts.saturating_sub(running);

    let lacking = ledger.lacking(waiting.iter());
    let no_room = serve_calls(world, &waiting, lacking, &mut free, &mut ledger, doomed, plan);
    // What is left of a room that is too small for a call is not spent on a pool.
    if !no_room {
        let lacking = ledger.lacking(of_the_living(&world.standing).iter());
        let machine = Machine {
            cpus: world.bounds.starts,
            running_calls: world.instances.iter().filter(|row| row.state == InstanceState::Active).count(),
            urgent_starts: plan.start.len() + plan.queued as usize + urgent(world, &waiting, doomed),
            refills: running,
        };
        let missing = lacking.values().map(|missing| *missing as usize).sum();
        fill_pools(world, lacking, refills_allowed(missing, machine).min(free), &mut ledger, plan);
    }
}

/// Starts under way that calls wait for, and that get somewhere.
fn urgent(world: &World, waiting: &BTreeMap<Slot, u32>, doomed: &HashSet<InstanceId>) -> usize {
    let young = |row: &Instance| match row.state {
        InstanceState::Starting => row.age < SLOW_START,
        InstanceState::Pooled => row.wish.is_some() && !is_slow(row),
        _ => false,
    };
    let ready = Instance::waits;
    let count = |of: &Slot, is: &dyn Fn(&Instance) -> bool| {
        let stays = world.instances.iter().filter(|row| !doomed.contains(&row.id));
        stays.filter(|row| row.gateway == of.0 && *row.kind() == of.1 && is(row)).count()
    };
    let wanted = waiting.iter().map(|(slot, calls)| {
        // What is ready goes to the calls that have waited longest.
        (*calls as usize).saturating_sub(count(slot, &ready)).min(count(slot, &young))
    });
    wanted.sum()
}

/// Starts that run here and still get somewhere.
fn running(world: &World) -> usize {
    let slow: HashSet<InstanceId> = world
        .instances
        .iter()
        .filter(|row| row.state != InstanceState::Starting || row.age >= SLOW_START)
        .map(|row| row.id)
        .collect();
    world.starting_here.iter().filter(|id| !slow.contains(id)).count()
}

/// Starts what calls wait for. `true` when there is no room for one of them.
fn serve_calls(
    world: &World,
    waiting: &BTreeMap<Slot, u32>,
    mut lacking: BTreeMap<Slot, u32>,
    free: &mut usize,
    ledger: &mut Ledger,
    doomed: &mut HashSet<InstanceId>,
    plan: &mut Plan,
) -> bool {
    plan.turns = world.turns.clone();
    plan.turns.attend(waiting);
    let mut no_room = false;
    lacking.retain(|slot, calls| {
        let image = world.images.contains_key(&slot.1.image);
        plan.unmet += if image { 0 } else { *calls };
        image
    });
    while *free > 0
        && let Some(slot) = plan.turns.next(lacking.keys()).cloned()
    {
        let started = room_for(world, &slot, waiting, ledger, doomed, plan) && start(world, &slot, plan);
        let calls = lacking.get_mut(&slot).map_or(0, |calls| {
            *calls -= 1;
            *calls
        });
        if started {
            ledger.spend(&slot.1);
            plan.turns.served(&slot);
            *free -= 1;
        } else {
            if !no_room {
                plan.ask = ask(world, ledger.lacking_mb(world, &slot.1));
            }
            no_room = true;
            plan.unmet += calls + 1;
        }
        if !started || calls == 0 {
            lacking.remove(&slot);
        }
    }
    plan.queued = lacking.values().sum();
    no_room
}

/// Whether one more of a kind fits, if need be in the place of instances that nobody waits for.
fn room_for(
    world: &World,
    wanted: &Slot,
    waiting: &BTreeMap<Slot, u32>,
    ledger: &mut Ledger,
    doomed: &mut HashSet<InstanceId>,
    plan: &mut Plan,
) -> bool {
    if ledger.fits(world, &wanted.1) {
        return true;
    }
    let candidates = world.instances.iter().filter(|row| {
        let owned = world.gateways.iter().any(|g| g.alive && g.id == row.gateway);
        let idle = row.waits() && !waiting.contains_key(&slot(row));
        owned && idle && !doomed.contains(&row.id) && removal(world, row, Reason::Evicted).is_some()
    });
    let Some(evicted) = ledger.make_room(world, &wanted.1, candidates.collect()) else { return false };
    for row in evicted {
        doomed.insert(row.id);
        plan.remove.extend(removal(world, row, Reason::Evicted));
    }
    true
}

/// Fills standing pools with at most `free` starts, the emptiest first.
fn fill_pools(
    world: &World,
    mut lacking: BTreeMap<Slot, u32>,
    free: usize,
    ledger: &mut Ledger,
    plan: &mut Plan,
) {
    let goal = |slot: &Slot| world.standing.get(slot).copied().unwrap_or(0);
    let mut left_out: BTreeSet<Slot> = BTreeSet::new();
    let mut started = 0;
    while started < free {
        let candidates = lacking.iter().filter(|(slot, missing)| **missing > 0 && !left_out.contains(*slot));
        let emptiest = candidates.min_by_key(|(slot, missing)| goal(slot).saturating_sub(**missing));
        let Some(slot) = emptiest.map(|(slot, _)| slot.clone()) else { return };
        if ledger.fits(world, &slot.1) && start(world, &slot, plan) {
            ledger.spend(&slot.1);
            started += 1;
            lacking.entry(slot).and_modify(|missing| *missing -= 1);
        } else {
            left_out.insert(slot);
        }
    }
}

/// Plans one start; `false` when this host does not have its image.
fn start(world: &World, slot: &Slot, plan: &mut Plan) -> bool {
    let Some(image) = world.images.get(&slot.1.image) else { return false };
    plan.start.push((slot.0, slot.1.clone(), image.clone()));
    true
}

#[cfg(test)]
mod tests;
