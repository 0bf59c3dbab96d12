//! When a call's start finds no room, not even in the place of pooled instances: whom to ask for some. Gateways hold
//! idle instances as long as they are likely to be called again, and give them up when a call needs their memory.

use std::collections::BTreeMap;

use davit_api::{GatewayId, InstanceState};

use super::World;

/// How much each gateway is asked for, in MiB: those with most idle memory first, until it is enough. Nobody is asked
/// when all of it would not be enough, nor one that was asked a moment ago and has not answered.
pub(super) fn ask(world: &World, lacking_mb: u64) -> BTreeMap<GatewayId, u64> {
    let mut idle: BTreeMap<GatewayId, u64> = BTreeMap::new();
    for row in world.instances.iter().filter(|row| row.state == InstanceState::Frozen) {
        if world.gateways.iter().any(|g| g.alive && g.id == row.gateway) {
            *idle.entry(row.gateway).or_insert(0) += u64::from(row.key.memory_mb);
        }
    }
    if lacking_mb == 0 || idle.values().sum::<u64>() < lacking_mb {
        return BTreeMap::new();
    }
    let mut order: Vec<(GatewayId, u64)> = idle.into_iter().collect();
    order.sort_by_key(|(_, mb)| std::cmp::Reverse(*mb));
    let mut left = lacking_mb;
    let mut asked = BTreeMap::new();
    for (gateway, mb) in order {
        let share = mb.min(left);
        left -= share;
        if share > 0 && !world.asked_lately.contains(&gateway) {
            asked.insert(gateway, share);
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::plan::tests::{add, key, row, world};
    use crate::reconcile::plan::{Bounds, Gateway, Instance, plan};

    fn frozen(gateway: GatewayId, memory_mb: u32) -> Instance {
        Instance { key: key(memory_mb), ..row(gateway, InstanceState::Frozen) }
    }

    #[test]
    fn a_waiting_call_asks_for_the_memory_of_idle_instances_and_only_when_it_would_do() {
        let (mut world, gateway) = world();
        world.bounds = Bounds { memory_mb: 1_024, ..world.bounds };
        add(&mut world, frozen(gateway, 512), true);
        add(&mut world, Instance { key: key(256), ..row(gateway, InstanceState::Active) }, true);
        assert!(plan(&world).ask.is_empty(), "nobody waits");
        world.waiting.insert((gateway, key(512)), 1);
        let asked = plan(&world);
        assert_eq!((asked.ask.get(&gateway), asked.start.len()), (Some(&256), 0), "what is lacking, no more");
        world.asked_lately.insert(gateway);
        assert!(plan(&world).ask.is_empty(), "it was asked a moment ago");
        world.asked_lately.clear();
        world.waiting = [((gateway, key(1_024)), 1)].into();
        assert!(plan(&world).ask.is_empty(), "all of it would not do");
    }

    #[test]
    fn the_gateway_with_most_idle_memory_is_asked_first_and_the_dead_are_not() {
        let (mut world, first) = world();
        let (second, dead) = (GatewayId::new(), GatewayId::new());
        world.gateways.push(Gateway { id: second, alive: true, lost: false });
        world.gateways.push(Gateway { id: dead, alive: false, lost: false });
        for (gateway, mb) in [(first, 256), (second, 512), (second, 512), (dead, 4_096)] {
            add(&mut world, frozen(gateway, mb), true);
        }
        assert_eq!(ask(&world, 900), [(second, 900)].into());
        assert_eq!(ask(&world, 1_100), [(second, 1_024), (first, 76)].into());
        assert!(ask(&world, 1_400).is_empty());
    }
}
