//! The corridor against agents that speak the real protocol: claims, waiting, limits, failures, idleness.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use davit_api::{ErrorCode, InstanceState};
use davit_gateway::invoke::Target;
use serde_json::json;
use support::{World, call, until, version};

#[tokio::test]
async fn the_first_call_claims_and_the_next_ones_are_warm() {
    let world = World::new(|_| {});
    let v = version(|_| {});
    let seen = world.container(&v).await;
    let first = world.corridor.invoke(Target { version: v.clone() }, call(&v, json!({}))).await;
    assert!(first.cold && first.result.is_ok() && first.timings.init_ms > 0.0);
    let second = world.corridor.invoke(Target { version: v.clone() }, call(&v, json!({}))).await;
    assert!(!second.cold && second.result.is_ok());
    assert_eq!((seen.inits.load(SeqCst), seen.invokes.load(SeqCst)), (1, 2));
}

#[tokio::test]
async fn a_call_waits_for_an_instance_and_says_so_when_none_comes() {
    let world = World::new(|_| {});
    let v = version(|s| s.timeout_seconds = 1);
    let failed = world.call(&v, json!({})).await.unwrap_err();
    assert_eq!((failed.error.code, failed.started), (ErrorCode::NoCapacity, false));
    until("the start that nobody needs ends", || world.instances.fleet(&v).counts().starting == 0).await;
    assert_eq!(world.instances.wanted()[0].waiting, 0);

    let waiting = world.call(&v, json!({"a": 1}));
    let (answer, _) = tokio::join!(waiting, async {
        until("demand is visible", || world.instances.wanted()[0].waiting == 1).await;
        world.container(&v).await
    });
    assert_eq!(answer.unwrap()["event"]["a"], 1);
}

#[tokio::test]
async fn one_instance_takes_one_call_at_a_time_and_answers_are_never_crossed() {
    let world = World::new(|_| {});
    let v = version(|s| s.max_instances = 2);
    let seen = [world.container(&v).await, world.container(&v).await];
    let calls = (0..40).map(|n| {
        let (world, v) = (&world, &v);
        async move { (n, world.call(v, json!({ "n": n, "sleep": n % 3 })).await.unwrap()) }
    });
    for (n, answer) in futures_util::future::join_all(calls).await {
        assert_eq!(answer["event"]["n"], n);
    }
    assert_eq!(seen.iter().map(|s| s.invokes.load(SeqCst)).sum::<u32>(), 40);
    assert!(seen.iter().all(|s| s.most_running.load(SeqCst) == 1 && s.inits.load(SeqCst) == 1));
    assert_eq!(world.instances.fleet(&v).counts().in_use, 0);
}

#[tokio::test]
async fn concurrency_shares_an_instance() {
    let world = World::new(|_| {});
    let v = version(|s| (s.concurrency, s.max_instances) = (8, 1));
    let seen = world.container(&v).await;
    let calls = (0..16).map(|_| world.call(&v, json!({"sleep": 20})));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    let most = seen.most_running.load(SeqCst);
    assert!((2..=8).contains(&most), "{most}");
}

#[tokio::test]
async fn an_instance_whose_machine_wants_it_gone_ends_its_calls_while_another_takes_the_next() {
    let world = World::new(|_| {});
    let v = version(|s| s.max_instances = 1);
    let seen = [world.container(&v).await, world.container(&v).await];
    let leaving = world.call(&v, json!({"leave": true, "sleep": 400}));
    let next = async {
        until("it has begun", || seen[0].running.load(SeqCst) == 1).await;
        until("another one is there", || seen[1].inits.load(SeqCst) == 1).await;
        let answer = world.call(&v, json!({"n": 2})).await;
        assert_eq!(seen[0].running.load(SeqCst), 1, "it did not wait for the first one");
        answer
    };
    let (first, second) = tokio::join!(leaving, next);
    assert!(first.is_ok());
    assert_eq!(second.unwrap()["event"]["n"], 2);
    until("the first is let go after its last call", || seen[0].closed.load(SeqCst)).await;
    assert_eq!((seen[0].invokes.load(SeqCst), seen[1].invokes.load(SeqCst)), (1, 1));
    assert!(!seen[1].closed.load(SeqCst));
}

