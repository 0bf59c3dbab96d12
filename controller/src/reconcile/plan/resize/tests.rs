//! Wishes for another size, alone and among everything else that a plan is about.

use davit_api::GatewayId;
use proptest::prelude::*;

use super::*;
use crate::reconcile::plan::tests::{add, key, reasons, row, world};
use crate::reconcile::plan::{Bounds, Gateway, Reason, plan};

fn wish(memory_mb: u32) -> Wish {
    Wish { key: key(memory_mb), begun: false, may: true, age: Duration::from_millis(10) }
}

fn wishing(gateway: GatewayId, memory_mb: u32, wish: Wish) -> Instance {
    Instance { key: key(memory_mb), wish: Some(wish), ..row(gateway, InstanceState::Pooled) }
}

#[test]
fn an_instance_that_becomes_what_a_call_waits_for_is_no_longer_in_its_pool_and_none_is_started_for_the_call()
{
    let (mut world, gateway) = world();
    world.standing.insert((gateway, key(256)), 1);
    world.waiting.insert((gateway, key(512)), 1);
    let id = add(&mut world, wishing(gateway, 256, wish(512)), true);
    let first = plan(&world);
    assert_eq!(first.resize.len(), 1);
    assert_eq!(
        (first.resize[0].instance, &first.resize[0].key, first.resize[0].again),
        (id, &key(512), false)
    );
    assert!(first.start.is_empty(), "the pool is filled once the call is served: {:?}", first.start);

    world.resizing_here.insert(id);
    assert!(plan(&world).resize.is_empty(), "once at a time");
    world.waiting.clear();
    let sizes: Vec<u32> = plan(&world).start.iter().map(|start| start.1.memory_mb).collect();
    assert_eq!(sizes, [256], "its pool is refilled");
}

#[test]
fn one_that_takes_long_is_not_counted_on() {
    let (mut world, gateway) = world();
    world.waiting.insert((gateway, key(512)), 1);
    let id =
        add(&mut world, wishing(gateway, 256, Wish { begun: true, age: SLOW_RESIZE, ..wish(512) }), true);
    world.resizing_here.insert(id);
    assert_eq!(plan(&world).start.len(), 1);
}

#[test]
fn what_cannot_be_is_declined_and_started_in_the_same_look() {
    for (wish, memory_mb) in [(Wish { may: false, ..wish(512) }, 10_000), (wish(512), 900)] {
        let (mut world, gateway) = world();
        world.bounds = Bounds { memory_mb, ..world.bounds };
        world.waiting.insert((gateway, key(512)), 1);
        let id = add(&mut world, wishing(gateway, 256, wish), true);
        add(&mut world, Instance { key: key(256), ..row(gateway, InstanceState::Active) }, true);
        if memory_mb == 900 {
            add(&mut world, Instance { key: key(256), ..row(gateway, InstanceState::Active) }, true);
        }
        let plan = plan(&world);
        assert_eq!((plan.decline.as_slice(), plan.resize.len()), ([id].as_slice(), 0));
        let sizes: Vec<u32> = plan.start.iter().map(|start| start.1.memory_mb).collect();
        assert_eq!(sizes, if memory_mb == 900 { vec![] } else { vec![512] }, "{plan:?}");
    }
}

#[test]
fn what_was_begun_goes_on_and_is_never_given_back() {
    let (mut world, gateway) = world();
    world.bounds.memory_mb = 1;
    let begun = Wish { begun: true, may: false, ..wish(512) };
    add(&mut world, wishing(gateway, 256, begun), true);
    let plan = plan(&world);
    assert!(plan.decline.is_empty() && plan.resize.len() == 1 && plan.resize[0].again);
}

#[test]
fn the_end_of_its_container_or_gateway_goes_before() {
    let (mut world, gateway) = world();
    let lost = GatewayId::new();
    world.gateways.push(Gateway { id: lost, alive: false, lost: true });
    add(&mut world, wishing(gateway, 256, wish(512)), false);
    add(&mut world, wishing(lost, 256, Wish { begun: true, ..wish(512) }), true);
    let released = Instance { state: InstanceState::Released, ..wishing(gateway, 256, wish(512)) };
    add(&mut world, released, true);
    world.instances.push(wishing(gateway, 256, wish(512)));
    let plan = plan(&world);
    assert_eq!((plan.resize.len(), plan.decline.len()), (0, 0), "one has no container yet");
    assert_eq!(reasons(&plan), [Reason::Died("Exited (1)".into()), Reason::GatewayLost, Reason::Released]);
}

#[test]
fn it_is_neither_evicted_nor_surplus_meanwhile() {
    let (mut world, gateway) = world();
    world.bounds.memory_mb = 600;
    world.waiting.insert((gateway, key(128)), 1);
    let old = Duration::from_secs(3_600);
    add(&mut world, Instance { in_state: old, ..wishing(gateway, 256, wish(512)) }, true);
    let plan = plan(&world);
    assert_eq!((plan.remove.len(), plan.start.len(), plan.resize.len()), (0, 0, 1), "{plan:?}");
}

proptest! {
    #[test]
    fn the_memory_that_is_granted_is_there(
        rows in prop::collection::vec((64u32..1_024, prop::option::of((64u32..1_024, any::<bool>(), any::<bool>())), any::<bool>()), 0..20),
        waiting in 0u32..5,
        memory_mb in 0u64..12_000,
    ) {
        let (mut world, gateway) = world();
        world.bounds.memory_mb = memory_mb;
        world.waiting.insert((gateway, key(2_048)), waiting);
        for (size, wished, here) in rows {
            let wished = wished.filter(|(other, ..)| *other != size);
            let made = match wished {
                Some((other, begun, may)) => wishing(gateway, size, Wish { begun, may, ..wish(other) }),
                None => Instance { key: key(size), ..row(gateway, InstanceState::Active) },
            };
            let id = add(&mut world, made, true);
            if here && wished.is_some() {
                world.resizing_here.insert(id);
            }
        }
        let result = plan(&world);
        let resized: HashSet<_> = result.resize.iter().map(|r| r.instance).collect();
        let declined: HashSet<_> = result.decline.iter().copied().collect();
        let (mut used, mut before) = (0, 0);
        for row in &world.instances {
            let own = u64::from(row.key.memory_mb);
            let Some(wish) = &row.wish else { (used, before) = (used + own, before + own); continue };
            let here = world.resizing_here.contains(&row.id);
            let begun = wish.begun || here;
            // Each wish is either under way, or decided on now, in one way.
            prop_assert_eq!(u8::from(here) + u8::from(resized.contains(&row.id)) + u8::from(declined.contains(&row.id)), 1);
            prop_assert!(!(begun && declined.contains(&row.id)));
            prop_assert!(wish.may || begun || declined.contains(&row.id));
            let large = own.max(u64::from(wish.key.memory_mb));
            used += if declined.contains(&row.id) { own } else { large };
            before += if begun { large } else { own };
        }
        let gone: u64 = result.remove.iter().filter_map(|r| world.instances.iter().find(|i| Some(i.id) == r.instance))
            .map(|row| u64::from(row.key.memory_mb)).sum();
        // Only what had begun may lie beyond the bound.
        prop_assert!(used <= memory_mb.max(before));
        let started: u64 = result.start.iter().map(|s| u64::from(s.1.memory_mb)).sum();
        prop_assert!(result.start.is_empty() || used - gone + started <= memory_mb);
        let evicted: HashSet<_> = result.remove.iter().filter_map(|r| r.instance).collect();
        prop_assert!(evicted.is_disjoint(&resized));
    }
}
