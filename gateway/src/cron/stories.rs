//! Stories of schedules over a real Postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use davit_api::{FireOutcome, FireView, MissedPolicy, ScheduleName, ScheduleSpec};
use davit_registry::{Changes, ClaimFrom, Registry, ScheduleRow};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::fire::{Looked, look};
use crate::dispatch::stories::{World, eventually};

fn named() -> ScheduleName {
    "tick".parse().unwrap()
}

/// Adds a schedule whose next instant is stored already.
async fn scheduled(world: &World, cron: &str, missed: MissedPolicy, due: DateTime<Utc>) -> ScheduleRow {
    let spec =
        ScheduleSpec { cron: cron.into(), timezone: "UTC".into(), payload: None, missed, enabled: true };
    world
        .registry()
        .as_davit("test")
        .add_schedule(&world.namespace, &world.function, &named(), &spec)
        .await
        .unwrap();
    let id = row(world.registry()).await.id;
    assert!(world.registry().set_next_due(id, None, Some(due)).await.unwrap());
    row(world.registry()).await
}

async fn row(registry: &Registry) -> ScheduleRow {
    registry.schedules_due(Utc::now() + TimeDelta::days(4_000)).await.unwrap().remove(0)
}

async fn fires(world: &World) -> Vec<FireView> {
    world.registry().list_fires(&world.namespace, &world.function, &named(), 1_000).await.unwrap()
}

/// Once a year, so that no real instant comes in between.
const RARE: &str = "0 0 1 1 *";

fn now() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::seconds(1)).unwrap()
}

#[tokio::test]
async fn two_gateways_ring_one_instant_and_it_is_one_invocation() {
    let world = World::new().await;
    let due = now() - TimeDelta::seconds(2);
    scheduled(&world, RARE, MissedPolicy::RunOnce, due).await;
    let stop = CancellationToken::new();
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let changes = Changes::listen(world.registry()).await.unwrap();
        let run = super::run(
            world.registry().clone(),
            changes,
            Arc::new(Notify::new()),
            Arc::default(),
            stop.clone(),
        );
        gateways.push(tokio::spawn(run));
    }
    let seen = eventually(async || Some(fires(&world).await).filter(|f| !f.is_empty())).await;
    // Both have looked by now or find the schedule moved on.
    let moved = eventually(async || row(world.registry()).await.next_due_at.filter(|next| *next > due)).await;
    stop.cancel();
    for gateway in gateways {
        gateway.await.unwrap();
    }
    assert!(moved > now());
    assert_eq!(seen.len(), 1);
    assert_eq!(fires(&world).await.len(), 1);
    let jobs =
        world.registry().claim(davit_api::GatewayId::new(), 10, &mut ClaimFrom::default()).await.unwrap();
    assert_eq!(jobs.iter().map(|j| Some(j.id)).collect::<Vec<_>>(), [seen[0].invocation_id]);
    let event: serde_json::Value = serde_json::from_slice(&jobs[0].payload).unwrap();
    assert_eq!(event["detail-type"], "Scheduled Event");
    assert_eq!(event["time"], due.format("%Y-%m-%dT%H:%M:%SZ").to_string());
}

#[tokio::test]
async fn stale_reads_of_many_gateways_fire_once() {
    let world = World::new().await;
    let stale = scheduled(&world, RARE, MissedPolicy::RunOnce, now()).await;
    let looks = (0..8).map(|_| {
        let (registry, stale) = (world.registry().clone(), stale.clone());
        tokio::spawn(async move { look(&registry, &stale, Utc::now()).await.unwrap() })
    });
    let mut fired = 0;
    for look in looks.collect::<Vec<_>>() {
        fired += usize::from(matches!(look.await.unwrap(), Looked::Fired(..)));
    }
    assert_eq!((fired, fires(&world).await.len()), (1, 1));
}

#[tokio::test]
async fn after_downtime_the_latest_instant_runs_late_and_the_others_are_on_record() {
    let world = World::new().await;
    let hour = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap();
    let stored = scheduled(&world, "0 * * * *", MissedPolicy::RunOnce, hour - TimeDelta::hours(3)).await;
    let at = hour + TimeDelta::minutes(30);
    let looked = look(world.registry(), &stored, at).await.unwrap();
    assert!(
        matches!(looked, Looked::Fired(_, Some(next)) if next == hour + TimeDelta::hours(1)),
        "{looked:?}"
    );
    let outcomes: Vec<_> = fires(&world).await.iter().map(|f| (f.due_at, f.outcome)).collect();
    let missed = |hours| (hour - TimeDelta::hours(hours), FireOutcome::Missed);
    assert_eq!(outcomes, [(hour, FireOutcome::Fired), missed(1), missed(2), missed(3)]);
}

#[tokio::test]
async fn a_schedule_that_skips_records_and_runs_nothing() {
    let world = World::new().await;
    let hour = Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap();
    let stored = scheduled(&world, "0 * * * *", MissedPolicy::Skip, hour - TimeDelta::hours(2)).await;
    let looked = look(world.registry(), &stored, hour + TimeDelta::minutes(30)).await.unwrap();
    assert_eq!(looked, Looked::Next(Some(hour + TimeDelta::hours(1))));
    assert!(fires(&world).await.iter().all(|f| f.outcome == FireOutcome::Missed));
    assert_eq!(fires(&world).await.len(), 3);
    assert!(
        world
            .registry()
            .claim(davit_api::GatewayId::new(), 10, &mut ClaimFrom::default())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_new_schedule_gets_its_next_instant_at_once_and_its_payload_is_the_event() {
    let world = World::new().await;
    let changes = Changes::listen(world.registry()).await.unwrap();
    let stop = CancellationToken::new();
    let wake = Arc::new(Notify::new());
    let running = tokio::spawn(super::run(
        world.registry().clone(),
        changes,
        wake.clone(),
        Arc::default(),
        stop.clone(),
    ));
    // Past the first full read, so that only the notification can be what wakes it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let added = Instant::now();
    let spec = ScheduleSpec {
        cron: RARE.into(),
        timezone: "Europe/Berlin".into(),
        payload: Some(serde_json::json!({"mine": 1})),
        missed: MissedPolicy::RunOnce,
        enabled: true,
    };
    world
        .registry()
        .as_davit("test")
        .add_schedule(&world.namespace, &world.function, &named(), &spec)
        .await
        .unwrap();
    let next = eventually(async || row(world.registry()).await.next_due_at).await;
    assert!(added.elapsed() < Duration::from_secs(4), "it waited for the full read");
    assert_eq!(next.format("%m-%d %H:%M").to_string(), "12-31 23:00", "midnight of Berlin");
    let soon = now() + TimeDelta::seconds(2);
    let id = row(world.registry()).await.id;
    world.registry().set_next_due(id, Some(next), Some(soon)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(15), wake.notified()).await.unwrap();
    assert!(Utc::now() >= soon, "never early");
    let jobs =
        world.registry().claim(davit_api::GatewayId::new(), 10, &mut ClaimFrom::default()).await.unwrap();
    assert_eq!(jobs[0].payload, b"{\"mine\":1}");
    stop.cancel();
    running.await.unwrap();
}
