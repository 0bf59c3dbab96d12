//! An instant happens once, however many gateways ring, and whatever somebody changes meanwhile.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use davit_api::{
    ErrorCode, FireOutcome, FireView, NewVersion, OverlapPolicy, ScheduleName, ScheduleSpec, ScheduleView,
    SkipReason,
};
use davit_registry::testing::TestDatabase;
use davit_registry::{ClaimFrom, Due, Fire, Passed, Registry, ScheduleRow};

use crate::support::*;

fn every_minute() -> ScheduleSpec {
    ScheduleSpec::of_cron("* * * * *")
}
fn tick() -> ScheduleName {
    "tick".parse().unwrap()
}
fn now() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::seconds(1)).unwrap()
}

/// A database with a function that is live and has one schedule.
async fn scheduled() -> (TestDatabase, Registry) {
    let db = fresh().await;
    let registry = db.registry().clone();
    deployed(&registry, "f", &spec(), b"a").await;
    add(&registry, "tick").await;
    (db, registry)
}

async fn add(registry: &Registry, named: &str) -> ScheduleView {
    let named = named.parse().unwrap();
    registry.as_davit("test").add_schedule(&ns(), &name("f"), &named, &every_minute()).await.unwrap()
}

async fn due_rows(registry: &Registry) -> Vec<ScheduleRow> {
    registry.schedules_due(TimeDelta::days(4_000)).await.unwrap().rows
}

async fn row(registry: &Registry) -> ScheduleRow {
    due_rows(registry).await.remove(0)
}

fn moving(row: &ScheduleRow, next: Option<DateTime<Utc>>) -> Due {
    Due {
        schedule: row.id,
        revision: row.revision,
        stored: row.next_due_at,
        overlap: OverlapPolicy::Allow,
        fires: vec![],
        passed: vec![],
        next,
    }
}

fn firing(row: &ScheduleRow, due_at: DateTime<Utc>, next: Option<DateTime<Utc>>) -> Due {
    let fire = Fire { due_at, planned_at: due_at, payload: b"{}".to_vec() };
    Due { fires: vec![fire], ..moving(row, next) }
}

async fn fires(registry: &Registry) -> Vec<FireView> {
    registry.list_fires(&ns(), &name("f"), &tick(), None, 1_000).await.unwrap()
}

async fn edit(registry: &Registry, spec: ScheduleSpec) -> ScheduleView {
    let davit = registry.as_davit("test");
    davit.edit_schedule(&ns(), &name("f"), &tick(), move |_, _| Ok(spec)).await.unwrap()
}

