//! Shifts in steps: each is taken once, whoever asks, and what is recorded stays.

use davit_api::{CanarySpec, CanaryState, ErrorCode, LatencyLimit, Promote, VersionId, latency};
use davit_registry::{AsRead, CanaryCounts, CanaryDelta, MasterKey, Registry, RunningCanary};
use sqlx::Connection;

use crate::support::*;

/// A function `f` with versions 1, live, and 2, and a canary of the second.
async fn begun(registry: &Registry) -> (VersionId, VersionId, RunningCanary) {
    let one = deployed(registry, "f", &spec(), b"a").await;
    let two = deployed(registry, "f", &spec(), b"b").await;
    let davit = registry.as_davit("test");
    davit.rollback(&ns(), &name("f"), Some(1)).await.unwrap();
    let canary = CanarySpec {
        interval_seconds: 60,
        max_latency: Some("p50:2x".parse::<LatencyLimit>().unwrap()),
        ..CanarySpec::new(vec![5, 50])
    };
    let promote = Promote { version: "2".parse().unwrap(), canary: Some(canary) };
    davit.promote(&ns(), &name("f"), &promote).await.unwrap();
    assert_eq!(code(davit.promote(&ns(), &name("f"), &promote).await), ErrorCode::Conflict, "one at a time");
    let running = registry.running_canaries().await.unwrap().remove(0);
    assert_eq!((running.version, running.base, running.step), (2, 1, 0));
    (one.id, two.id, running)
}

async fn live(registry: &Registry) -> Vec<(u32, u32)> {
    let found = registry.alias(&ns(), &name("f"), &"live".parse().unwrap()).await.unwrap();
    found.versions.iter().map(|v| (v.version, v.weight)).collect()
}

/// Makes the step as old as its interval.
async fn aged(url: &str) {
    let mut raw = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql("update canaries set step_at = step_at - interval '61 seconds' where state = 'running'")
        .execute(&mut raw)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_step_is_taken_once_whoever_asks() {
    let db = fresh().await;
    let registry = db.registry();
    let (_, _, canary) = begun(registry).await;
    assert_eq!(live(registry).await, [(1, 95), (2, 5)]);
    let advance = async |from| {
        registry.as_davit("canary").advance_canary(canary.id, from, "it did well").await.unwrap()
    };
    assert!(!advance(0).await, "not before its time");
    aged(db.url()).await;
    let both = futures_util::future::join_all((0..8).map(|_| advance(0))).await;
    assert_eq!(both.iter().filter(|advanced| **advanced).count(), 1);
    assert_eq!(live(registry).await, [(1, 50), (2, 50)]);
    aged(db.url()).await;
    assert!(!advance(0).await, "it is not in that step any more");
    assert!(advance(1).await);
    assert_eq!(live(registry).await, [(2, 100)]);
    assert!(registry.running_canaries().await.unwrap().is_empty());
    let ended = registry.list_canaries(&ns(), &name("f")).await.unwrap().remove(0);
    assert_eq!((ended.state, ended.reason.as_deref()), (CanaryState::Promoted, Some("it did well")));
    assert!(!registry.as_davit("canary").roll_back_canary(canary.id, "too late").await.unwrap());
    assert_eq!(live(registry).await, [(2, 100)]);
}

#[tokio::test]
async fn what_gateways_count_adds_up_and_is_kept_with_the_reason() {
    let db = fresh().await;
    let registry = db.registry();
    let (one, two, canary) = begun(registry).await;
    let key = MasterKey::from_bytes([7; 32]);
    let snapshot = registry.routing_snapshot(&key, &AsRead).await.unwrap();
    assert_eq!(snapshot.aliases[0].canary, Some((canary.id, 0)));
    let delta = |version, calls, errors, ms| {
        let mut buckets = vec![0; latency::BUCKETS];
        buckets[latency::bucket(ms)] = calls;
        let counts = CanaryCounts { calls, errors, platform_errors: 1, latency: buckets };
        CanaryDelta { canary: canary.id, step: 0, version, counts }
    };
    registry.record_canaries(&[delta(one, 90, 0, 10.0), delta(two, 5, 1, 100.0)]).await.unwrap();
    registry.record_canaries(&[delta(two, 7, 2, 100.0)]).await.unwrap();
    let seen = registry.running_canaries().await.unwrap().remove(0);
    assert_eq!((seen.new.calls, seen.new.errors, seen.new.platform_errors), (12, 3, 2));
    let (new, old) = (seen.new.figures(&seen.spec), seen.old.figures(&seen.spec));
    assert!(new.latency_ms.unwrap() > 90.0 && old.latency_ms.unwrap() < 11.0, "{new:?} {old:?}");

    assert!(registry.as_davit("canary").roll_back_canary(canary.id, "3 of 12 calls failed").await.unwrap());
    assert_eq!(live(registry).await, [(1, 100)]);
    // What comes late belongs to nothing any more.
    registry.record_canaries(&[delta(two, 100, 0, 1.0)]).await.unwrap();
    let detail = registry.function_detail(&ns(), &name("f")).await.unwrap();
    let ended = detail.canary.unwrap();
    assert_eq!((ended.state, ended.new.calls, ended.old.calls), (CanaryState::RolledBack, 12, 90));
    assert_eq!(ended.reason.as_deref(), Some("3 of 12 calls failed"));
}

#[tokio::test]
async fn whatever_else_moves_live_ends_a_canary() {
    let db = fresh().await;
    let registry = db.registry();
    let davit = registry.as_davit("test");
    begun(registry).await;
    assert_eq!(davit.rollback(&ns(), &name("f"), None).await.unwrap().number, 1);
    assert_eq!(live(registry).await, [(1, 100)]);
    let last = async || registry.list_canaries(&ns(), &name("f")).await.unwrap().remove(0);
    assert_eq!(last().await.reason.as_deref(), Some("somebody rolled back"));
    let promote = Promote { version: "2".parse().unwrap(), canary: Some(CanarySpec::new(vec![5])) };
    davit.promote(&ns(), &name("f"), &promote).await.unwrap();
    deployed(registry, "f", &spec(), b"c").await;
    assert_eq!(live(registry).await, [(3, 100)]);
    assert_eq!((last().await.state, last().await.base), (CanaryState::Aborted, 1));
    davit.promote(&ns(), &name("f"), &promote).await.unwrap();
    assert_eq!(davit.end_canary(&ns(), &name("f"), true).await.unwrap().state, CanaryState::Promoted);
    assert_eq!(live(registry).await, [(2, 100)]);
    assert_eq!(code(davit.end_canary(&ns(), &name("f"), false).await), ErrorCode::Conflict);
    assert_eq!(
        code(davit.promote(&ns(), &name("f"), &promote).await),
        ErrorCode::Conflict,
        "it is live already"
    );
    let running = Promote { version: "3".parse().unwrap(), canary: Some(CanarySpec::new(vec![5])) };
    davit.promote(&ns(), &name("f"), &running).await.unwrap();
    davit.delete_function(&ns(), &name("f")).await.unwrap();
    assert!(registry.running_canaries().await.unwrap().is_empty());
}
