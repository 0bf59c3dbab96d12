//! Each rule of the plan, then what must hold whatever the world looks like.

use std::time::SystemTime;

use davit_api::NetworkClass;
use proptest::prelude::*;

use super::judge::START_LIMIT;
use super::shrink::SHRINK_AFTER;
use super::*;
use crate::backend::Role;

pub(super) fn key(memory_mb: u32) -> PoolKey {
    PoolKey {
        image: "i".into(),
        memory_mb,
        cpu_millis: 1_000,
        ephemeral_mb: 64,
        network: NetworkClass::Egress,
    }
}

pub(super) fn image() -> ImageId {
    ImageId("sha256:i".into())
}

fn container(instance: InstanceId, role: Role, running: bool) -> Observed {
    Observed {
        container: ContainerId(format!("c-{instance}")),
        instance: Some(instance),
        role: Some(role),
        running,
        status: "Exited (1)".into(),
        created: SystemTime::UNIX_EPOCH,
    }
}

pub(super) fn row(gateway: GatewayId, state: InstanceState) -> Instance {
    Instance {
        id: InstanceId::new(),
        gateway,
        key: key(256),
        wish: None,
        image: image(),
        state,
        age: Duration::from_secs(1),
        in_state: Duration::from_secs(1),
    }
}

/// One living gateway and room for everything.
pub(super) fn world() -> (World, GatewayId) {
    let gateway = GatewayId::new();
    let world = World {
        gateways: vec![Gateway { id: gateway, alive: true, lost: false }],
        images: HashMap::from([("i".to_owned(), image())]),
        bounds: Bounds { memory_mb: 10_000, instances: 100, starts: 100, removals: 100 },
        ..Default::default()
    };
    (world, gateway)
}

pub(super) fn add(world: &mut World, row: Instance, running: bool) -> InstanceId {
    let id = row.id;
    world.containers.push(container(id, Role::Instance, running));
    world.instances.push(row);
    id
}

pub(super) fn reasons(plan: &Plan) -> Vec<Reason> {
    plan.remove.iter().map(|r| r.reason.clone()).collect()
}

#[test]
fn a_deficit_is_started_and_what_starts_already_counts() {
    let (mut world, gateway) = world();
    world.standing.insert((gateway, key(256)), 2);
    world.waiting.insert((gateway, key(256)), 1);
    assert_eq!(plan(&world).start.len(), 1, "the pool is filled once the call is served");
    add(&mut world, row(gateway, InstanceState::Starting), true);
    add(&mut world, row(gateway, InstanceState::Pooled), true);
    assert_eq!(plan(&world).start.len(), 1, "one of these is the call's");
    add(&mut world, row(gateway, InstanceState::Active), true);
    assert_eq!(plan(&world).start.len(), 1, "a claimed instance is refilled");
}

#[test]
fn released_dead_and_unknown_containers_are_removed() {
    let (mut world, gateway) = world();
    add(&mut world, row(gateway, InstanceState::Released), true);
    add(&mut world, row(gateway, InstanceState::Active), false);
    world.containers.push(container(InstanceId::new(), Role::Instance, true));
    let plan = plan(&world);
    assert_eq!(reasons(&plan), [Reason::Released, Reason::Died("Exited (1)".into()), Reason::Unknown]);
    assert!(plan.start.is_empty());
}

#[test]
fn what_this_process_is_busy_with_is_left_alone() {
    let (mut world, _) = world();
    let (starting, errand, stray) = (InstanceId::new(), InstanceId::new(), InstanceId::new());
    world.containers.push(container(starting, Role::Instance, true));
    world.containers.push(container(errand, Role::Builder, true));
    world.containers.push(container(stray, Role::Smoke, true));
    world.starting_here.insert(starting);
    world.own_errands.insert(errand);
    let plan = plan(&world);
    assert_eq!(reasons(&plan), [Reason::Leftover]);
    assert_eq!(plan.remove[0].instance, Some(stray));
}

#[test]
fn a_container_whose_removal_runs_is_gone_already() {
    let (mut world, gateway) = world();
    world.standing.insert((gateway, key(256)), 1);
    let id = add(&mut world, row(gateway, InstanceState::Pooled), true);
    world.removing_here.insert(ContainerId(format!("c-{id}")));
    let plan = plan(&world);
    assert_eq!((plan.remove.len(), plan.start.len()), (0, 1));
}

#[test]
fn a_silent_gateway_keeps_its_instances_until_it_is_lost() {
    let (mut world, gateway) = world();
    add(&mut world, row(gateway, InstanceState::Active), true);
    world.standing.insert((gateway, key(256)), 2);
    world.gateways[0].alive = false;
    assert_eq!(plan(&world), Plan::default());
    world.gateways[0].lost = true;
    let plan = plan(&world);
    assert_eq!(reasons(&plan), [Reason::GatewayLost]);
    assert_eq!(plan.forget, [gateway]);
}

#[test]
fn a_row_without_a_container_is_closed_at_the_second_look() {
    let (mut world, gateway) = world();
    let lonely = row(gateway, InstanceState::Pooled);
    let id = lonely.id;
    world.instances.push(lonely);
    let first = plan(&world);
    assert_eq!((first.close.len(), first.missing.contains(&id)), (0, true));
    world.missing_before = first.missing;
    assert_eq!(plan(&world).close, [(id, Reason::Vanished)]);
}

