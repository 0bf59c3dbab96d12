//! An instant happens once, however many gateways ring.

use chrono::{DateTime, TimeDelta, Utc};
use davit_api::{ErrorCode, FireOutcome, ScheduleSpec};

use crate::support::*;

/// Later than any instant here.
fn later() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(4_000)
}

fn every_minute() -> ScheduleSpec {
    serde_json::from_value(serde_json::json!({"cron": "* * * * *"})).unwrap()
}

#[tokio::test]
async fn two_gateways_ring_and_one_fires() {
    let db = fresh().await;
    let registry = db.registry().clone();
    deployed(&registry, "f", &spec(), b"a").await;
    let tick = "tick".parse().unwrap();
    registry.as_davit("test").add_schedule(&ns(), &name("f"), &tick, &every_minute()).await.unwrap();
    let twice = registry.as_davit("test").add_schedule(&ns(), &name("f"), &tick, &every_minute()).await;
    assert_eq!(code(twice), ErrorCode::Conflict);

    let row = registry.schedules_due(later()).await.unwrap().remove(0);
    let due: DateTime<Utc> = "2026-03-01T10:00:00Z".parse().unwrap();
    let (missed, next) = (due - TimeDelta::minutes(1), due + TimeDelta::minutes(1));
    assert!(registry.set_next_due(row.id, None, Some(due)).await.unwrap());
    assert!(!registry.set_next_due(row.id, None, Some(next)).await.unwrap(), "it moved on since");
    assert!(registry.schedules_due(due).await.unwrap().is_empty(), "it needs nothing before its instant");
    assert_eq!(registry.schedules_due(next).await.unwrap().len(), 1);
    let rings = (0..8).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            registry.fire(row.id, due, Some(next), &[missed], b"{}".to_vec()).await.unwrap()
        })
    });
    let mut fired = Vec::new();
    for ring in rings.collect::<Vec<_>>() {
        fired.extend(ring.await.unwrap());
    }
    assert_eq!(fired.len(), 1);
    let invocation = registry.invocation(&ns(), fired[0]).await.unwrap();
    assert_eq!(invocation.source, davit_api::InvocationSource::Schedule);
    let unknown = registry.list_fires(&ns(), &name("f"), &"tock".parse().unwrap(), 10).await;
    assert_eq!(code(unknown), ErrorCode::NotFound, "not the same as one that has not rung yet");
    let fires = registry.list_fires(&ns(), &name("f"), &tick, 10).await.unwrap();
    let outcomes: Vec<_> = fires.iter().map(|f| (f.due_at, f.outcome)).collect();
    assert_eq!(outcomes, [(due, FireOutcome::Fired), (missed, FireOutcome::Missed)]);
    assert!(
        registry.fire(row.id, missed, Some(next), &[], vec![]).await.unwrap().is_none(),
        "recorded as missed"
    );

    // A pause forgets the next instant when it ends, so that nothing that passed meanwhile rings.
    registry.as_davit("test").pause_schedule(&ns(), &name("f"), &tick).await.unwrap();
    assert!(registry.fire(row.id, next, None, &[], vec![]).await.unwrap().is_none());
    let resumed = registry.as_davit("test").resume_schedule(&ns(), &name("f"), &tick).await.unwrap();
    assert_eq!((resumed.next_due_at, resumed.last_due_at), (None, Some(due)));
    registry.as_davit("test").run_schedule_now(&ns(), &name("f"), &tick, b"{}".to_vec()).await.unwrap();
    registry.as_davit("test").remove_schedule(&ns(), &name("f"), &tick).await.unwrap();
    assert_eq!(
        code(registry.as_davit("test").remove_schedule(&ns(), &name("f"), &tick).await),
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn schedules_of_the_manifest_come_and_go_with_the_version() {
    let db = fresh().await;
    let registry = db.registry();
    let source = stored(registry, b"a").await;
    let live = async |memory: u32, schedules: &[_]| {
        let spec = davit_api::VersionSpec { memory_mb: memory, ..spec() };
        let version = registry
            .as_davit("test")
            .create_version(&ns(), &name("f"), &spec, source, None, schedules)
            .await
            .unwrap();
        registry.claim_build(uuid::Uuid::new_v4()).await.unwrap();
        registry.finish_build(version.id, source, 1, IMAGE).await.unwrap();
        registry.version_ready_and_live(version.id).await.unwrap();
        let rows = registry.list_schedules(&ns(), &name("f")).await.unwrap();
        rows.iter().map(|s| (s.name.to_string(), s.spec.enabled, s.next_due_at.is_some())).collect::<Vec<_>>()
    };
    let (a, b) = (("a".parse().unwrap(), every_minute()), ("b".parse().unwrap(), every_minute()));
    assert_eq!(live(256, &[a.clone(), b]).await.len(), 2);
    let ids = registry.schedules_due(later()).await.unwrap();
    registry.set_next_due(ids[0].id, None, Some(Utc::now())).await.unwrap();
    registry
        .as_davit("test")
        .add_schedule(&ns(), &name("f"), &"mine".parse().unwrap(), &every_minute())
        .await
        .unwrap();
    let kept = live(512, std::slice::from_ref(&a)).await;
    assert_eq!(kept, [("a".into(), true, true), ("mine".into(), true, false)]);
    registry.as_davit("test").rollback(&ns(), &name("f"), None).await.unwrap();
    assert_eq!(registry.list_schedules(&ns(), &name("f")).await.unwrap().len(), 3);
}
