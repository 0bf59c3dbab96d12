//! Stories of schedules over a real Postgres.

mod thousand;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use davit_api::{
    FireOutcome, FireView, GatewayId, MissedPolicy, OverlapPolicy, RetryPolicy, ScheduleName, ScheduleSpec,
};
use davit_registry::{Changes, ClaimFrom, Due, Job, Registry, ScheduleRow, SchedulesDue, Settlement};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fire::{Looked, Timings, look};
use crate::dispatch::stories::{World, eventually};

fn named() -> ScheduleName {
    "tick".parse().unwrap()
}

/// Once a year, so that no real instant comes in between.
fn rare() -> ScheduleSpec {
    ScheduleSpec::of_cron("0 0 1 1 *")
}
fn hourly() -> ScheduleSpec {
    ScheduleSpec::of_cron("0 * * * *")
}
fn now() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::seconds(1)).unwrap()
}
fn hour() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::hours(1)).unwrap()
}

async fn add(world: &World, name: &ScheduleName, spec: &ScheduleSpec) {
    let davit = world.registry().as_davit("test");
    davit.add_schedule(&world.namespace, &world.function, name, spec).await.unwrap();
}

/// Stores next instants, as a gateway does that has computed them.
async fn store(registry: &Registry, rows: &[ScheduleRow], due: DateTime<Utc>) {
    let to = |row: &ScheduleRow| Due {
        schedule: row.id,
        revision: row.revision,
        stored: row.next_due_at,
        overlap: OverlapPolicy::Allow,
        fires: vec![],
        passed: vec![],
        next: Some(due),
    };
    assert_eq!(registry.ring(rows.iter().map(to).collect()).await.unwrap().len(), rows.len());
}

/// Adds a schedule whose next instant is stored already.
async fn scheduled(world: &World, spec: &ScheduleSpec, due: DateTime<Utc>) -> ScheduleRow {
    add(world, &named(), spec).await;
    store(world.registry(), &[row(world.registry()).await], due).await;
    row(world.registry()).await
}

async fn rows(registry: &Registry) -> SchedulesDue {
    registry.schedules_due(TimeDelta::days(4_000)).await.unwrap()
}

async fn row(registry: &Registry) -> ScheduleRow {
    rows(registry).await.rows.remove(0)
}

/// A look at one schedule as it was read, at some time.
async fn look_at(registry: &Registry, row: &ScheduleRow, now: DateTime<Utc>) -> Looked {
    look(registry, &SchedulesDue { now, rows: vec![row.clone()], more: false }, &mut Timings::default()).await
}

async fn fires(world: &World) -> Vec<FireView> {
    world.registry().list_fires(&world.namespace, &world.function, &named(), None, 1_000).await.unwrap()
}

async fn outcomes(world: &World) -> Vec<(DateTime<Utc>, FireOutcome)> {
    fires(world).await.iter().map(|f| (f.due_at, f.outcome)).collect()
}

async fn claim(world: &World) -> Vec<Job> {
    world.registry().claim(GatewayId::new(), 10, &mut ClaimFrom::default()).await.unwrap()
}

/// A gateway's alarm at work.
async fn gateway(registry: &Registry, wake: Arc<Notify>, stop: &CancellationToken) -> JoinHandle<()> {
    let changes = Changes::listen(registry).await.unwrap();
    tokio::spawn(super::run(registry.clone(), changes, wake, Arc::default(), stop.clone()))
}