#[test]
fn a_start_of_a_killed_controller_is_watched_and_given_up_in_the_end() {
    let (mut world, gateway) = world();
    let id = add(&mut world, row(gateway, InstanceState::Starting), true);
    assert_eq!(plan(&world).watch, [(id, ContainerId(format!("c-{id}")))]);
    world.instances[0].age = START_LIMIT * 2;
    assert_eq!(reasons(&plan(&world)), [Reason::NeverReady]);
}

#[test]
fn surplus_and_old_images_go_after_a_while() {
    let (mut world, gateway) = world();
    world.standing.insert((gateway, key(256)), 1);
    for _ in 0..3 {
        add(&mut world, row(gateway, InstanceState::Pooled), true);
    }
    assert!(plan(&world).remove.is_empty(), "not at once");
    world.instances[0].in_state = SHRINK_AFTER;
    world.instances[1].in_state = SHRINK_AFTER;
    world.instances[1].image = ImageId("sha256:old".into());
    let plan = plan(&world);
    assert_eq!(reasons(&plan).len(), 2);
    assert!(reasons(&plan).contains(&Reason::OldImage) && reasons(&plan).contains(&Reason::Surplus));
    assert!(plan.start.is_empty());
}

#[test]
fn waiting_calls_get_the_last_room() {
    let (mut world, gateway) = world();
    world.bounds.memory_mb = 600;
    world.standing.insert((gateway, key(256)), 4);
    world.waiting.insert((gateway, key(512)), 2);
    let plan = plan(&world);
    assert_eq!(plan.start.iter().map(|s| s.1.memory_mb).collect::<Vec<_>>(), [512]);
    assert_eq!((plan.unmet, plan.queued), (1, 0));
}

fn any_state() -> impl Strategy<Value = InstanceState> {
    prop::sample::select(&InstanceState::ALL[..5])
}

proptest! {
    #[test]
    fn whatever_the_world_looks_like(
        rows in prop::collection::vec((0usize..3, any_state(), any::<bool>(), any::<bool>(), 0u64..200), 0..25),
        goals in prop::collection::vec((0usize..3, 0u32..6, 0u32..6), 0..6),
        memory_mb in 0u64..6_000,
    ) {
        let gateways = [
            Gateway { id: GatewayId::new(), alive: true, lost: false },
            Gateway { id: GatewayId::new(), alive: false, lost: false },
            Gateway { id: GatewayId::new(), alive: false, lost: true },
        ];
        let mut world = World {
            gateways: gateways.to_vec(),
            images: HashMap::from([("i".to_owned(), image())]),
            bounds: Bounds { memory_mb, instances: 20, starts: 100, removals: 100 },
            ..Default::default()
        };
        for (gateway, state, has_container, running, seconds) in rows {
            let seconds = Duration::from_secs(seconds);
            let row = Instance { age: seconds, in_state: seconds, ..row(gateways[gateway].id, state) };
            if has_container {
                add(&mut world, row, running);
            } else {
                world.instances.push(row);
            }
        }
        for (gateway, standing, waiting) in goals {
            world.standing.insert((gateways[gateway].id, key(256)), standing);
            world.waiting.insert((gateways[gateway].id, key(256)), waiting);
        }
        let result = plan(&world);

        // Working instances of a gateway that may come back are never touched while they run.
        for removal in &result.remove {
            let row = world.instances.iter().find(|i| Some(i.id) == removal.instance).unwrap();
            let running = world.containers.iter().any(|c| c.container == removal.container && c.running);
            let working = matches!(row.state, InstanceState::Active | InstanceState::Frozen);
            prop_assert!(!(working && running && row.gateway != gateways[2].id));
        }
        // Nothing is removed twice, only the living get instances, and no bound is passed.
        let removed: HashSet<_> = result.remove.iter().map(|r| &r.container).collect();
        prop_assert_eq!(removed.len(), result.remove.len());
        prop_assert!(result.start.iter().all(|s| s.0 == gateways[0].id));
        let stay = world.instances.len() - result.remove.len() - result.close.len();
        let used = 256 * (stay + result.start.len()) as u64;
        prop_assert!(result.start.is_empty() || used <= memory_mb);
        prop_assert!(result.start.is_empty() || stay + result.start.len() <= 20);

        // Carried out, with the pools after the calls, it has nothing left to start; and nothing to remove, once the removals that yielded to
        // waiting calls have had their turn.
        let mut next = world.clone();
        let mut result = result;
        for look in 0..30 {
            prop_assert!(look < 2 || result.start.is_empty());
            let gone: HashSet<_> = result.remove.iter().filter_map(|r| r.instance)
                .chain(result.close.iter().map(|c| c.0)).collect();
            next.instances.retain(|i| !gone.contains(&i.id));
            next.containers.retain(|c| c.instance.is_none_or(|id| !gone.contains(&id)));
            for (gateway, key, _) in &result.start {
                let started = Instance { key: key.clone(), ..row(*gateway, InstanceState::Pooled) };
                add(&mut next, started, true);
            }
            result = plan(&next);
        }
        prop_assert_eq!((result.start, result.remove), (vec![], vec![]));
    }
}
