//! Who is started first, what makes room for whom, and that nobody waits for ever.

use proptest::prelude::*;

use super::*;
use crate::backend::ContainerId;
use crate::reconcile::plan::tests::{add, image, key, reasons, row, world};
use crate::reconcile::plan::{Bounds, Gateway, Instance, plan};

fn sizes(plan: &Plan) -> Vec<u32> {
    plan.start.iter().map(|start| start.1.memory_mb).collect()
}

#[test]
fn calls_that_wait_go_before_pools_and_pools_leave_a_start_free() {
    let (mut world, gateway) = world();
    world.bounds.starts = 3;
    world.standing.insert((gateway, key(128)), 2);
    assert_eq!(sizes(&plan(&world)), [128, 128], "one is kept free");
    world.waiting.insert((gateway, key(512)), 1);
    assert_eq!(sizes(&plan(&world)), [512], "the pool's wait while a call does");
    world.waiting.insert((gateway, key(512)), 4);
    let plan = plan(&world);
    assert_eq!((sizes(&plan), plan.queued), (vec![512, 512, 512], 1));
}

#[test]
fn a_pool_waits_for_starts_under_way_that_calls_wait_for_and_takes_idle_cores_only() {
    let (mut world, gateway) = world();
    world.bounds.starts = 4;
    world.standing.insert((gateway, key(128)), 8);
    world.waiting.insert((gateway, key(256)), 1);
    let id = add(&mut world, row(gateway, InstanceState::Starting), true);
    world.starting_here.insert(id);
    assert_eq!(plan(&world).start.len(), 0, "the call's start has the machine to itself");
    world.instances[0].age = SLOW_START;
    assert_eq!(sizes(&plan(&world)), [128; 3], "one that hangs holds up nobody");
    world.instances[0].state = InstanceState::Pooled;
    assert_eq!(sizes(&plan(&world)), [128; 3], "what is ready will be claimed in a moment");
    world.waiting.clear();
    add(&mut world, row(gateway, InstanceState::Active), true);
    assert_eq!(plan(&world).start.len(), 2, "a call keeps a core busy");
    for _ in 0..9 {
        add(&mut world, row(gateway, InstanceState::Active), true);
    }
    assert_eq!(plan(&world).start.len(), 1, "or a busy machine would never have a pool again");
}

#[test]
fn a_start_whose_container_has_ended_holds_up_no_pool() {
    let (mut world, gateway) = world();
    world.standing.insert((gateway, key(256)), 1);
    world.waiting.insert((gateway, key(256)), 1);
    let hangs = Instance { age: SLOW_START, ..row(gateway, InstanceState::Starting) };
    add(&mut world, hangs, true);
    add(&mut world, row(gateway, InstanceState::Starting), false);
    assert_eq!(sizes(&plan(&world)), [256]);
}

#[test]
fn a_host_that_starts_one_at_a_time_fills_its_pools_too() {
    let (mut world, gateway) = world();
    world.bounds.starts = 1;
    world.standing.insert((gateway, key(128)), 2);
    assert_eq!(plan(&world).start.len(), 1);
}

#[test]
fn starts_that_run_here_take_room_until_they_hang() {
    let (mut world, gateway) = world();
    world.bounds.starts = 2;
    world.waiting.insert((gateway, key(256)), 9);
    world.starting_here.insert(InstanceId::new());
    assert_eq!(plan(&world).start.len(), 1, "one runs whose row was not read yet");
    let id = add(&mut world, row(gateway, InstanceState::Starting), true);
    world.starting_here.insert(id);
    assert_eq!(plan(&world).start.len(), 0);
    world.instances[0].age = SLOW_START;
    assert_eq!(plan(&world).start.len(), 1);
    world.instances[0].state = InstanceState::Pooled;
    assert_eq!(plan(&world).start.len(), 1, "ready, though its task has not ended");
}

