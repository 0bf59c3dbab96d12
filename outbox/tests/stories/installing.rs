//! Putting the outbox there and taking it away, by davit and by hand, and everything that can be wrong with it.

use davit_api::ChangeOrder;

use super::*;

#[tokio::test]
async fn it_is_there_twice_as_once_and_leaves_nothing_behind() {
    let world = World::new().await;
    world.install().await.unwrap();
    world.install().await.unwrap();
    world.user.run("insert into orders values (1, 'boat', 2)").await;
    assert_eq!(world.reader().await.unwrap().read(10).await.unwrap().len(), 1, "one trigger, not two");
    Session::remove(&world.address(), &UserDatabase::allowed(), &world.outbox()).await.unwrap();
    assert_eq!(world.left().await, Vec::<String>::new());
    Session::remove(&world.address(), &UserDatabase::allowed(), &world.outbox()).await.unwrap();
    world.user.run("insert into orders values (2, 'oar', 1)").await;
    assert!(matches!(world.reader().await.err(), Some(Trouble::Missing(_))));
}

#[tokio::test]
async fn what_is_not_committed_leaves_nothing_and_holds_nobody() {
    let world = World::new().await;
    let installing =
        Session::install(&world.address(), &UserDatabase::allowed(), &world.outbox()).await.unwrap();
    drop(installing);
    world.user.run("insert into orders values (1, 'boat', 2)").await;
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn two_sources_of_one_table_each_get_every_change() {
    let (one, mut two) = (World::new().await, SourceId::new());
    one.install().await.unwrap();
    let first = one.reader().await.unwrap();
    let mut other = World { id: std::mem::replace(&mut two, one.id), ..one };
    other.install().await.unwrap();
    let mut readers = [first, other.reader().await.unwrap()];
    other.user.run("insert into orders values (1, 'boat', 2)").await;
    for reader in &mut readers {
        assert_eq!(reader.read(10).await.unwrap().len(), 1);
    }
    Session::remove(&other.address(), &UserDatabase::allowed(), &other.outbox()).await.unwrap();
    other.id = two;
    other.user.run("insert into orders values (2, 'boat', 2)").await;
    assert_eq!(readers[0].read(10).await.unwrap().len(), 2, "taking one away leaves the other");
}

#[tokio::test]
async fn a_database_administrator_can_do_it_and_davits_user_needs_hardly_a_right() {
    let world = World::new().await;
    world.database.add_user("reader").await;
    assert!(matches!(world.install_as("reader").await, Err(Trouble::Rights(_))));
    world.user.run(&world.outbox().install_script()).await;
    let grants: String = world
        .outbox()
        .install_script()
        .lines()
        .filter_map(|line| line.strip_prefix("--   grant"))
        .map(|rest| format!("grant{};", rest.trim_end_matches(';').replace("THAT_USER", "reader")))
        .collect();
    assert_eq!(grants.matches("grant ").count(), 3, "{grants}");
    world.user.run(&grants).await;
    let address = Address::parse(&world.database.url("reader")).unwrap();
    let mut reader = Reader::open(&address, &UserDatabase::allowed(), world.outbox()).await.unwrap();
    // Whoever changes the table needs no right of davit's at all.
    world.database.add_user("app").await;
    world.user.run("grant select, insert on orders to app").await;
    let app = world.database.client_of("app").await;
    app.run("insert into orders values (1, 'boat', 2)").await;
    assert!(
        app.attempt(&format!("select * from davit_source.outbox_{}", world.id.0.simple())).await.is_err()
    );
    let found = reader.read(10).await.unwrap();
    reader.wait(std::time::Duration::ZERO).await.unwrap();
    reader.acknowledge(&positions(&found)).await.unwrap();
    assert_eq!(reader.read(10).await.unwrap(), []);
    world.user.run(&world.outbox().remove_script()).await;
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn names_that_try_to_be_statements_are_names() {
    let mut world = World::new().await;
    for odd in [
        r#"x"; drop table orders; --"#,
        "y'; drop table orders; --",
        "z\\'; drop table orders; --",
        "$davit$ end; drop table orders; $davit1$",
        "p % %I %L $1",
        "line\nbreak",
    ] {
        let quoted = odd.replace('"', "\"\"");
        world.user.run(&format!(
            "create schema \"{quoted}\"; create table \"{quoted}\".\"{quoted}\" (\"{quoted}\" int primary key, plain int)"
        ))
        .await;
        world.id = SourceId::new();
        world.spec.table = format!("\"{quoted}\".\"{quoted}\"").parse().unwrap();
        world.spec.columns = vec![odd.to_owned()];
        world.install().await.unwrap_or_else(|error| panic!("{odd}: {error}"));
        world.user.run(&world.outbox().install_script()).await;
        world.user.run(&format!("insert into \"{quoted}\".\"{quoted}\" values (7, 8)")).await;
        let found = world.reader().await.unwrap().read(10).await.unwrap();
        let row: std::collections::BTreeMap<String, i32> =
            serde_json::from_str(found[0].new.as_deref().unwrap()).unwrap();
        assert_eq!(row, [(odd.to_owned(), 7)].into(), "{odd}");
        assert_eq!(found[0].key, found[0].new, "{odd}");
        Session::remove(&world.address(), &UserDatabase::allowed(), &world.outbox()).await.unwrap();
    }
    assert_eq!(world.user.ask("select count(*) from orders").await, ["0"], "the table is still there");
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn whatever_is_wrong_is_said_by_its_field_and_changes_nothing() {
    let world = World::new().await;
    world.user.run("create view seen as select * from orders; create table loose (n int)").await;
    world.database.add_user("nobody").await;
    type Change = fn(&mut PostgresSource);
    let with = |change: Change| {
        let mut spec = world.spec.clone();
        change(&mut spec);
        Outbox::new(world.id, &"shop".parse().unwrap(), &"orders".parse().unwrap(), &spec)
    };
    let allowed = UserDatabase::allowed();
    let cases: [(Change, &str, &str); 5] = [
        (|s| s.table = "public.order".parse().unwrap(), "table", "there is no table public.order"),
        (|s| s.table = "nowhere.orders".parse().unwrap(), "table", "there is no table nowhere.orders"),
        (|s| s.table = "seen".parse().unwrap(), "table", "public.seen is a view"),
        (
            |s| s.columns = vec!["item".into(), "colour".into()],
            "columns",
            "public.orders has no column colour",
        ),
        (
            |s| s.table = "loose".parse().unwrap(),
            "order",
            "row needs a primary key, and public.loose has none",
        ),
    ];
    for (change, field, why) in cases {
        let trouble = Session::install(&world.address(), &allowed, &with(change)).await.err().unwrap();
        assert_eq!(trouble.field(), field, "{trouble}");
        assert!(trouble.to_string().starts_with(why), "{trouble}");
    }
    let plain = || with(|_| {});
    let good = world.database.url("owner");
    let port = |url: &str| url.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    let mut seen = Vec::new();
    for (url, allowed, why) in [
        (good.clone(), nobody(), "is not an address of the public internet"),
        (good.replace("%37", "%38"), allowed.clone(), "the database refuses: password"),
        (good.replace("/user_", "/nothing_"), allowed.clone(), "the database refuses: database"),
        (
            good.replace(&port(&good), "1"),
            allowed.clone(),
            "the database cannot be reached: Connection refused",
        ),
        (
            good.replace("localhost", "no-such-host.invalid"),
            allowed.clone(),
            "the database cannot be reached: ",
        ),
        (format!("{good}?sslmode=verify-full"), allowed.clone(), "the database cannot be reached: "),
        (world.database.url("nobody"), allowed.clone(), "the database user lacks a right"),
    ] {
        let trouble = Session::install(&Address::parse(&url).unwrap(), &allowed, &plain()).await.err();
        let trouble = trouble.unwrap_or_else(|| panic!("{why}: it was let in"));
        assert_eq!(trouble.field(), "secret", "{trouble}");
        assert!(trouble.to_string().contains(why), "{trouble}");
        seen.push(format!("{trouble} {trouble:?}"));
    }
    assert!(seen.iter().all(|text| !text.contains(davit_outbox::testing::PASSWORD)), "{seen:?}");
    // Somebody has changed the table and not committed: davit does not make everybody wait behind it.
    let open = world.database.client().await;
    open.run("begin; insert into orders values (1, 'boat', 2)").await;
    assert!(matches!(world.install().await, Err(Trouble::Busy(_))));
    open.run("commit").await;
    assert_eq!(world.left().await, Vec::<String>::new());
}

#[tokio::test]
async fn tls_is_spoken_as_the_address_says() {
    let world = World::new().await;
    for (mode, tls) in [("disable", "f"), ("prefer", "t"), ("require", "t")] {
        let address = format!("{}?sslmode={mode}&application_name=tls-{mode}", world.database.url("owner"));
        let session =
            Session::connect(&Address::parse(&address).unwrap(), &UserDatabase::allowed()).await.unwrap();
        let question = format!(
            "select s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where application_name = 'tls-{mode}'"
        );
        assert_eq!(world.user.ask(&question).await, [tls], "{mode}");
        drop(session);
    }
}

#[tokio::test]
async fn a_table_without_a_key_is_taken_when_the_order_needs_none() {
    let mut world = World::new().await;
    world.user.run("create table loose (n int)").await;
    world.spec.table = "loose".parse().unwrap();
    world.spec.order = ChangeOrder::None;
    world.spec.events = only(&[TableEvent::Delete]);
    world.install().await.unwrap();
    world
        .user
        .run("insert into loose values (1); truncate loose; insert into loose values (2); delete from loose")
        .await;
    let found = world.reader().await.unwrap().read(10).await.unwrap();
    assert_eq!(found.iter().map(short).collect::<Vec<_>>(), [r#"delete {"n":2} -"#]);
    assert_eq!(found[0].key, None);
}