#[tokio::test]
async fn what_came_in_the_place_of_an_instance_that_leaves_stays_while_its_last_call_goes_on() {
    let world = World::new(|_| {});
    let v = version(|s| s.max_instances = 1);
    let seen = [world.container(&v).await, world.container(&v).await];
    // Longer than the time between two looks at what is idle.
    let leaving = world.call(&v, json!({"leave": true, "sleep": 2_500}));
    let next = async {
        until("another one is there", || seen[1].inits.load(SeqCst) == 1).await;
        world.call(&v, json!({"n": 2})).await
    };
    let (first, second) = tokio::join!(leaving, next);
    assert!(first.is_ok() && second.is_ok());
    assert!(!seen[1].closed.load(SeqCst), "it was one too many only as long as the other one counted");
}

#[tokio::test]
async fn a_full_line_refuses_at_once_and_safely() {
    let world = World::new(|l| l.waiting = 2);
    let v = version(|s| s.max_instances = 1);
    let seen = world.container(&v).await;
    let calls = (0..10).map(|_| world.call(&v, json!({"sleep": 50})));
    let results = futures_util::future::join_all(calls).await;
    let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() >= 7, "{}", refused.len());
    assert!(refused.iter().all(|e| e.error.code == ErrorCode::TooManyRequests && !e.started));
    assert_eq!(seen.most_running.load(SeqCst), 1);
}

