//! Debuggers' connections to instances, against agents that speak the real protocol: what they hold up, and what ends them.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use davit_api::{DebugSettings, ErrorCode, InstanceId};
use davit_gateway::instances::Attached;
use davit_gateway::invoke::CallError;
use davit_gateway::version::LiveVersion;
use serde_json::json;
use support::{World, until, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn debugged() -> Arc<LiveVersion> {
    version(|spec| {
        (spec.debug, spec.max_instances, spec.timeout_seconds) = (Some(DebugSettings::default()), 1, 900);
    })
}

/// What stands for a debugger: it says back what it is told.
async fn debugger() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn attach(world: &World, version: &Arc<LiveVersion>) -> Result<Attached, CallError> {
    world.instances.fleet(version).attach(Instant::now() + Duration::from_secs(10)).await
}

#[tokio::test]
async fn an_instance_is_started_for_a_debugger_and_stays_awake_until_that_goes() {
    let world = World::new(|limits| limits.freeze_after = Duration::from_millis(10));
    let v = debugged();
    let seen = world.container_with(&v, Some(debugger().await)).await;
    let (mut stream, held) = attach(&world, &v).await.unwrap().split();
    stream.write_all(b"step").await.unwrap();
    let mut said = [0; 4];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!((&said, seen.inits.load(SeqCst)), (b"step", 1));

    for _ in 0..3 {
        world.call(&v, json!({"sleep": 20})).await.unwrap();
    }
    assert_eq!(world.instances.give_up(1), 0, "nobody takes its memory");
    assert_eq!((seen.freezes.load(SeqCst), world.instances.fleet(&v).counts().active), (0, 1));
    drop((stream, held));
    let frozen = || world.instances.fleet(&v).counts().frozen == 1 && seen.freezes.load(SeqCst) == 1;
    until("it freezes", frozen).await;

    // And it is thawed for the next one.
    let again = attach(&world, &v).await.unwrap();
    assert_eq!((seen.thaws.load(SeqCst), world.instances.fleet(&v).counts().active), (1, 1));
    drop(again);
    until("it freezes again", || seen.freezes.load(SeqCst) == 2).await;
    assert!(world.instances.give_up(1) > 0, "now it may go");
    assert_eq!((seen.inits.load(SeqCst), seen.violations.load(SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_call_that_runs_keeps_no_debugger_out() {
    let world = World::new(|_| {});
    let v = debugged();
    let seen = world.container_with(&v, Some(debugger().await)).await;
    let call = world.call(&v, json!({"sleep": 3_000}));
    let attached = async {
        until("the call runs", || seen.running.load(SeqCst) == 1).await;
        let attached = attach(&world, &v).await.unwrap();
        assert_eq!(world.instances.fleet(&v).counts().in_use, 1, "it is there before the call ends");
        attached
    };
    let (called, attached) = tokio::join!(call, attached);
    called.unwrap();
    drop(attached);
}

#[tokio::test]
async fn there_are_so_many_connections_and_no_more() {
    let world = World::new(|_| {});
    let v = debugged();
    world.container_with(&v, Some(debugger().await)).await;
    let mut all = Vec::new();
    let refused = loop {
        match attach(&world, &v).await {
            Ok(attached) => all.push(attached),
            Err(refused) => break refused,
        }
        assert!(all.len() < 100);
    };
    assert_eq!((all.len(), refused.error.code), (8, ErrorCode::TooManyRequests));
    all.pop();
    assert!(attach(&world, &v).await.is_ok(), "a place is free again");
}

#[tokio::test]
async fn another_version_ends_the_connection_and_lets_the_instance_go() {
    let world = World::new(|_| {});
    let (old, new) = (debugged(), debugged());
    let seen = world.container_with(&old, Some(debugger().await)).await;
    let (stream, held) = attach(&world, &old).await.unwrap().split();
    world.instances.set_live([&new].into_iter());
    tokio::time::timeout(Duration::from_secs(30), held.ended()).await.expect("it is told");
    drop((stream, held));
    until("the instance goes", || seen.closed.load(SeqCst)).await;
}

#[tokio::test]
async fn what_the_agent_refuses_is_said_and_holds_nothing() {
    let world = World::new(|limits| limits.freeze_after = Duration::from_millis(10));
    let v = debugged();
    let (_instance, seen) = world.instance(InstanceId::new(), &v, None).await;
    let refused = attach(&world, &v).await.err().unwrap();
    assert_eq!((refused.error.code, refused.error.message.as_str()), (ErrorCode::Conflict, "no server"));
    until("it freezes", || seen.freezes.load(SeqCst) == 1).await;
}
