//! What can be asked of an accepted invocation: an order, a name of its own, a later time, an end, another try, and a
//! place for its outcome.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use davit_api::{
    ApiError, CalledBy, Destination, Destinations, ErrorCode, GatewayId, InvocationId, InvocationSource,
    InvocationState, Lineage, Priority, VersionSpec, Webhook,
};
use davit_registry::{
    ClaimFrom, ClaimedTarget, InvocationFilter, Job, NewInvocation, Registry, Settlement, Start,
};
use sqlx::Connection;

use crate::queues::{claim, work};
use crate::support::*;

async fn succeed(registry: &Registry, job: &Job) {
    let result = Settlement::Succeeded { result: job.payload.clone() };
    assert!(registry.settle(job.id, job.attempt, result).await.unwrap());
}

async fn fail(registry: &Registry, job: &Job) {
    let error = ApiError::new(ErrorCode::FunctionError, "boom").body();
    assert!(registry.settle(job.id, job.attempt, Settlement::Dead { error }).await.unwrap());
}

async fn state(registry: &Registry, id: InvocationId) -> InvocationState {
    registry.invocation(&ns(), id).await.unwrap().state
}

#[tokio::test]
async fn one_key_runs_one_after_the_other_in_order_of_acceptance_and_others_do_not_wait() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let keyed = |key: &str, n: u32| NewInvocation {
        ordering_key: Some(key.into()),
        ..work(function, &format!("\"{key}{n}\""))
    };
    let mut accepted = Vec::new();
    for n in 0..3 {
        accepted.extend(registry.enqueue_all(vec![keyed("a", n), keyed("b", n)]).await.unwrap());
    }
    let gateway = GatewayId::new();
    let mut order = Vec::new();
    loop {
        let jobs = claim(registry, gateway, 10).await;
        assert!(jobs.len() <= 2, "one of each key at a time");
        if jobs.is_empty() {
            break;
        }
        for job in jobs {
            assert!(job.has_consequences);
            if job.attempt == 1 && order.is_empty() {
                // A failed attempt keeps its turn: what comes later must not overtake it.
                let error = ApiError::new(ErrorCode::FunctionError, "boom").body();
                let again = Settlement::RetryAt { delay: Duration::ZERO, error, counts: true };
                assert!(registry.settle(job.id, 1, again).await.unwrap());
                let retried = claim(registry, gateway, 10).await.remove(0);
                assert_eq!((retried.id, retried.attempt), (job.id, 2));
                succeed(registry, &retried).await;
            } else {
                succeed(registry, &job).await;
            }
            order.push(job.id);
        }
    }
    for key in 0..2 {
        let of_key = |ids: &[InvocationId]| -> Vec<InvocationId> {
            ids.iter()
                .copied()
                .filter(|id| accepted.iter().position(|a| a == id).unwrap() % 2 == key)
                .collect()
        };
        assert_eq!(of_key(&order), of_key(&accepted));
    }
}