#[tokio::test]
async fn a_function_error_keeps_the_instance_and_a_crash_replaces_it() {
    let world = World::new(|_| {});
    let v = version(|_| {});
    let first = world.container(&v).await;
    let failed = world.call(&v, json!({"fail": true})).await.unwrap_err();
    assert_eq!((failed.error.code, failed.started), (ErrorCode::FunctionError, true));
    assert_eq!(failed.function_error.unwrap()["errorMessage"], "boom");
    assert!(world.call(&v, json!({})).await.is_ok());
    let died = world.call(&v, json!({"exit": true})).await.unwrap_err();
    assert_eq!(died.error.code, ErrorCode::FunctionExited);
    let second = world.container(&v).await;
    assert!(world.call(&v, json!({})).await.is_ok());
    assert_eq!((first.inits.load(SeqCst), second.inits.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_version_that_cannot_start_says_why_and_stops_eating_the_pool() {
    let world = World::new(|_| {});
    let v = version(|s| s.handler = "broken".into());
    // The pause doubles with each failure, so however slow the machine, one of these calls falls into it.
    for tried in 0.. {
        let instance = world.container(&v).await;
        let failed = world.call(&v, json!({})).await.unwrap_err();
        assert_eq!((failed.error.code, failed.started), (ErrorCode::FunctionInitFailed, false));
        if instance.inits.load(SeqCst) == 0 {
            assert!(tried >= 3, "bad luck is not taken for a broken version");
            return;
        }
        assert!(tried < 12, "starting pauses after repeated failures");
    }
}

#[tokio::test]
async fn an_instance_lost_at_its_start_is_replaced_unseen() {
    let world = World::new(|_| {});
    let v = version(|s| s.handler = "dies".into());
    for _ in 0..3 {
        world.container(&v).await;
    }
    let failed = world.call(&v, json!({})).await.unwrap_err();
    assert_eq!((failed.error.code, failed.started), (ErrorCode::Unavailable, false));
    assert_eq!(world.metrics.claims.get(), 3);
}

#[tokio::test]
async fn a_handler_whose_caller_hung_up_may_finish_and_keeps_its_instance() {
    let world = World::new(|_| {});
    let v = version(|s| s.max_instances = 1);
    let seen = world.container(&v).await;
    for _ in 0..5 {
        let gone =
            tokio::time::timeout(Duration::from_millis(20), world.call(&v, json!({"sleep": 60}))).await;
        assert!(gone.is_err());
    }
    assert!(world.call(&v, json!({})).await.is_ok());
    assert_eq!((seen.inits.load(SeqCst), seen.cancels.load(SeqCst)), (1, 0));
    assert_eq!(seen.most_running.load(SeqCst), 1);
}

#[tokio::test]
async fn a_caller_who_hangs_up_frees_the_slot_and_the_instance_serves_nobody_else() {
    let world = World::new(|l| l.abandon_grace = Duration::from_millis(50));
    let v = version(|s| s.max_instances = 1);
    let first = world.container(&v).await;
    let gone =
        tokio::time::timeout(Duration::from_millis(50), world.call(&v, json!({"sleep": 10_000}))).await;
    assert!(gone.is_err());
    until("the agent is told", || first.closed.load(SeqCst)).await;
    let second = world.container(&v).await;
    assert!(world.call(&v, json!({})).await.is_ok());
    assert_eq!((first.invokes.load(SeqCst), second.invokes.load(SeqCst)), (1, 1));
}

#[tokio::test]
async fn a_thousand_callers_who_hang_up_while_waiting_leave_nothing() {
    let world = World::new(|l| l.waiting = 2_000);
    let v = version(|s| s.max_instances = 1_000);
    let calls =
        (0..1_000).map(|_| tokio::time::timeout(Duration::from_millis(30), world.call(&v, json!({}))));
    futures_util::future::join_all(calls).await;
    let fleet = world.instances.fleet(&v);
    until("nothing waits", || fleet.counts() == Default::default()).await;
    assert_eq!(world.metrics.calls_open.get(), 0);
    world.container(&v).await;
    assert!(world.call(&v, json!({})).await.is_ok());
}

#[tokio::test]
async fn idle_instances_freeze_thaw_for_the_next_call_and_go_in_the_end() {
    let mut world = World::new(|l| l.freeze_after = Duration::from_millis(10));
    let v = version(|s| s.keep_alive_seconds = Some(1));
    let seen = world.container(&v).await;
    for _ in 0..3 {
        assert!(world.call(&v, json!({})).await.is_ok());
        let before = seen.freezes.load(SeqCst);
        until("it freezes", || {
            world.instances.fleet(&v).counts().frozen == 1 && seen.freezes.load(SeqCst) > before
        })
        .await;
    }
    until("it goes", || seen.closed.load(SeqCst)).await;
    assert_eq!(world.instances.fleet(&v).counts(), Default::default());
    assert_eq!((seen.violations.load(SeqCst), seen.thaws.load(SeqCst)), (0, 2));
    let mut states = Vec::new();
    while let Ok(fact) = world.feeds.instances.try_recv() {
        states.push(fact.state);
    }
    assert_eq!(states.first(), Some(&InstanceState::Active));
    assert_eq!(states.last(), Some(&InstanceState::Released));
    assert!(states.contains(&InstanceState::Frozen));
}

#[tokio::test]
async fn freezing_and_calling_race_without_harm() {
    let world = World::new(|l| l.freeze_after = Duration::from_millis(1));
    let v = version(|s| (s.concurrency, s.max_instances) = (4, 2));
    let seen = [world.container(&v).await, world.container(&v).await];
    for round in 0..100 {
        let calls = (0..3).map(|n| world.call(&v, json!({"sleep": (round + n) % 3})));
        assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
        tokio::time::sleep(Duration::from_micros(700 * (round % 4))).await;
    }
    assert!(seen.iter().all(|s| s.violations.load(SeqCst) == 0));
}

#[tokio::test]
async fn a_superseded_version_goes_as_soon_as_it_is_idle() {
    let world = World::new(|_| {});
    let (old, new) = (version(|_| {}), version(|_| {}));
    let seen = world.container(&old).await;
    assert!(world.call(&old, json!({})).await.is_ok());
    world.instances.set_live([&new].into_iter());
    until("the old one goes", || seen.closed.load(SeqCst)).await;
}

#[tokio::test]
async fn the_end_of_the_log_comes_with_the_call() {
    let world = World::new(|_| {});
    let v = version(|_| {});
    world.container(&v).await;
    let tail = std::sync::Arc::new(davit_gateway::instances::LogTail::default());
    let mut asked = call(&v, json!({"log": "hello"}));
    asked.log_tail = Some(tail.clone());
    assert!(world.corridor.invoke(Target { version: v.clone() }, asked).await.result.is_ok());
    assert_eq!(tail.text(), "hello\n");
}
