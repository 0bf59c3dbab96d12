//! A thousand schedules that come due at one instant, and several gateways that all want to ring them.

use std::collections::HashSet;

use super::*;

const SCHEDULES: usize = 1_000;
const GATEWAYS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_one_instant_are_a_thousand_invocations_in_a_few_transactions() {
    let world = World::new().await;
    let names: Vec<ScheduleName> = (0..SCHEDULES).map(|n| format!("s{n}").parse().unwrap()).collect();
    for name in &names {
        add(&world, name, &ScheduleSpec { payload: Some(json!({"n": name})), ..rare() }).await;
    }
    let davit = world.registry().as_davit("test");
    let more = davit.add_schedule(&world.namespace, &world.function, &named(), &rare()).await.unwrap_err();
    assert!(more.to_string().contains("at most 1000 schedules"), "{more}");
    // Far enough away that every gateway has read before.
    let due = now() + TimeDelta::seconds(4);
    for some in rows(world.registry()).await.rows.chunks(250) {
        store(world.registry(), some, due).await;
    }
    let stop = CancellationToken::new();
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        gateways.push(gateway(world.registry(), Arc::default(), &stop).await);
    }
    let rung = async || Some(()).filter(|()| Utc::now() > due);
    eventually(rung).await;
    let after = TimeDelta::days(4_000);
    eventually(async || {
        let rows = world.registry().schedules_due(after).await.unwrap().rows;
        let moved = rows.iter().filter(|row| row.next_due_at.is_some_and(|next| next > due)).count();
        Some(()).filter(|()| moved == SCHEDULES)
    })
    .await;
    stop.cancel();
    for gateway in gateways {
        gateway.await.unwrap();
    }
    let (mut invocations, mut late) = (HashSet::new(), Vec::new());
    for name in &names {
        let fires =
            world.registry().list_fires(&world.namespace, &world.function, name, None, 10).await.unwrap();
        assert_eq!(fires.len(), 1, "{name}: {fires:?}");
        assert_eq!((fires[0].due_at, fires[0].outcome), (due, FireOutcome::Fired));
        assert!(fires[0].recorded_at >= due, "never early");
        invocations.extend(fires[0].invocation_id);
        late.push(fires[0].late_ms);
    }
    assert_eq!(invocations.len(), SCHEDULES, "each has an invocation of its own");
    let mut accepted = HashSet::new();
    loop {
        let jobs = world.registry().claim(GatewayId::new(), 500, &mut ClaimFrom::default()).await.unwrap();
        if jobs.is_empty() {
            break;
        }
        accepted.extend(jobs.iter().map(|job| job.id));
    }
    assert_eq!(accepted, invocations, "and there is no other");
    let transactions = world.db.fire_transactions().await;
    late.sort_unstable();
    let (median, last) = (late[SCHEDULES / 2], late[SCHEDULES - 1]);
    eprintln!(
        "{SCHEDULES} schedules, {GATEWAYS} gateways: {transactions} transactions, late by {median} ms (median), {last} ms (last)"
    );
    // Each gateway cuts what it read into four.
    assert!(transactions <= 4 * GATEWAYS as i64, "{transactions} transactions");
}