#[tokio::test]
async fn many_clients_of_one_key_never_leave_it_stuck_and_never_run_two_at_once() {
    let db = fresh().await;
    let registry = db.registry().clone();
    deployed(&registry, "f", &spec(), b"a").await;
    let function = function_id(&registry, "f").await;
    let clients = (0..4).map(|_| {
        let registry = registry.clone();
        tokio::spawn(async move {
            for _ in 0..15 {
                let new = NewInvocation { ordering_key: Some("k".into()), ..work(function, "{}") };
                registry.enqueue(new).await.unwrap();
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut done = 0;
    let gateway = GatewayId::new();
    while done < 60 {
        let jobs = claim(&registry, gateway, 10).await;
        assert!(jobs.len() <= 1);
        for job in jobs {
            succeed(&registry, &job).await;
            done += 1;
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!(claim(&registry, gateway, 10).await.is_empty());
}

#[tokio::test]
async fn the_same_key_and_event_are_one_invocation_and_another_event_is_refused() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let named =
        |payload: &str| NewInvocation { idempotency_key: Some("order-7".into()), ..work(function, payload) };
    let racing = (0..6).map(|_| {
        let (registry, new) = (registry.clone(), named("{}"));
        tokio::spawn(async move { registry.enqueue(new).await.unwrap() })
    });
    let mut ids = Vec::new();
    for one in racing.collect::<Vec<_>>() {
        ids.push(one.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "six askers, one invocation");
    assert_eq!(code(registry.enqueue(named("{\"other\":1}")).await), ErrorCode::Conflict);
    let jobs = claim(registry, GatewayId::new(), 10).await;
    assert_eq!(jobs.len(), 1);
    succeed(registry, &jobs[0]).await;
    assert_eq!(registry.enqueue(named("{}")).await.unwrap(), ids[0], "also when it has ended");

    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql("update idempotency_keys set created_at = '2020-01-01'").execute(&mut raw).await.unwrap();
    assert_ne!(registry.enqueue(named("{}")).await.unwrap(), ids[0], "a day later it is a new one");
}

#[tokio::test]
async fn what_is_urgent_runs_first_and_what_is_put_off_runs_later() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let with = |priority, start| NewInvocation { priority, start, ..work(function, "{}") };
    let low = registry.enqueue(with(Priority::Low, Start::Now)).await.unwrap();
    let usual = registry.enqueue(with(Priority::Normal, Start::Now)).await.unwrap();
    let later =
        registry.enqueue(with(Priority::High, Start::After(Duration::from_secs(3600)))).await.unwrap();
    let at = Utc::now() + TimeDelta::hours(2);
    let dated = registry.enqueue(with(Priority::High, Start::At(at))).await.unwrap();
    let urgent = registry.enqueue(with(Priority::High, Start::Now)).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.extend(claim(registry, GatewayId::new(), 1).await.into_iter().map(|job| job.id));
    }
    assert_eq!(order, [urgent, usual, low]);
    let run_at = |id| async move { registry.invocation(&ns(), id).await.unwrap().run_at.unwrap() };
    assert!(run_at(later).await > Utc::now() + TimeDelta::minutes(59));
    assert_eq!(run_at(dated).await.timestamp_millis(), at.timestamp_millis());
}

#[tokio::test]
async fn a_claim_that_starts_where_the_last_one_was_still_finds_everything() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let (gateway, mut from) = (GatewayId::new(), ClaimFrom::default());
    assert!(registry.claim(gateway, 10, &mut from).await.unwrap().is_empty());
    let first = registry.enqueue(work(function, "1")).await.unwrap();
    assert_eq!(registry.claim(gateway, 10, &mut from).await.unwrap()[0].id, first);
    // A retry, a turn and something put back become due after that, whenever they were accepted.
    let keyed = || NewInvocation { ordering_key: Some("k".into()), ..work(function, "k") };
    let (head, next) = (registry.enqueue(keyed()).await.unwrap(), registry.enqueue(keyed()).await.unwrap());
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let aged = "update invocations set run_at = '2020-01-01', accepted_at = '2020-01-01' where not in_turn";
    assert_eq!(sqlx::raw_sql(aged).execute(&mut raw).await.unwrap().rows_affected(), 1);
    let jobs = registry.claim(gateway, 10, &mut from).await.unwrap();
    assert_eq!(jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [head]);
    succeed(registry, &jobs[0]).await;
    let jobs = registry.claim(gateway, 10, &mut from).await.unwrap();
    assert_eq!(jobs.iter().map(|j| j.id).collect::<Vec<_>>(), [next]);
    registry.release_jobs(gateway).await.unwrap();
    assert_eq!(registry.claim(gateway, 10, &mut from).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_waits_is_cancelled_at_once_and_what_runs_is_stopped_by_who_runs_it() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let operator = || registry.as_davit("invocations.cancel");
    let keyed = || NewInvocation { ordering_key: Some("k".into()), ..work(function, "{}") };
    let (first, second, third) = (
        registry.enqueue(keyed()).await.unwrap(),
        registry.enqueue(keyed()).await.unwrap(),
        registry.enqueue(keyed()).await.unwrap(),
    );
    operator().cancel_invocation(&ns(), second).await.unwrap();
    assert_eq!(state(registry, second).await, InvocationState::Cancelled);
    assert_eq!(code(operator().cancel_invocation(&ns(), second).await), ErrorCode::Conflict);

    let gateway = GatewayId::new();
    let running = claim(registry, gateway, 10).await.remove(0);
    assert_eq!(running.id, first);
    operator().cancel_invocation(&ns(), first).await.unwrap();
    assert!(registry.invocation(&ns(), first).await.unwrap().cancel_requested);
    assert_eq!(registry.jobs_to_cancel(gateway).await.unwrap(), [first]);
    assert!(registry.settle(first, 1, Settlement::Cancelled).await.unwrap());
    assert_eq!(state(registry, first).await, InvocationState::Cancelled);
    assert_eq!(claim(registry, gateway, 10).await[0].id, third, "the cancelled ones hold up nobody");

    // Should its gateway die instead, it is not run again.
    operator().cancel_invocation(&ns(), third).await.unwrap();
    registry.release_jobs(gateway).await.unwrap();
    assert_eq!(state(registry, third).await, InvocationState::Cancelled);
    let elsewhere = "elsewhere".parse().unwrap();
    assert_eq!(code(operator().cancel_invocation(&elsewhere, third).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn dead_letters_are_listed_made_again_once_and_purged() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(registry.enqueue(work(function, &n.to_string())).await.unwrap());
    }
    let jobs = claim(registry, GatewayId::new(), 3).await;
    succeed(registry, &jobs[0]).await;
    fail(registry, &jobs[1]).await;
    fail(registry, &jobs[2]).await;
    let dead = InvocationFilter { state: Some(InvocationState::Dead), ..InvocationFilter::default() };
    let listed = async || -> Vec<InvocationId> {
        registry.list_invocations(&ns(), &dead, 10).await.unwrap().into_iter().map(|v| v.id).collect()
    };
    assert_eq!(listed().await, [ids[2], ids[1]]);

    let operator = || registry.as_davit("invocations.redrive");
    let again = operator().redrive(&ns(), Some(&name("f")), None).await.unwrap();
    assert_eq!(again.len(), 2);
    assert!(operator().redrive(&ns(), None, None).await.unwrap().is_empty(), "each once");
    let first = registry.invocation(&ns(), again[0]).await.unwrap();
    assert_eq!((first.state, first.replay_of, first.attempt), (InvocationState::Queued, Some(ids[1]), 0));
    assert_eq!(registry.invocation(&ns(), ids[1]).await.unwrap().redriven_as, Some(again[0]));
    let replayed = operator().replay_invocation(&ns(), ids[0]).await.unwrap();
    assert_eq!(registry.invocation(&ns(), replayed).await.unwrap().replay_of, Some(ids[0]));
    assert_eq!(
        code(operator().replay_invocation(&ns(), replayed).await),
        ErrorCode::Conflict,
        "not while it waits"
    );

    assert_eq!(operator().purge_dead(&ns(), None, Some(ids[2])).await.unwrap(), 1);
    assert_eq!(operator().purge_dead(&ns(), Some(&name("f")), None).await.unwrap(), 1);
    assert!(listed().await.is_empty());
    assert_eq!(state(registry, ids[0]).await, InvocationState::Succeeded, "what succeeded stays");
}

#[tokio::test]
async fn outcomes_are_sent_on_in_the_same_transaction_and_never_for_ever() {
    let db = fresh().await;
    let registry = db.registry();
    let hook = Webhook { url: "https://example.com/hook".into(), secret: None, mode: Default::default() };
    let circle = VersionSpec {
        destinations: Destinations {
            on_success: Some(Destination::Function(name("f"))),
            on_failure: Some(Destination::Webhook(hook.clone())),
        },
        ..spec()
    };
    deployed(registry, "f", &circle, b"a").await;
    let function = function_id(registry, "f").await;
    let new =
        |payload| NewInvocation { destinations: circle.destinations.clone(), ..work(function, payload) };
    let mut id = registry.enqueue(new("{\"n\":1}")).await.unwrap();
    let gateway = GatewayId::new();
    for hop in 0..=8 {
        let job = claim(registry, gateway, 10).await.remove(0);
        assert_eq!(job.id, id);
        succeed(registry, &job).await;
        let note = registry.invocation(&ns(), id).await.unwrap().sent_on.unwrap();
        assert_eq!(note.destination, "function f");
        if hop == 8 {
            assert!(note.error.unwrap().contains("chain") && note.invocations.is_empty());
        } else {
            id = note.invocations[0];
        }
    }
    assert!(claim(registry, gateway, 10).await.is_empty());

    let id = registry.enqueue(new("{\"n\":2}")).await.unwrap();
    fail(registry, &claim(registry, gateway, 10).await[0]).await;
    let sent = claim(registry, gateway, 10).await.remove(0);
    assert_eq!(sent.target, ClaimedTarget::Webhook(hook));
    let record: serde_json::Value = serde_json::from_slice(&sent.payload).unwrap();
    assert_eq!(record["requestContext"]["requestId"], id.to_string());
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestPayload"]["n"], 2);
    succeed(registry, &sent).await;
    let listed = registry.list_invocations(&ns(), &InvocationFilter::default(), 3).await.unwrap();
    assert_eq!(listed[0].webhook.as_deref(), Some("https://example.com/hook"));
    assert_eq!(listed[1].id, id);
}

#[tokio::test]
async fn old_days_are_dropped_as_wholes_and_a_reader_is_not_waited_for() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    // One that ended before the day had a partition, and one of a day long past.
    for _ in 0..2 {
        registry.enqueue(work(function, "{}")).await.unwrap();
        succeed(registry, &claim(registry, GatewayId::new(), 1).await[0]).await;
    }
    let round = registry.keep_invocations(7).await.unwrap();
    assert_eq!((round.made, round.dropped, round.deleted), (4, 0, 0));
    assert_eq!(registry.keep_invocations(7).await.unwrap(), Default::default(), "nothing is left to do");
    let all = InvocationFilter { function: Some(name("f")), ..InvocationFilter::default() };
    assert_eq!(registry.list_invocations(&ns(), &all, 10).await.unwrap().len(), 2);
    sqlx::raw_sql(
        "create table ended_invocations_d20200101 partition of ended_invocations for values from ('2020-01-01') to ('2020-01-02');
         insert into ended_invocations select (jsonb_populate_record(e, '{\"ended_at\": \"2020-01-01T10:00:00Z\"}')).*
            from ended_invocations e limit 1",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    assert_eq!(registry.list_invocations(&ns(), &all, 10).await.unwrap().len(), 3);
    let mut reader = raw.begin().await.unwrap();
    sqlx::raw_sql("select count(*) from ended_invocations_d20200101").execute(&mut *reader).await.unwrap();
    assert_eq!(registry.keep_invocations(7).await.unwrap().dropped, 0, "somebody reads it");
    reader.rollback().await.unwrap();
    assert_eq!(registry.keep_invocations(7).await.unwrap().dropped, 1);
    assert_eq!(registry.list_invocations(&ns(), &all, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn lists_go_on_page_by_page_and_know_states_and_functions() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    deployed(registry, "g", &spec(), b"a").await;
    let (f, g) = (function_id(registry, "f").await, function_id(registry, "g").await);
    for n in 0..5 {
        registry.enqueue(work(f, &n.to_string())).await.unwrap();
        registry.enqueue(work(g, &n.to_string())).await.unwrap();
    }
    for job in claim(registry, GatewayId::new(), 4).await {
        succeed(registry, &job).await;
    }
    let mut filter = InvocationFilter::default();
    let mut seen = Vec::new();
    loop {
        let page = registry.list_invocations(&ns(), &filter, 3).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some((last.accepted_at, last.id));
        seen.extend(page.into_iter().map(|view| view.accepted_at));
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.windows(2).all(|two| two[0] >= two[1]), "newest first");
    let of = |function: Option<&str>, state| InvocationFilter {
        function: function.map(name),
        state,
        ..InvocationFilter::default()
    };
    let count =
        async |filter: InvocationFilter| registry.list_invocations(&ns(), &filter, 100).await.unwrap().len();
    assert_eq!(count(of(Some("f"), None)).await, 5);
    assert_eq!(count(of(None, Some(InvocationState::Succeeded))).await, 4);
    assert_eq!(count(of(Some("g"), Some(InvocationState::Running))).await, 0);
    assert_eq!(code(registry.list_invocations(&ns(), &of(Some("h"), None), 1).await), ErrorCode::NotFound);
}

#[tokio::test]
async fn what_waits_is_counted_by_what_it_waits_for() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let keyed = || NewInvocation { ordering_key: Some("k".into()), ..work(function, "{}") };
    let later = NewInvocation { start: Start::After(Duration::from_secs(60)), ..work(function, "{}") };
    registry.enqueue_all(vec![keyed(), keyed(), keyed(), work(function, "{}"), later]).await.unwrap();
    fail(registry, &claim(registry, GatewayId::new(), 1).await[0]).await;
    claim(registry, GatewayId::new(), 1).await;
    let queue = registry.queue(&ns()).await.unwrap().remove(0);
    assert_eq!(queue.function, Some(name("f")));
    let counts = [queue.due, queue.delayed, queue.behind, queue.running, queue.dead];
    assert_eq!(counts.iter().sum::<u64>(), 5, "{queue:?}");
    assert_eq!((queue.delayed, queue.behind, queue.running, queue.dead), (1, 1, 1, 1), "{queue:?}");
    assert!(queue.oldest_due_at.is_some_and(|at| at <= Utc::now()));
}

#[tokio::test]
async fn who_caused_an_invocation_and_how_far_the_chain_has_come_stay_with_it() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function = function_id(registry, "f").await;
    let caller = CalledBy {
        namespace: "billing".parse().unwrap(),
        function: "report".parse().unwrap(),
        version: 4,
        invocation_id: Some(InvocationId::new()),
        trace_id: Some("Root=1-5759e988-bd862e3fe1be46a994272793".into()),
    };
    let lineage = Lineage { hops: 7, caller: Some(caller.clone()) };
    let call = NewInvocation { source: InvocationSource::Function, ..work(function, "{}") };
    let keyed = NewInvocation { ordering_key: Some("k".into()), lineage: lineage.clone(), ..call.clone() };
    let plain = NewInvocation { lineage: lineage.clone(), ..call.clone() };
    let from_outside = registry.enqueue(call).await.unwrap();
    let ids = [registry.enqueue(keyed).await.unwrap(), registry.enqueue(plain).await.unwrap()];
    for job in claim(registry, GatewayId::new(), 3).await {
        let expected = if job.id == from_outside { Lineage::default() } else { lineage.clone() };
        assert_eq!(job.lineage, expected);
        succeed(registry, &job).await;
    }
    for id in ids {
        let view = registry.invocation(&ns(), id).await.unwrap();
        assert_eq!((view.source, view.caller), (InvocationSource::Function, Some(caller.clone())));
    }
    let filter = InvocationFilter { source: Some(InvocationSource::Function), ..Default::default() };
    let listed = registry.list_invocations(&ns(), &filter, 10).await.unwrap();
    assert_eq!(listed.iter().filter(|view| view.caller.is_some()).count(), 2);
}
