//! How many instances a fleet has: bursts, rhythms, schedules, minima, and the way back to zero. Against agents that
//! speak the real protocol.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use chrono::Utc;
use davit_gateway::instances::Counts;
use davit_gateway::version::LiveVersion;
use futures_util::future::join_all;
use serde_json::json;
use support::{World, until, version};

fn there(world: &World, v: &Arc<LiveVersion>) -> usize {
    let Counts { active, frozen, .. } = world.instances.fleet(v).counts();
    active + frozen
}

/// Waits longer than [`until`], for what is a matter of seconds by its nature.
async fn in_time(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_burst_starts_as_many_as_it_needs_and_not_more() {
    let world = World::new(|_| {});
    // A start takes half a second, so a call of a millisecond is better off waiting for the one before it.
    let v = version(|s| (s.handler, s.max_instances) = ("slow500".into(), 100));
    for _ in 0..20 {
        world.container(&v).await;
    }
    for _ in 0..5 {
        world.call(&v, json!({"sleep": 1})).await.unwrap();
    }
    assert_eq!(world.metrics.claims.get(), 1);
    let short = join_all((0..12).map(|_| world.call(&v, json!({"sleep": 1})))).await;
    assert!(short.iter().all(Result::is_ok));
    assert_eq!(world.metrics.claims.get(), 1, "the one instance was soon through");

    // These look the same at first. The line outlives what short calls would have taken.
    let long = join_all((0..12).map(|_| world.call(&v, json!({"sleep": 2_000})))).await;
    assert!(long.iter().all(Result::is_ok));
    assert_eq!(world.metrics.claims.get(), 12, "one for each");
    // By now it is known that calls are long, and so a new one brings an instance at once, up to the line's length.
    let more = join_all((0..15).map(|_| world.call(&v, json!({"sleep": 2_000})))).await;
    assert!(more.iter().all(Result::is_ok));
    assert_eq!(world.metrics.claims.get(), 15);
    assert_eq!(world.instances.fleet(&v).counts().in_use, 0);
}

#[tokio::test]
async fn a_burst_on_an_unknown_function_is_answered_in_full() {
    let world = World::new(|_| {});
    let v = version(|s| s.max_instances = 100);
    for _ in 0..20 {
        world.container(&v).await;
    }
    let calls = join_all((0..8).map(|_| world.call(&v, json!({"sleep": 300})))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!((there(&world, &v), world.metrics.claims.get()), (8, 8));
}

#[tokio::test]
async fn an_idle_system_goes_to_zero_and_its_fleets_are_forgotten() {
    let world = World::new(|_| {});
    let versions: Vec<_> = (0..5).map(|_| version(|_| {})).collect();
    let mut seen = Vec::new();
    for v in &versions {
        for _ in 0..3 {
            seen.push(world.container(v).await);
        }
        let calls = join_all((0..3).map(|_| world.call(v, json!({"sleep": 20})))).await;
        assert!(calls.iter().all(Result::is_ok));
    }
    assert_eq!(seen.iter().map(|s| s.inits.load(SeqCst)).sum::<u32>(), 15);
    in_time("everything goes, without anybody having said how long it stays", || {
        seen.iter().all(|s| s.closed.load(SeqCst))
    })
    .await;
    in_time("no fleet is left", || world.instances.counts().is_empty()).await;
}

#[tokio::test]
async fn scale_in_never_fails_a_call() {
    let world = World::new(|l| l.freeze_after = Duration::from_millis(1));
    // Calls come about when the instance of the call before has been idle for its second.
    let fleets = join_all((0..30).map(|n| {
        let world = &world;
        async move {
            let v = version(|s| s.keep_alive_seconds = Some(1));
            let mut seen = Vec::new();
            for _ in 0..4 {
                seen.push(world.container(&v).await);
            }
            for round in 0..4u64 {
                tokio::time::sleep(Duration::from_millis(800 + 15 * ((n + 7 * round) % 30))).await;
                world.call(&v, json!({})).await.unwrap();
            }
            seen
        }
    }))
    .await;
    let seen: Vec<_> = fleets.into_iter().flatten().collect();
    assert_eq!(seen.iter().map(|s| s.invokes.load(SeqCst)).sum::<u32>(), 120);
    assert_eq!(seen.iter().map(|s| s.violations.load(SeqCst)).sum::<u32>(), 0);
    let started = seen.iter().map(|s| s.inits.load(SeqCst)).sum::<u32>();
    assert!(started > 30, "some did go between two calls, or this shows nothing");
}

#[tokio::test]
async fn what_comes_in_a_steady_rhythm_finds_an_instance_that_was_not_kept() {
    let world = World::new(|_| {});
    let v = version(|s| s.keep_alive_seconds = Some(2));
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(world.container(&v).await);
    }
    let period = Duration::from_millis(5_500);
    let mut next = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep_until(next.into()).await;
        world.call(&v, json!({})).await.unwrap();
        next += period;
    }
    in_time("it goes between two calls", || there(&world, &v) == 0).await;
    let (started, called) =
        (world.metrics.claims.get(), seen.iter().map(|s| s.invokes.load(SeqCst)).sum::<u32>());
    in_time("another one is there though nobody called", || there(&world, &v) == 1).await;
    assert_eq!(world.metrics.claims.get(), started + 1);
    assert_eq!((called, seen.iter().map(|s| s.invokes.load(SeqCst)).sum::<u32>()), (4, 4));
    let call = support::call(&v, json!({}));
    let target = davit_gateway::invoke::Target { version: v.clone() };
    assert!(!world.corridor.invoke(target, call).await.cold);
    // Nobody goes on calling; so it is not brought back for ever.
    in_time("the fleet is forgotten", || world.instances.counts().is_empty()).await;
}

