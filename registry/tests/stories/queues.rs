//! The queue: nothing accepted is lost, nothing ends twice.

use std::collections::BTreeSet;
use std::time::Duration;

use davit_api::{
    ErrorCode, FunctionId, GatewayId, InvocationSource, InvocationState, NewVersion, RetryPolicy,
};
use davit_registry::{Changes, ClaimFrom, JOB_LEASE, Job, NewInvocation, Registry, Settlement, Topic};
use sqlx::Connection;

use crate::support::*;

pub(crate) fn work(function_id: FunctionId, payload: &str) -> NewInvocation {
    let policy = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    NewInvocation::new(ns(), function_id, InvocationSource::Async, payload.into(), policy)
}

/// Claims with a look at everything, as a gateway does that has just started.
pub(crate) async fn claim(registry: &Registry, gateway: GatewayId, n: u32) -> Vec<Job> {
    registry.reclaim_lapsed().await.unwrap();
    registry.claim(gateway, n, &mut ClaimFrom::default()).await.unwrap()
}

fn failure() -> davit_api::ErrorBody {
    let mut body = davit_api::ApiError::new(ErrorCode::FunctionError, "boom").body();
    body.function_error = Some(serde_json::json!({"errorMessage": "a\0b"}));
    body
}

#[tokio::test]
async fn a_late_worker_cannot_settle_what_another_took_over() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let changes = Changes::listen(registry).await.unwrap();
    let mut queue = changes.subscribe(Topic::Queue);
    let id = registry.enqueue(work(function, "{}")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), queue.changed()).await.unwrap().unwrap();

    let (zombie, heir) = (GatewayId::new(), GatewayId::new());
    let first = claim(registry, zombie, 10).await.remove(0);
    assert_eq!((first.id, first.attempt, first.payload.as_slice()), (id, 1, b"{}".as_slice()));
    assert!(claim(registry, heir, 10).await.is_empty(), "leased");
    assert_eq!(registry.heartbeat_jobs(zombie, &[(id, 1)], JOB_LEASE).await.unwrap(), [(id, 1)]);

    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let lapse = "update invocations set lease_until = '2020-01-01' where state = 'running'";
    sqlx::raw_sql(lapse).execute(&mut raw).await.unwrap();
    let second = claim(registry, heir, 10).await.remove(0);
    assert_eq!((second.id, second.attempt), (id, 2));
    assert!(registry.heartbeat_jobs(zombie, &[(id, 1)], JOB_LEASE).await.unwrap().is_empty());
    let late = Settlement::Succeeded { result: b"late".to_vec() };
    assert!(!registry.settle(id, 1, late.clone()).await.unwrap());
    let retry = Settlement::RetryAt { delay: Duration::from_secs(3600), error: failure(), counts: true };
    assert!(registry.settle(id, 2, retry).await.unwrap());
    let waiting = registry.invocation(&ns(), id).await.unwrap();
    assert_eq!((waiting.state, waiting.attempt), (InvocationState::Queued, 2));
    assert!(waiting.run_at.unwrap() > waiting.accepted_at + Duration::from_secs(3000));
    assert!(claim(registry, heir, 10).await.is_empty(), "not due");

    sqlx::raw_sql("update invocations set run_at = '2020-01-01'").execute(&mut raw).await.unwrap();
    claim(registry, heir, 10).await;
    sqlx::raw_sql(lapse).execute(&mut raw).await.unwrap();
    assert!(claim(registry, heir, 10).await.is_empty(), "attempts are used up");
    let dead = registry.invocation(&ns(), id).await.unwrap();
    assert_eq!(dead.state, InvocationState::Dead);
    assert!(!registry.settle(id, 3, late).await.unwrap());
    let rewrite = sqlx::raw_sql("update ended_invocations set state = 'succeeded'").execute(&mut raw).await;
    assert_eq!(code(rewrite.map_err(Into::into)), ErrorCode::Conflict);
}

#[tokio::test]
async fn many_workers_share_a_queue_without_taking_a_job_twice() {
    let db = fresh().await;
    let registry = db.registry().clone();
    deployed(&registry, "f", &spec(), b"a").await;
    let function = function_id(&registry, "f").await;
    let mut all = BTreeSet::new();
    for n in 0..120 {
        all.insert(registry.enqueue(work(function, &n.to_string())).await.unwrap());
    }
    let workers = (0..4).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let gateway = GatewayId::new();
            let mut done = Vec::new();
            for _ in 0..40 {
                for job in claim(&registry, gateway, 7).await {
                    let result = Settlement::Succeeded { result: job.payload.clone() };
                    assert!(registry.settle(job.id, job.attempt, result).await.unwrap());
                    done.push(job.id);
                }
            }
            done
        })
    });
    let mut done = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        done.extend(worker.await.unwrap());
    }
    assert_eq!(done.len(), 120, "each once");
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>(), all);
}

#[tokio::test]
async fn a_loud_namespace_does_not_starve_a_quiet_one() {
    let db = fresh().await;
    let registry = db.registry();
    let quiet: davit_api::NamespaceName = "quiet".parse().unwrap();
    registry.as_davit("test").ensure_namespace(&quiet).await.unwrap();
    deployed(registry, "loud", &spec(), b"a").await;
    let source = stored(registry, b"a").await;
    registry
        .as_davit("test")
        .create_version(&quiet, &name("soft"), &NewVersion::of(spec(), source))
        .await
        .unwrap();
    let soft = registry.list_functions(&quiet, &Default::default(), 100).await.unwrap().items[0].id;
    let loud = function_id(registry, "loud").await;
    for n in 0..50 {
        registry.enqueue(work(loud, &n.to_string())).await.unwrap();
    }
    assert_eq!(
        code(registry.enqueue(work(soft, "x")).await),
        ErrorCode::NotFound,
        "a foreign namespace's function"
    );
    let id = registry.enqueue(NewInvocation { namespace: quiet.clone(), ..work(soft, "x") }).await.unwrap();
    let gateway = GatewayId::new();
    let claimed = claim(registry, gateway, 2).await;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().any(|job| job.id == id));
    assert_eq!(code(registry.invocation(&ns(), id).await), ErrorCode::NotFound);
    registry.release_jobs(gateway).await.unwrap();
    assert_eq!(registry.invocation(&quiet, id).await.unwrap().state, InvocationState::Queued);
}

#[tokio::test]
async fn callers_that_hang_up_leave_no_transaction_open() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    for n in 0..300_u64 {
        let call = registry.enqueue(work(function, "{}"));
        let _ = tokio::time::timeout(Duration::from_micros(n * 5), call).await;
    }
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let stuck =
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'";
    for _ in 0..100 {
        let open: i64 = sqlx::query_scalar(stuck).fetch_one(&mut raw).await.unwrap();
        if open == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("connections are left inside transactions");
}