#[tokio::test]
async fn many_gateways_ring_and_one_fires() {
    let (_db, registry) = scheduled().await;
    let twice = registry.as_davit("test").add_schedule(&ns(), &name("f"), &tick(), &every_minute()).await;
    assert_eq!(code(twice), ErrorCode::Conflict);

    let due = now() + TimeDelta::hours(1);
    let (missed, next) = (due - TimeDelta::minutes(1), due + TimeDelta::minutes(1));
    let fresh = row(&registry).await;
    assert_eq!(registry.ring(vec![moving(&fresh, Some(due))]).await.unwrap().len(), 1);
    assert!(registry.ring(vec![moving(&fresh, Some(next))]).await.unwrap().is_empty(), "it moved on since");
    let within =
        async |minutes| registry.schedules_due(TimeDelta::minutes(minutes)).await.unwrap().rows.len();
    assert_eq!((within(58).await, within(61).await), (0, 1), "it needs nothing long before its instant");
    let row = row(&registry).await;
    let rings = (0..8).map(|_| {
        let registry = registry.clone();
        let passed = vec![Passed { due_at: missed, skipped: None }];
        let due = Due { passed, ..firing(&row, due, Some(next)) };
        tokio::spawn(async move { registry.ring(vec![due]).await.unwrap() })
    });
    let mut fired = Vec::new();
    for ring in rings.collect::<Vec<_>>() {
        fired.extend(ring.await.unwrap().into_iter().flat_map(|rung| rung.fired));
    }
    assert_eq!(fired.len(), 1);
    let invocation = registry.invocation(&ns(), fired[0].1).await.unwrap();
    assert_eq!(invocation.source, davit_api::InvocationSource::Schedule);
    let unknown = registry.list_fires(&ns(), &name("f"), &"tock".parse().unwrap(), None, 10).await;
    assert_eq!(code(unknown), ErrorCode::NotFound, "not the same as one that has not rung yet");
    let seen = fires(&registry).await;
    let outcomes: Vec<_> = seen.iter().map(|f| (f.due_at, f.outcome)).collect();
    assert_eq!(outcomes, [(due, FireOutcome::Fired), (missed, FireOutcome::Missed)]);
    let older = registry.list_fires(&ns(), &name("f"), &tick(), Some(due), 10).await.unwrap();
    assert_eq!(older, seen[1..], "a page goes on where the one before ended");
    let davit = registry.as_davit("test");
    davit.run_schedule_now(&ns(), &name("f"), &tick(), b"{}".to_vec()).await.unwrap();
    davit.remove_schedule(&ns(), &name("f"), &tick()).await.unwrap();
    assert_eq!(code(davit.remove_schedule(&ns(), &name("f"), &tick()).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn an_instant_on_record_never_fires_again() {
    let (_db, registry) = scheduled().await;
    let due = now();
    registry.ring(vec![firing(&row(&registry).await, due, Some(due))]).await.unwrap();
    // The database's clock went back, say, and the same instant is the next one again.
    let rung = registry.ring(vec![firing(&row(&registry).await, due, None)]).await.unwrap();
    assert!(rung[0].fired.is_empty());
    assert_eq!(fires(&registry).await.len(), 1);
    assert!(due_rows(&registry).await.is_empty(), "it moved on all the same");
}

#[tokio::test]
async fn one_transaction_rings_many_and_leaves_out_what_changed_since_it_was_read() {
    let (db, registry) = scheduled().await;
    for n in 0..20 {
        add(&registry, &format!("s{n}")).await;
    }
    let (rows, due) = (due_rows(&registry).await, now());
    registry.as_davit("test").pause_schedule(&ns(), &name("f"), &tick()).await.unwrap();
    let removed = rows.iter().find(|row| row.name.as_str() == "s7").unwrap();
    registry.as_davit("test").remove_schedule(&ns(), &name("f"), &removed.name).await.unwrap();
    let rung = registry.ring(rows.iter().map(|row| firing(row, due, None)).collect()).await.unwrap();
    assert_eq!(rung.len(), 19);
    assert!(rung.iter().all(|rung| rung.fired.len() == 1));
    assert_eq!(db.fire_transactions().await, 1);
    let jobs = registry.claim(davit_api::GatewayId::new(), 100, &mut ClaimFrom::default()).await.unwrap();
    assert_eq!(jobs.len(), 19);
    // With the function out of service, nothing rings.
    let name = rows[1].name.clone();
    registry.as_davit("test").delete_function(&ns(), &crate::support::name("f")).await.unwrap();
    assert!(registry.ring(vec![moving(&rows[1], Some(due))]).await.unwrap().is_empty(), "{name}");
}

#[tokio::test]
async fn a_pause_forgets_what_passes_and_writes_down_what_had_come() {
    let (_db, registry) = scheduled().await;
    let davit = registry.as_davit("test");
    let due = now();
    registry.ring(vec![moving(&row(&registry).await, Some(due))]).await.unwrap();
    let read = row(&registry).await;
    davit.pause_schedule(&ns(), &name("f"), &tick()).await.unwrap();
    assert!(registry.ring(vec![firing(&read, due, None)]).await.unwrap().is_empty());
    let resumed = davit.resume_schedule(&ns(), &name("f"), &tick()).await.unwrap();
    assert_eq!((resumed.next_due_at, resumed.last_due_at), (None, Some(due)));
    let fire = fires(&registry).await.remove(0);
    assert_eq!((fire.outcome, fire.reason), (FireOutcome::Skipped, Some(SkipReason::Paused)));
    // From when it was resumed on, instants are due, whoever computes the first one and when.
    assert!(row(&registry).await.due_from.unwrap() > due);
    let again = davit.resume_schedule(&ns(), &name("f"), &tick()).await.unwrap();
    assert_eq!(again.next_due_at, None);
    assert_eq!(fires(&registry).await.len(), 1);
}

#[tokio::test]
async fn an_edit_keeps_the_next_instant_unless_the_timing_changes() {
    let (_db, registry) = scheduled().await;
    let due = now() - TimeDelta::seconds(5);
    registry.ring(vec![moving(&row(&registry).await, Some(due))]).await.unwrap();
    let mut spec = ScheduleSpec { payload: Some(serde_json::json!({"a": 1})), ..every_minute() };
    let edited = edit(&registry, spec.clone()).await;
    assert_eq!((edited.next_due_at, edited.spec.payload.is_some()), (Some(due), true));
    assert!(fires(&registry).await.is_empty());
    let read = row(&registry).await;
    assert_eq!(read.revision, 1, "whoever read it before the edit can no longer ring it");
    spec.timezone = "Europe/Berlin".into();
    assert_eq!(edit(&registry, spec.clone()).await.next_due_at, None);
    let fire = fires(&registry).await.remove(0);
    assert_eq!((fire.due_at, fire.reason), (due, Some(SkipReason::Edited)));
    assert!(registry.ring(vec![firing(&read, due, None)]).await.unwrap().is_empty());
    // An edit that is refused changes nothing.
    let refuse =
        |before: &ScheduleView, _| Err(davit_api::ApiError::field("cron", before.spec.timezone.clone()));
    let refused = registry.as_davit("test").edit_schedule(&ns(), &name("f"), &tick(), refuse).await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
    assert_eq!(row(&registry).await.revision, 2);
    // One that has ended begins again with another timing, and only with one.
    registry.ring(vec![moving(&row(&registry).await, None)]).await.unwrap();
    edit(&registry, ScheduleSpec { payload: None, ..spec.clone() }).await;
    assert!(due_rows(&registry).await.is_empty());
    edit(&registry, every_minute()).await;
    assert_eq!(due_rows(&registry).await.len(), 1);
}

#[tokio::test]
async fn schedules_of_the_manifest_come_and_go_with_the_version() {
    let db = fresh().await;
    let registry = db.registry();
    let source = stored(registry, b"a").await;
    let live = async |memory: u32, schedules: &[(davit_api::ScheduleName, ScheduleSpec)]| {
        let spec = davit_api::VersionSpec { memory_mb: memory, ..spec() };
        let version = registry
            .as_davit("test")
            .create_version(
                &ns(),
                &name("f"),
                &NewVersion {
                    schedules: schedules.iter().cloned().collect(),
                    ..NewVersion::of(spec, source)
                },
            )
            .await
            .unwrap()
            .version;
        registry.claim_build(uuid::Uuid::new_v4()).await.unwrap();
        registry.finish_build(version.id, source, 1, IMAGE).await.unwrap();
        registry.version_ready_and_live(version.id).await.unwrap();
        let rows = registry.list_schedules(&ns(), &name("f")).await.unwrap();
        rows.iter().map(|s| (s.name.to_string(), s.spec.enabled, s.next_due_at.is_some())).collect::<Vec<_>>()
    };
    let (a, b) = (("a".parse().unwrap(), every_minute()), ("b".parse().unwrap(), every_minute()));
    assert_eq!(live(256, &[a.clone(), b]).await.len(), 2);
    let first = row(registry).await;
    assert_eq!(first.name.as_str(), "a");
    let due = now() - TimeDelta::seconds(5);
    registry.ring(vec![moving(&first, Some(due))]).await.unwrap();
    add(registry, "mine").await;
    let kept = live(512, std::slice::from_ref(&a)).await;
    assert_eq!(kept, [("a".into(), true, true), ("mine".into(), true, false)]);
    // Another event leaves the next instant alone; another timing writes down what had come.
    let payload = ScheduleSpec { payload: Some(serde_json::json!(1)), ..every_minute() };
    assert!(live(513, &[(a.0.clone(), payload)]).await[0].2);
    let timing = ScheduleSpec { every: Some("5m".into()), cron: None, ..every_minute() };
    assert!(!live(514, &[(a.0.clone(), timing)]).await[0].2);
    let seen = registry.list_fires(&ns(), &name("f"), &a.0, None, 10).await.unwrap();
    assert_eq!((seen.len(), seen[0].due_at, seen[0].reason), (1, due, Some(SkipReason::Edited)));
    // A pause stays over a deployment that changes nothing about it.
    registry.as_davit("test").pause_schedule(&ns(), &name("f"), &a.0).await.unwrap();
    let timing = ScheduleSpec { every: Some("5m".into()), cron: None, ..every_minute() };
    assert!(!live(515, &[(a.0.clone(), timing)]).await[0].1);
    registry.as_davit("test").rollback(&ns(), &name("f"), Some(1)).await.unwrap();
    let all = registry.list_schedules(&ns(), &name("f")).await.unwrap();
    assert_eq!(all.iter().map(|s| s.spec.enabled).collect::<Vec<_>>(), [true; 3]);
}

#[tokio::test]
async fn what_was_scheduled_before_there_was_a_function_is_due_from_its_first_version_on() {
    let db = fresh().await;
    let registry = db.registry();
    built(registry, "f", &spec(), b"a").await;
    let added = add(registry, "tick").await;
    assert!(due_rows(registry).await.is_empty(), "there is nothing to call");
    let version = registry.list_versions(&ns(), &name("f"), None, 1).await.unwrap().items.remove(0);
    registry.version_ready_and_live(version.id).await.unwrap();
    assert!(row(registry).await.due_from.unwrap() > added.created_at);
}

#[tokio::test]
async fn old_records_go_and_the_last_one_stays() {
    let (_db, registry) = scheduled().await;
    let start = now() - TimeDelta::minutes(10);
    let passed = (0..5).map(|n| Passed { due_at: start + TimeDelta::minutes(n), skipped: None });
    let due = Due { passed: passed.collect(), ..moving(&row(&registry).await, Some(now())) };
    registry.ring(vec![due]).await.unwrap();
    assert_eq!(registry.prune_fires(std::time::Duration::from_secs(60)).await.unwrap(), 0);
    assert_eq!(registry.prune_fires(std::time::Duration::ZERO).await.unwrap(), 4);
    let left = fires(&registry).await;
    assert_eq!((left.len(), left[0].due_at), (1, start + TimeDelta::minutes(4)));
}

#[tokio::test]
async fn a_namespace_lists_its_schedules_page_by_page() {
    let (_db, registry) = scheduled().await;
    for named in ["a", "b", "c"] {
        add(&registry, named).await;
    }
    let list = async |after: Option<&str>| {
        let (function, after) = (name("f"), after.map(|text| text.parse::<ScheduleName>().unwrap()));
        let after = after.as_ref().map(|schedule| (&function, schedule));
        let page = registry.list_schedules_of_namespace(&ns(), after, 3).await.unwrap();
        page.iter().map(|view| format!("{}/{}", view.function, view.name)).collect::<Vec<_>>()
    };
    assert_eq!(list(None).await, ["f/a", "f/b", "f/c"]);
    assert_eq!(list(Some("c")).await, ["f/tick"]);
    assert_eq!(
        code(registry.list_schedules_of_namespace(&"no".parse().unwrap(), None, 3).await),
        ErrorCode::NotFound
    );
}