#[test]
fn one_of_every_kind_stands_ready_before_a_second_of_any() {
    let (mut world, gateway) = world();
    for memory_mb in [128, 256, 512] {
        world.standing.insert((gateway, key(memory_mb)), 2);
    }
    assert_eq!(sizes(&plan(&world)), [128, 256, 512, 128, 256, 512]);
    let held = Instance { key: key(128), ..row(gateway, InstanceState::Pooled) };
    add(&mut world, held, true);
    assert_eq!(sizes(&plan(&world)), [256, 512, 128, 256, 512]);
}

#[test]
fn idle_instances_of_a_kind_that_nobody_waits_for_make_room_at_once() {
    let (mut world, gateway) = world();
    world.bounds.memory_mb = 1_024;
    world.standing.insert((gateway, key(256)), 3);
    for _ in 0..4 {
        add(&mut world, row(gateway, InstanceState::Pooled), true);
    }
    world.waiting.insert((gateway, key(512)), 1);
    let evicting = plan(&world);
    assert_eq!(sizes(&evicting), [512]);
    assert_eq!(reasons(&evicting), [Reason::Evicted, Reason::Evicted]);

    world.waiting.insert((gateway, key(256)), 5);
    let keeping = plan(&world);
    assert_eq!(reasons(&keeping), [], "calls wait for these, too");
    assert_eq!((keeping.start.len(), keeping.unmet), (0, 2));
}

#[test]
fn nothing_is_evicted_when_it_would_not_help() {
    let (mut world, gateway) = world();
    world.bounds.memory_mb = 1_024;
    world.standing.insert((gateway, key(256)), 1);
    add(&mut world, row(gateway, InstanceState::Pooled), true);
    add(&mut world, row(gateway, InstanceState::Active), true);
    world.waiting.insert((gateway, key(1_024)), 1);
    let plan = plan(&world);
    assert_eq!((plan.remove, plan.start, plan.unmet), (vec![], vec![], 1));
}

#[test]
fn a_call_without_an_image_holds_up_nobody() {
    let (mut world, gateway) = world();
    let unknown = davit_api::PoolKey { image: "unknown".into(), ..key(256) };
    world.waiting.insert((gateway, unknown), 2);
    world.standing.insert((gateway, key(256)), 1);
    let plan = plan(&world);
    assert_eq!((plan.start.len(), plan.unmet), (1, 2));
}

#[test]
fn removals_yield_to_waiting_calls_unless_room_depends_on_them() {
    let (mut world, gateway) = world();
    world.bounds.removals = 4;
    for _ in 0..6 {
        add(&mut world, row(gateway, InstanceState::Released), true);
    }
    assert_eq!(plan(&world).remove.len(), 4);
    world.waiting.insert((gateway, key(256)), 1);
    let yielding = plan(&world);
    assert_eq!(yielding.remove.len(), 1);
    world.removing_here.insert(yielding.remove[0].container.clone());
    assert_eq!(plan(&world).remove.len(), 0, "one runs");
    world.bounds.memory_mb = 6 * 256;
    assert_eq!(plan(&world).remove.len(), 3, "the call's start needs the room");
}

/// Carries a plan out: starts run, and one look later they are ready and claimed.
fn carry_out(world: &mut World, plan: Plan) {
    world.turns = plan.turns;
    world.containers.retain(|c| !plan.remove.iter().any(|r| r.container == c.container));
    world.instances.retain(|i| !plan.remove.iter().any(|r| r.instance == Some(i.id)));
    for (gateway, key, _) in plan.start {
        let slot = (gateway, key.clone());
        match world.waiting.get_mut(&slot).filter(|calls| **calls > 0) {
            Some(calls) => *calls -= 1,
            None => drop(add(world, Instance { key, ..row(gateway, InstanceState::Pooled) }, true)),
        }
    }
}

