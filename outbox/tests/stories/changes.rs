//! What is read of the changes of a table, when, and in which order.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn every_committed_change_is_read_once_it_is_committed_and_no_other() {
    let world = World::new().await;
    world.install().await.unwrap();
    let mut reader = world.reader().await.unwrap();
    world.user.run("insert into orders values (1, 'boat', 12.50)").await;
    world.user.run("begin; insert into orders values (2, 'oar', 1); rollback").await;
    world.user.run("begin; insert into orders values (3, 'net', 1); savepoint a; update orders set item = 'rope'; rollback to a; commit").await;
    world.user.run("update orders set id = 4, item = 'ship' where id = 1").await;
    world.user.run("delete from orders where id = 3; truncate orders").await;
    let found = reader.read(100).await.unwrap();
    assert_eq!(
        found.iter().map(short).collect::<Vec<_>>(),
        [
            r#"insert - {"id":1,"item":"boat","total":12.50}"#,
            r#"insert - {"id":3,"item":"net","total":1}"#,
            r#"update {"id":1,"item":"boat","total":12.50} {"id":4,"item":"ship","total":12.50}"#,
            r#"delete {"id":3,"item":"net","total":1} -"#,
            "truncate - -",
        ]
    );
    let keys: Vec<Option<&str>> = found.iter().map(|c| c.key.as_deref()).collect();
    assert_eq!(keys[..2], [Some(r#"{ "id" : 1 }"#), Some(r#"{ "id" : 3 }"#)]);
    assert_eq!(keys[4], None);
    assert_eq!(found[3].transaction_id, found[4].transaction_id, "one statement string is one transaction");
    assert!(found.iter().all(|change| change.age < 60.0 && change.at.ends_with('Z')));
    // Not acknowledged is not gone; what is acknowledged twice, or was never there, does no harm.
    assert_eq!(positions(&reader.read(100).await.unwrap()), positions(&found));
    reader.acknowledge(&positions(&found[..4])).await.unwrap();
    reader.acknowledge(&[positions(&found[..1]), vec!["9999".into(), "odd".into()]].concat()).await.unwrap();
    assert_eq!(positions(&reader.read(100).await.unwrap()), positions(&found[4..]));
}

#[tokio::test]
async fn a_transaction_that_was_open_for_long_loses_nothing() {
    let world = World::new().await;
    world.install().await.unwrap();
    let mut reader = world.reader().await.unwrap();
    let open = world.database.client().await;
    open.run("begin; insert into orders values (1, 'first to be written', 0)").await;
    world.user.run("insert into orders values (2, 'first to be committed', 0)").await;
    let early = reader.read(100).await.unwrap();
    assert_eq!(early.iter().map(|c| c.key.as_deref()).collect::<Vec<_>>(), [Some(r#"{ "id" : 2 }"#)]);
    reader.acknowledge(&positions(&early)).await.unwrap();
    open.run("commit").await;
    let late = reader.read(100).await.unwrap();
    assert_eq!(late.iter().map(|c| c.key.as_deref()).collect::<Vec<_>>(), [Some(r#"{ "id" : 1 }"#)]);
    assert!(late[0].id < early[0].id, "its number is lower than one that was read and deleted before");
}

#[tokio::test]
async fn changes_of_one_row_by_many_come_in_the_order_of_their_commits() {
    let world = World::new().await;
    world.install().await.unwrap();
    world.user.run("insert into orders values (1, '', 0)").await;
    let adders = (0..4).map(async |_| {
        let client = world.database.client().await;
        for _ in 0..25 {
            client
                .run("begin; select pg_sleep(random() * 0.002); update orders set total = total + 1; commit")
                .await;
        }
    });
    futures_util::future::join_all(adders).await;
    let mut reader = world.reader().await.unwrap();
    let mut totals = Vec::new();
    loop {
        let found = reader.read(7).await.unwrap();
        if found.is_empty() {
            break;
        }
        totals.extend(found.iter().map(|c| {
            let row: serde_json::Value = serde_json::from_str(c.new.as_deref().unwrap()).unwrap();
            row["total"].as_u64().unwrap()
        }));
        reader.acknowledge(&positions(&found)).await.unwrap();
    }
    assert_eq!(totals, (0..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn chosen_columns_are_all_that_leaves_and_all_that_counts() {
    let mut world = World::new().await;
    world.spec.columns = vec!["item".into(), "id".into()];
    world.install().await.unwrap();
    world.user.run("insert into orders values (1, 'boat', 5)").await;
    world.user.run("update orders set total = 6").await;
    world.user.run("update orders set item = null").await;
    // A column that goes must not take the user's statements with it.
    world.user.run("alter table orders drop column item; update orders set id = 2; delete from orders").await;
    let found = world.reader().await.unwrap().read(100).await.unwrap();
    let rows: Vec<(&str, Option<serde_json::Value>, Option<serde_json::Value>)> = found
        .iter()
        .map(|c| {
            let json = |text: &Option<String>| text.as_deref().map(|t| serde_json::from_str(t).unwrap());
            (c.operation.as_str(), json(&c.old), json(&c.new))
        })
        .collect();
    let row = |item: Option<&str>, id: i32| Some(serde_json::json!({"item": item, "id": id}));
    assert_eq!(
        rows,
        [
            ("insert", None, row(Some("boat"), 1)),
            ("update", row(Some("boat"), 1), row(None, 1)),
            ("update", row(None, 1), row(None, 2)),
            ("delete", row(None, 2), None),
        ]
    );
}

#[tokio::test]
async fn large_rows_are_left_out_with_their_key_kept_and_reads_have_a_bound_in_bytes() {
    let world = World::new().await;
    world.install().await.unwrap();
    let mut reader = world.reader().await.unwrap();
    world.user.run("insert into orders values (1, repeat('x', 1200000), 0)").await;
    world.user.run("insert into orders select n, repeat('y', 900000), 0 from generate_series(2, 11) n").await;
    let first = reader.read(100).await.unwrap();
    assert_eq!(
        (first[0].omitted, &first[0].new, first[0].key.as_deref()),
        (true, &None, Some(r#"{ "id" : 1 }"#))
    );
    assert!((4..8).contains(&first.len()), "about 4 MiB: {}", first.len());
    assert!(first[1..].iter().all(|change| !change.omitted && change.new.is_some()));
    reader.acknowledge(&positions(&first)).await.unwrap();
    assert_eq!(reader.read(1).await.unwrap().len(), 1, "one at least");
}

#[tokio::test]
async fn a_reader_that_sleeps_is_woken_and_one_that_is_gone_costs_no_notifications() {
    let world = World::new().await;
    world.install().await.unwrap();
    let mut reader = world.reader().await.unwrap();
    let asleep =
        format!("select asleep_until > clock_timestamp() from davit_source.reader_{}", world.id.0.simple());
    assert_eq!(world.user.ask(&asleep).await, [""]);
    let began = Instant::now();
    let (waited, ()) = tokio::join!(reader.wait(Duration::from_secs(30)), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.user.run("insert into orders values (1, 'boat', 0)").await;
    });
    waited.unwrap();
    assert!((Duration::from_millis(150)..Duration::from_secs(20)).contains(&began.elapsed()));
    assert_eq!(world.user.ask(&asleep).await, ["t"]);
    let found = reader.read(10).await.unwrap();
    reader.acknowledge(&positions(&found)).await.unwrap();
    assert_eq!(world.user.ask(&asleep).await, [""], "whoever works need not be woken");
    // What came while it worked is found before it sleeps.
    world.user.run("insert into orders values (2, 'oar', 0)").await;
    let began = Instant::now();
    reader.wait(Duration::from_secs(30)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_database_that_goes_away_is_an_error_and_is_found_again() {
    let world = World::new().await;
    world.install().await.unwrap();
    let mut reader = world.reader().await.unwrap();
    world.user.run("insert into orders values (1, 'boat', 0)").await;
    world.database.close().await;
    assert!(matches!(reader.read(10).await, Err(Trouble::Unreachable(_))));
    assert!(world.reader().await.is_err());
    world.database.open().await;
    assert_eq!(world.reader().await.unwrap().read(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_table_that_was_made_anew_is_noticed() {
    let world = World::new().await;
    world.install().await.unwrap();
    world.user.run("drop table orders; create table orders (id int primary key)").await;
    let Err(Trouble::Missing(text)) = world.reader().await else { panic!("not noticed") };
    assert!(text.contains("public.orders") && text.contains("davit source sql"), "{text}");
    world.install().await.unwrap();
    world.user.run("insert into orders values (1)").await;
    assert_eq!(world.reader().await.unwrap().read(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_partitioned_table_is_one_table() {
    let mut world = World::new().await;
    world
        .user
        .run(
            "create table days (id int primary key, n int) partition by range (id);
         create table early partition of days for values from (0) to (10);
         create table late partition of days for values from (10) to (20)",
        )
        .await;
    world.spec.table = "days".parse().unwrap();
    world.install().await.unwrap();
    world.user.run("insert into days values (1, 1), (11, 1); update late set n = 2; delete from early").await;
    let found = world.reader().await.unwrap().read(10).await.unwrap();
    let shorts: Vec<String> =
        found.iter().map(|c| format!("{} {}", c.operation, c.key.as_deref().unwrap())).collect();
    assert_eq!(
        shorts,
        [
            r#"insert { "id" : 1 }"#,
            r#"insert { "id" : 11 }"#,
            r#"update { "id" : 11 }"#,
            r#"delete { "id" : 1 }"#
        ]
    );
}