#[tokio::test]
async fn a_schedule_finds_an_instance_that_was_not_kept() {
    let world = World::new(|_| {});
    let v = version(|s| s.keep_alive_seconds = Some(5));
    for _ in 0..3 {
        world.container(&v).await;
    }
    world.call(&v, json!({})).await.unwrap();
    let due = Utc::now() + chrono::TimeDelta::seconds(12);
    world.instances.shared().expected.set([(v.function_id, due)].into_iter());
    in_time("it goes", || there(&world, &v) == 0).await;
    in_time("another one is there", || there(&world, &v) == 1).await;
    assert_eq!(world.metrics.claims.get(), 2);
}

#[tokio::test]
async fn a_minimum_is_there_before_the_first_call_and_goes_with_its_version() {
    let world = World::new(|_| {});
    let v = version(|s| (s.min_instances, s.keep_alive_seconds) = (2, Some(1)));
    let other = version(|s| s.keep_alive_seconds = Some(1));
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(world.container(&v).await);
    }
    world.instances.set_live([&v, &other].into_iter());
    in_time("both are there", || there(&world, &v) == 2).await;
    // What a call needs more goes again; the two stay.
    let calls = join_all((0..3).map(|_| world.call(&v, json!({"sleep": 200})))).await;
    assert!(calls.iter().all(Result::is_ok));
    in_time("the third goes", || seen.iter().any(|s| s.closed.load(SeqCst))).await;
    world.call(&other, json!({})).await.unwrap();
    in_time("another version's goes", || there(&world, &other) == 0).await;
    assert_eq!(there(&world, &v), 2);
    // One that is lost is replaced.
    assert!(world.call(&v, json!({"exit": true})).await.is_err());
    in_time("it is replaced", || there(&world, &v) == 2).await;
    world.instances.set_live([&other].into_iter());
    until("they go with their version", || there(&world, &v) == 0).await;
}

#[tokio::test]
async fn asked_for_memory_what_is_idle_and_worth_least_goes_and_what_works_stays() {
    let world = World::new(|_| {});
    let rare = version(|s| s.memory_mb = 512);
    let often = version(|s| (s.handler, s.memory_mb) = ("often".into(), 512));
    let works = version(|s| (s.handler, s.memory_mb) = ("works".into(), 512));
    let kept = version(|s| (s.handler, s.memory_mb, s.min_instances) = ("kept".into(), 512, 1));
    for v in [&rare, &often, &works, &kept] {
        world.container(v).await;
    }
    for _ in 0..10 {
        world.call(&often, json!({})).await.unwrap();
    }
    world.call(&rare, json!({})).await.unwrap();
    world.call(&kept, json!({})).await.unwrap();
    let long = world.call(&works, json!({"sleep": 1_500}));
    let (answer, ()) = tokio::join!(long, async {
        until("it works", || world.instances.fleet(&works).counts().in_use == 1).await;
        assert_eq!(world.instances.give_up(4_096), 0, "all of it would not do, so nothing goes");
        assert_eq!(world.instances.give_up(100), 512);
        assert_eq!((there(&world, &rare), there(&world, &often)), (0, 1), "the one that is seldom called");
        assert_eq!(world.instances.give_up(100), 512);
        assert_eq!(there(&world, &often), 0);
        assert_eq!(world.instances.give_up(1), 0, "nothing is left that may go");
    });
    answer.unwrap();
    assert_eq!((there(&world, &works), there(&world, &kept)), (1, 1));
}
