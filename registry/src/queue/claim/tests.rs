//! What a claim costs, in blocks that Postgres touches for it: a number that no clock and no neighbour changes.

use sqlx::{Connection, PgConnection};

use super::*;
use crate::testing::TestDatabase;

/// A namespace with one function, and nothing queued.
async fn world() -> (TestDatabase, PgConnection) {
    let db = TestDatabase::new().await;
    let mut sql = PgConnection::connect(db.url()).await.unwrap();
    let made = "
        insert into namespaces (id, name) values (gen_random_uuid(), 'deep');
        insert into functions (id, namespace_id, name) select gen_random_uuid(), id, 'f' from namespaces where name = 'deep'";
    sqlx::raw_sql(made).execute(&mut sql).await.unwrap();
    (db, sql)
}

/// Queues so many; `due` is how each becomes due, in terms of its number `g`.
async fn queue(sql: &mut PgConnection, count: u32, due: &str) {
    let insert = format!(
        "insert into invocations (id, namespace_id, function_id, source, payload, policy, run_at)
         select gen_random_uuid(), f.namespace_id, f.id, 'async', '{{}}', '{{}}', {due} from functions f, generate_series(1, {count}) g"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(insert)).execute(&mut *sql).await.unwrap();
    sqlx::raw_sql("analyze invocations").execute(sql).await.unwrap();
}

/// Blocks that a claim of 32 touches. It is undone.
async fn blocks(sql: &mut PgConnection, since: Option<DateTime<Utc>>) -> i64 {
    let mut undone = sql.begin().await.unwrap();
    let plan: serde_json::Value =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain (analyze, buffers, format json) {CLAIM}")))
            .bind(GatewayId::new().0)
            .bind(32_i64)
            .bind(since)
            .bind(JOB_LEASE.as_secs_f64())
            .fetch_one(&mut *undone)
            .await
            .unwrap();
    undone.rollback().await.unwrap();
    let of = |what: &str| plan[0]["Plan"][what].as_i64().unwrap();
    of("Shared Hit Blocks") + of("Shared Read Blocks")
}

const AGES: &str = "clock_timestamp() - interval '1 hour' + make_interval(secs => g * 0.001)";

#[tokio::test]
async fn a_claim_costs_the_same_however_much_is_queued_or_put_off() {
    let (_shallow, mut shallow) = world().await;
    queue(&mut shallow, 200, AGES).await;
    let little = blocks(&mut shallow, None).await;
    let (_deep, mut deep) = world().await;
    queue(&mut deep, 100_000, AGES).await;
    queue(&mut deep, 50_000, "clock_timestamp() + interval '1 day'").await;
    let much = blocks(&mut deep, None).await;
    eprintln!("blocks of a claim of 32: {little} with 200 queued, {much} with 150,000");
    assert!(much < little * 2, "{much} blocks against {little}");
}

#[tokio::test]
async fn a_claim_does_not_walk_over_what_was_done_while_somebody_held_a_transaction_open() {
    let (db, mut sql) = world().await;
    let mut holder = PgConnection::connect(db.url()).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from invocations")
        .execute(&mut *held)
        .await
        .unwrap();
    // A day's work that was claimed and has ended, none of which can be swept away.
    queue(&mut sql, 60_000, AGES).await;
    let work = "update invocations set state = 'running', gateway_id = gen_random_uuid(), lease_until = clock_timestamp();
        delete from invocations";
    sqlx::raw_sql(work).execute(&mut sql).await.unwrap();
    queue(&mut sql, 200, "clock_timestamp()").await;
    let whole = blocks(&mut sql, None).await;
    let mut from = ClaimFrom::default();
    from.saw(Utc::now());
    let lately = blocks(&mut sql, from.since).await;
    held.rollback().await.unwrap();
    eprintln!(
        "blocks of a claim of 32 behind 60,000 dead rows: {whole} from the oldest, {lately} from the last one's place"
    );
    assert!(lately * 2 < whole, "{lately} blocks against {whole}");
}