/// Some gateways, keys and goals.
fn goals() -> impl Strategy<Value = Vec<(usize, u32, u32, u32)>> {
    prop::collection::vec((0usize..3, 1u32..5, 0u32..4, 0u32..9), 1..10)
}

fn staged(goals: Vec<(usize, u32, u32, u32)>, starts: usize, running: usize) -> World {
    let gateways = [(); 3].map(|()| Gateway { id: GatewayId::new(), alive: true, lost: false });
    let mut world = World {
        gateways: gateways.to_vec(),
        images: [("i".to_owned(), image())].into(),
        bounds: Bounds { memory_mb: 1 << 20, instances: 1_000, starts, removals: 4 },
        starting_here: (0..running).map(|_| InstanceId::new()).collect(),
        ..Default::default()
    };
    for (gateway, size, standing, waiting) in goals {
        world.standing.insert((gateways[gateway].id, key(128 * size)), standing);
        world.waiting.insert((gateways[gateway].id, key(128 * size)), waiting);
    }
    world
}

proptest! {
    #[test]
    fn never_more_starts_than_room(goals in goals(), starts in 1usize..6, running in 0usize..8) {
        let world = staged(goals, starts, running);
        prop_assert!(plan(&world).start.len() <= starts.saturating_sub(running));
    }

    #[test]
    fn a_waiting_key_is_never_behind_a_standing_fill(goals in goals(), starts in 1usize..6) {
        let world = staged(goals, starts, 0);
        let plan = plan(&world);
        let mut unserved = world.waiting.clone();
        for (gateway, key, _) in &plan.start {
            match unserved.get_mut(&(*gateway, key.clone())).filter(|calls| **calls > 0) {
                Some(calls) => *calls -= 1,
                None => prop_assert!(unserved.values().all(|calls| *calls == 0), "a fill came first"),
            }
        }
    }

    #[test]
    fn no_key_starves(goals in goals(), starts in 1usize..4) {
        let mut world = staged(goals, starts, 0);
        let endless = world.waiting.clone();
        let slots = endless.values().filter(|calls| **calls > 0).count();
        let gateways: HashSet<GatewayId> =
            endless.iter().filter(|(_, calls)| **calls > 0).map(|(slot, _)| slot.0).collect();
        let mut served = BTreeMap::new();
        // Each gateway has its turn among the gateways, and in it each key among its keys.
        for _ in 0..slots * gateways.len() {
            let plan = plan(&world);
            for (gateway, key, _) in &plan.start {
                *served.entry((*gateway, key.clone())).or_insert(0) += 1;
            }
            carry_out(&mut world, plan);
            // Calls go on coming.
            world.waiting.clone_from(&endless);
        }
        for (slot, _) in endless.iter().filter(|(_, calls)| **calls > 0) {
            prop_assert!(served.contains_key(slot), "{slot:?} was not served");
        }
    }

    #[test]
    fn in_the_end_everything_stands(goals in goals(), starts in 1usize..4) {
        let mut world = staged(goals, starts, 0);
        for _ in 0..400 {
            let plan = plan(&world);
            carry_out(&mut world, plan);
        }
        let end = plan(&world);
        prop_assert_eq!((end.start.len(), end.unmet, end.queued), (0, 0, 0));
        prop_assert!(world.waiting.values().all(|calls| *calls == 0));
    }
}

#[test]
fn an_evicted_instance_is_one_that_waited() {
    let (mut world, gateway) = world();
    world.bounds.instances = 2;
    let busy = add(&mut world, row(gateway, InstanceState::Active), true);
    let idle = add(&mut world, row(gateway, InstanceState::Pooled), true);
    world.waiting.insert((gateway, key(512)), 1);
    let plan = plan(&world);
    assert_eq!(plan.remove[0].container, ContainerId(format!("c-{idle}")));
    assert!(plan.remove.iter().all(|removal| removal.instance != Some(busy)));
    assert_eq!(plan.start.len(), 1);
}