#[tokio::test]
async fn two_gateways_ring_one_instant_and_it_is_one_invocation() {
    let world = World::new().await;
    let due = now() - TimeDelta::seconds(2);
    scheduled(&world, &rare(), due).await;
    let stop = CancellationToken::new();
    let mut gateways = Vec::new();
    for _ in 0..2 {
        gateways.push(gateway(world.registry(), Arc::default(), &stop).await);
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
    let jobs = claim(&world).await;
    assert_eq!(jobs.iter().map(|j| Some(j.id)).collect::<Vec<_>>(), [seen[0].invocation_id]);
    let event: serde_json::Value = serde_json::from_slice(&jobs[0].payload).unwrap();
    assert_eq!(event["detail-type"], "Scheduled Event");
    assert_eq!(event["time"], due.format("%Y-%m-%dT%H:%M:%SZ").to_string());
}

#[tokio::test]
async fn stale_reads_of_many_gateways_fire_once() {
    let world = World::new().await;
    let stale = scheduled(&world, &rare(), now()).await;
    let looks = (0..8).map(|_| {
        let (registry, stale) = (world.registry().clone(), stale.clone());
        tokio::spawn(async move { look_at(&registry, &stale, Utc::now()).await })
    });
    let mut fired = 0;
    for look in looks.collect::<Vec<_>>() {
        fired += look.await.unwrap().fired;
    }
    assert_eq!((fired, fires(&world).await.len()), (1, 1));
    // One that slept over it all finds nothing to do.
    assert_eq!(look_at(world.registry(), &stale, Utc::now()).await.fired, 0);
}

#[tokio::test]
async fn after_downtime_the_policy_decides_what_runs_and_all_of_it_is_on_record() {
    let at = hour() + TimeDelta::minutes(30);
    let before = |hours| hour() - TimeDelta::hours(hours);
    let (fired, missed) = (FireOutcome::Fired, FireOutcome::Missed);
    let all = |outcomes: [FireOutcome; 4]| (0..4).map(before).zip(outcomes).collect::<Vec<_>>();
    for (policy, limit, expected) in [
        (MissedPolicy::RunOnce, None, [fired, missed, missed, missed]),
        (MissedPolicy::Skip, None, [missed; 4]),
        (MissedPolicy::RunAll, None, [fired; 4]),
        (MissedPolicy::RunAll, Some(2), [fired, fired, missed, missed]),
    ] {
        let world = World::new().await;
        let spec = ScheduleSpec { missed: policy, missed_limit: limit, ..hourly() };
        let stored = scheduled(&world, &spec, before(3)).await;
        let looked = look_at(world.registry(), &stored, at).await;
        assert_eq!(looked.next, [(stored.function_id, before(-1))]);
        assert_eq!(outcomes(&world).await, all(expected), "{policy:?}");
        let times: Vec<_> = claim(&world).await.iter().map(|job| job.payload.clone()).collect();
        assert_eq!(times.len(), expected.iter().filter(|o| **o == fired).count());
        let time =
            |bytes: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["time"].to_string();
        assert!(times.iter().map(time).is_sorted(), "they run in order");
    }
}

#[tokio::test]
async fn a_schedule_that_was_made_while_no_gateway_ran_is_due_from_then_on() {
    let world = World::new().await;
    add(&world, &named(), &ScheduleSpec { every: Some("1h".into()), cron: None, ..hourly() }).await;
    let made = row(world.registry()).await;
    let first = made.created_at.duration_trunc(TimeDelta::seconds(1)).unwrap() + TimeDelta::hours(1);
    look_at(world.registry(), &made, first + TimeDelta::minutes(90)).await;
    let expected = [(first + TimeDelta::hours(1), FireOutcome::Fired), (first, FireOutcome::Missed)];
    assert_eq!(outcomes(&world).await, expected);
}

#[tokio::test]
async fn a_new_schedule_gets_its_next_instant_at_once_and_its_payload_is_the_event() {
    let world = World::new().await;
    let stop = CancellationToken::new();
    let wake = Arc::new(Notify::new());
    let running = gateway(world.registry(), wake.clone(), &stop).await;
    // Past the first full read, so that only the notification can be what wakes it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let added = Instant::now();
    let payload = json!({"mine": 1, "of": "{{namespace}}/{{function}}/{{schedule}}", "due": "{{due_at}}"});
    let spec = ScheduleSpec { timezone: "Europe/Berlin".into(), payload: Some(payload), ..rare() };
    add(&world, &named(), &spec).await;
    let next = eventually(async || row(world.registry()).await.next_due_at).await;
    assert!(added.elapsed() < Duration::from_secs(4), "it waited for the full read");
    assert_eq!(next.format("%m-%d %H:%M").to_string(), "12-31 23:00", "midnight of Berlin");
    let soon = now() + TimeDelta::seconds(2);
    store(world.registry(), &[row(world.registry()).await], soon).await;
    tokio::time::timeout(Duration::from_secs(15), wake.notified()).await.unwrap();
    assert!(Utc::now() >= soon, "never early");
    let event: serde_json::Value = serde_json::from_slice(&claim(&world).await[0].payload).unwrap();
    let due = soon.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    assert_eq!(event, json!({"mine": 1, "of": "shop/f/tick", "due": due}));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_moment_fires_once_and_nobody_looks_at_it_again() {
    let world = World::new().await;
    let at = now() - TimeDelta::minutes(2);
    let spec = ScheduleSpec { cron: None, at: Some(at.to_rfc3339()), ..rare() };
    let stored = scheduled(&world, &spec, at).await;
    let looked = look_at(world.registry(), &stored, Utc::now()).await;
    assert_eq!((looked.fired, looked.next), (1, vec![]));
    assert!(rows(world.registry()).await.rows.is_empty());
    let view = world.registry().schedule(&world.namespace, &world.function, &named()).await.unwrap();
    assert_eq!((view.next_due_at, view.last_due_at), (None, Some(at)));
}

#[tokio::test]
async fn an_edit_between_the_read_and_the_ring_wins() {
    let world = World::new().await;
    let stale = scheduled(&world, &hourly(), hour()).await;
    let edit = async |spec: ScheduleSpec| {
        let davit = world.registry().as_davit("test");
        davit.edit_schedule(&world.namespace, &world.function, &named(), move |_, _| Ok(spec)).await.unwrap()
    };
    // The event alone changes: the instant stands, and fires with the new event.
    let edited = edit(ScheduleSpec { payload: Some(json!("new")), ..hourly() }).await;
    assert_eq!(edited.next_due_at, Some(hour()));
    let at = hour() + TimeDelta::minutes(1);
    let looked = look_at(world.registry(), &stale, at).await;
    assert_eq!((looked.fired, looked.left), (0, true), "what it read is no longer so");
    assert_eq!(look_at(world.registry(), &row(world.registry()).await, at).await.fired, 1);
    assert_eq!(claim(&world).await[0].payload, b"\"new\"");
    // The timing changes: the next instant is the new timing's, whoever still holds the old one.
    let stale = row(world.registry()).await;
    edit(ScheduleSpec { timezone: "Asia/Kolkata".into(), ..hourly() }).await;
    let later = hour() + TimeDelta::minutes(121);
    assert_eq!(look_at(world.registry(), &stale, later).await.fired, 0);
    let fresh = row(world.registry()).await;
    assert_eq!(fresh.next_due_at, None);
    look_at(world.registry(), &fresh, now()).await;
    let next = row(world.registry()).await.next_due_at.unwrap();
    assert_eq!(next.format("%M").to_string(), "30", "Kolkata is five and a half hours ahead");
}

#[tokio::test]
async fn with_skip_an_instant_is_skipped_while_the_one_before_still_runs() {
    let world = World::new().await;
    let spec = ScheduleSpec { overlap: OverlapPolicy::Skip, ..hourly() };
    scheduled(&world, &spec, hour()).await;
    let ring = async |hours: i64| {
        let at = hour() + TimeDelta::hours(hours) + TimeDelta::seconds(1);
        look_at(world.registry(), &row(world.registry()).await, at).await.fired
    };
    assert_eq!(ring(0).await, 1);
    let running = claim(&world).await.remove(0);
    assert_eq!((ring(1).await, ring(2).await), (0, 0));
    let ended = Settlement::Succeeded { result: b"1".to_vec() };
    assert!(world.registry().settle(running.id, running.attempt, ended).await.unwrap());
    assert_eq!(ring(3).await, 1);
    let seen = fires(&world).await;
    let reasons: Vec<_> = seen.iter().map(|f| f.reason.map(|r| r.as_str())).collect();
    assert_eq!(reasons, [None, Some("overlap"), Some("overlap"), None]);
    let states: Vec<_> = seen.iter().map(|f| f.invocation_state.map(|s| s.as_str())).collect();
    assert_eq!(states, [Some("queued"), None, None, Some("succeeded")]);
}

#[tokio::test]
async fn with_queue_one_runs_after_the_other_and_a_call_by_hand_waits_too() {
    let world = World::new().await;
    let spec = ScheduleSpec { overlap: OverlapPolicy::Queue, missed: MissedPolicy::RunAll, ..hourly() };
    scheduled(&world, &spec, hour() - TimeDelta::hours(2)).await;
    let at = hour() + TimeDelta::seconds(1);
    assert_eq!(look_at(world.registry(), &row(world.registry()).await, at).await.fired, 3);
    let davit = world.registry().as_davit("test");
    let by_hand =
        davit.run_schedule_now(&world.namespace, &world.function, &named(), b"1".to_vec()).await.unwrap();
    let mut ran = Vec::new();
    while let [job] = claim(&world).await.as_slice() {
        let ended = Settlement::Succeeded { result: b"1".to_vec() };
        assert!(claim(&world).await.is_empty(), "one at a time");
        assert!(world.registry().settle(job.id, job.attempt, ended).await.unwrap());
        ran.push(Some(job.id));
    }
    let mut wanted: Vec<_> = fires(&world).await.iter().rev().map(|fire| fire.invocation_id).collect();
    wanted.push(Some(by_hand));
    assert_eq!(ran, wanted);
}

#[tokio::test]
async fn with_replace_the_earlier_call_is_cancelled_whether_it_waits_or_runs() {
    let world = World::new().await;
    let spec = ScheduleSpec { overlap: OverlapPolicy::Replace, ..hourly() };
    scheduled(&world, &spec, hour()).await;
    let ring = async |hours: i64| {
        let at = hour() + TimeDelta::hours(hours) + TimeDelta::seconds(1);
        assert_eq!(look_at(world.registry(), &row(world.registry()).await, at).await.fired, 1);
    };
    ring(0).await;
    ring(1).await;
    let gateway = GatewayId::new();
    let running = world.registry().claim(gateway, 10, &mut ClaimFrom::default()).await.unwrap();
    assert_eq!(running.len(), 1, "the first one is gone");
    ring(2).await;
    assert_eq!(world.registry().jobs_to_cancel(gateway).await.unwrap(), [running[0].id]);
    assert_eq!(claim(&world).await.len(), 1, "the newest does not wait for it");
    let states: Vec<_> = fires(&world).await.iter().map(|f| f.invocation_state.unwrap().as_str()).collect();
    assert_eq!(states, ["running", "running", "cancelled"]);
}

#[tokio::test]
async fn a_schedules_own_retry_policy_is_stamped_on_its_calls() {
    let world = World::new().await;
    let retry = RetryPolicy { max_attempts: 7, max_age_seconds: 60, ..RetryPolicy::default() };
    scheduled(&world, &ScheduleSpec { retry: Some(retry), ..hourly() }, hour()).await;
    look_at(world.registry(), &row(world.registry()).await, hour() + TimeDelta::seconds(1)).await;
    assert_eq!(claim(&world).await[0].policy, retry);
}

#[tokio::test]
async fn an_event_that_grew_too_large_is_skipped_and_keeps_no_other_from_ringing() {
    let world = World::new().await;
    let large = "x".repeat(1024 * 1024);
    let spec = ScheduleSpec { payload: Some(json!(large)), ..rare() };
    scheduled(&world, &spec, now()).await;
    add(&world, &"other".parse().unwrap(), &rare()).await;
    let mut both = rows(world.registry()).await;
    both.rows.retain(|row| row.name.as_str() == "other");
    store(world.registry(), &both.rows, now()).await;
    let due = SchedulesDue { now: Utc::now(), ..rows(world.registry()).await };
    assert_eq!(look(world.registry(), &due, &mut Timings::default()).await.fired, 1);
    let seen = fires(&world).await;
    assert_eq!((seen.len(), seen[0].reason.unwrap().as_str()), (1, "too_large"));
}

#[tokio::test]
async fn jitter_moves_the_ring_and_not_the_instant() {
    let world = World::new().await;
    let spec = ScheduleSpec { jitter: Some("30m".into()), ..hourly() };
    let stored = scheduled(&world, &spec, hour()).await;
    let timing = davit_cron::Timing::of(&spec, stored.created_at).unwrap();
    let rings = timing.rings_at(stored.id.0.as_u128(), hour());
    let early = look_at(world.registry(), &stored, rings - TimeDelta::milliseconds(1)).await;
    assert_eq!((early.fired, early.next), (0, vec![(stored.function_id, rings)]));
    assert_eq!(look_at(world.registry(), &stored, rings).await.fired, 1);
    let fire = fires(&world).await.remove(0);
    assert_eq!((fire.due_at, fire.planned_at), (hour(), Some(rings)));
}
