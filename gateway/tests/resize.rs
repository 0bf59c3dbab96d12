//! Instances that get another size instead of others being started: who gets them, and when. Against agents that speak the real
//! protocol; the test is the registry and the controller.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use davit_api::{InstanceId, PoolKey};
use davit_gateway::instances::Instance;
use davit_gateway::version::LiveVersion;
use davit_link::{Limits, Link, Place};
use serde_json::json;
use support::{Seen, World, until, version};

/// Two functions that differ in their size.
fn sizes() -> [Arc<LiveVersion>; 2] {
    [512, 2_048].map(|memory_mb| version(|spec| spec.memory_mb = memory_mb))
}

/// A container whose size may be changed.
async fn resizable(world: &World, version: &LiveVersion) -> (InstanceId, Arc<Seen>) {
    let id = InstanceId::new();
    let (path, seen) = world.agent(id, None);
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let (link, events) = Link::connect(&Place::Socket(path), deadline).await.unwrap();
    let instance = Instance::new(id, (*version.pool_key).clone(), link).with_resizable(true);
    world.instances.add(Arc::new(instance), events);
    (id, seen)
}

fn ready(world: &World, key: &PoolKey) -> usize {
    world.instances.shared().pools.ready(key)
}

/// Waits until a start waits, and gives what is wished for it.
async fn wishes(world: &World, key: &PoolKey) -> Vec<(InstanceId, PoolKey)> {
    let waits = || world.instances.wanted().iter().any(|kind| kind.key == *key && kind.waiting > 0);
    until("a start waits", waits).await;
    world.instances.wishes(true)
}

#[tokio::test]
async fn a_start_that_finds_none_gets_one_of_another_size_once_it_has_its_own() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    let (id, seen) = resizable(&world, &small).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        let wished = wishes(&world, &large.pool_key).await;
        assert_eq!(wished, [(id, (*large.pool_key).clone())]);
        assert_eq!(ready(&world, &small.pool_key), 0, "nobody else can claim it");
        assert_eq!(world.instances.wishes(true), wished, "until it is on record it is said again");
        assert!(world.instances.on_record().is_empty());
        world.instances.wished(&wished);
        assert_eq!((world.instances.wishes(true), world.instances.on_record()), (vec![], vec![id]));
        assert_eq!(seen.inits.load(SeqCst), 0);
        world.instances.settle(id, &large.pool_key);
    });
    answer.unwrap();
    assert_eq!((seen.inits.load(SeqCst), world.metrics.claims.get()), (1, 1));
}

#[tokio::test]
async fn one_that_keeps_its_size_is_back_in_its_pool_and_not_asked_again() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    let [_, other] = sizes();
    let (id, seen) = resizable(&world, &small).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        world.instances.wished(&wishes(&world, &large.pool_key).await);
        world.instances.settle(id, &small.pool_key);
        assert_eq!(ready(&world, &small.pool_key), 1);
        let (answer, ()) = tokio::join!(world.call(&other, json!({})), async {
            let waiting = || world.instances.wanted().iter().map(|kind| kind.waiting).sum::<u32>() == 2;
            until("two starts wait", waiting).await;
            assert_eq!(world.instances.wishes(true), vec![]);
            world.call(&small, json!({})).await.unwrap();
            assert_eq!(seen.inits.load(SeqCst), 1);
            world.container(&large).await;
            world.container(&large).await;
        });
        answer.unwrap();
    });
    answer.unwrap();
}

#[tokio::test]
async fn what_arrives_meanwhile_serves_the_call_and_the_other_waits_in_its_new_pool() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    let (id, seen) = resizable(&world, &small).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        world.instances.wished(&wishes(&world, &large.pool_key).await);
        world.container(&large).await;
    });
    answer.unwrap();
    world.instances.settle(id, &large.pool_key);
    assert_eq!((ready(&world, &large.pool_key), ready(&world, &small.pool_key)), (1, 0));
    assert_eq!(world.instances.wanted().iter().map(|kind| kind.waiting).sum::<u32>(), 0);
    world.instances.close();
    until("it goes with the gateway", || seen.closed.load(SeqCst)).await;
}

#[tokio::test]
async fn an_end_in_the_middle_is_an_end() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    let (id, seen) = resizable(&world, &small).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        world.instances.wished(&wishes(&world, &large.pool_key).await);
        // As when the controller takes it back.
        let gone = world.instances.shared().pools.remove(id).unwrap();
        drop(gone);
        until("its link closes", || seen.closed.load(SeqCst)).await;
        assert!(world.instances.on_record().is_empty());
        world.instances.settle(id, &large.pool_key);
        assert_eq!(ready(&world, &large.pool_key), 0);
        world.container(&large).await;
    });
    answer.unwrap();
}

#[tokio::test]
async fn one_whose_size_is_fixed_or_whose_volumes_are_too_small_stays() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    world.container(&small).await;
    let tiny = version(|spec| spec.memory_mb = 128);
    resizable(&world, &tiny).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        assert_eq!(wishes(&world, &large.pool_key).await, vec![]);
        world.container(&large).await;
    });
    answer.unwrap();
    assert_eq!((ready(&world, &small.pool_key), ready(&world, &tiny.pool_key)), (1, 1));
}

#[tokio::test]
async fn an_agent_that_sees_its_new_size_is_believed_and_one_that_says_nothing_is_not_waited_for() {
    let world = World::new(|_| {});
    let [small, large] = sizes();
    let (id, seen) = resizable(&world, &small).await;
    let (answer, ()) = tokio::join!(world.call(&large, json!({})), async {
        world.instances.wished(&wishes(&world, &large.pool_key).await);
        assert!(!world.instances.has_size(id, &large.pool_key).await, "it says nothing");
        let limits = |memory_mb: u64, cpu_millis| Limits { memory_bytes: memory_mb << 20, cpu_millis };
        *seen.limits.lock() = Some(limits(512, 1_000));
        let half = limits(2_048, large.pool_key.cpu_millis / 2);
        let (has, ()) = tokio::join!(world.instances.has_size(id, &large.pool_key), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            *seen.limits.lock() = Some(half);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(world.instances.on_record(), [id]);
            *seen.limits.lock() = Some(limits(2_048, large.pool_key.cpu_millis));
        });
        assert!(has);
        world.instances.settle(id, &large.pool_key);
        assert!(!world.instances.has_size(id, &large.pool_key).await, "it is over");
    });
    answer.unwrap();
}
