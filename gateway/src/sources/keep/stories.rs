//! Stories of fetching table changes: a real Postgres for davit, another one for the user, and gateways that come and go.

use std::sync::atomic::{AtomicI32, Ordering};

use davit_api::{NewSource, PostgresSource, SourceState, SourceStatus, SourceView};
use davit_outbox::testing::{Client, UserDatabase};
use davit_outbox::{Address, Outbox, Session};
use davit_registry::MasterKey;
use serde_json::Value;

use super::*;
use crate::dispatch::stories::{World, eventually};
use crate::routes::Refresh;

/// davit's registry with a function, and a user's database with a table that is a source for it.
struct Story {
    world: World,
    theirs: UserDatabase,
    user: Client,
    source: SourceView,
}

/// A gateway that only fetches.
struct Fetching {
    id: GatewayId,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Story {
    async fn new(change: impl FnOnce(&mut PostgresSource)) -> Self {
        let (world, theirs) = (World::new().await, UserDatabase::new().await);
        let user = theirs.client().await;
        user.run("create table orders (id int primary key, item text)").await;
        let (secret, key) = ("orders-db".parse().unwrap(), MasterKey::from_bytes([7; 32]));
        let davit = world.registry().as_davit("test");
        davit.set_secret(&world.namespace, &secret, &theirs.url("owner"), &key).await.unwrap();
        let mut spec = PostgresSource::new(secret, "orders".parse().unwrap());
        change(&mut spec);
        let new = NewSource {
            name: "orders".parse().unwrap(),
            function: world.function.clone(),
            spec: SourceSpec::Postgres(spec.clone()),
            paused: false,
        };
        let source = davit.create_source(&world.namespace, &new).await.unwrap();
        let outbox = Outbox::new(source.id, &world.namespace, &source.name, &spec);
        let address = Address::parse(&theirs.url("owner")).unwrap();
        let installing = Session::install(&address, &UserDatabase::allowed(), &outbox).await.unwrap();
        installing.commit().await.unwrap();
        Self { world, theirs, user, source }
    }

    async fn gateway(&self) -> Fetching {
        let (registry, id, routes) = (self.world.registry().clone(), GatewayId::new(), Routes::empty());
        registry.register_gateway(id, "http://test").await.unwrap();
        let changes = Changes::listen(&registry).await.unwrap();
        let mut refresh =
            Refresh::new(routes.clone(), registry.clone(), Arc::new(MasterKey::from_bytes([7; 32])));
        refresh.look().await.unwrap();
        let mut hint = changes.subscribe(Topic::Routes);
        let refreshing = tokio::spawn(async move {
            while hint.changed().await.is_ok() {
                let _ = refresh.look().await;
            }
        });
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let keeper = Keeper {
            registry,
            gateway: id,
            routes,
            allowed: Arc::new(UserDatabase::allowed()),
            metrics: metrics.clone(),
            wake: Arc::default(),
        };
        let keeping = tokio::spawn(keeper.run(changes, stop.clone()));
        let tasks = [refreshing, keeping].map(AbortOnDropHandle::new).into();
        Fetching { id, metrics, stop, tasks }
    }

    /// Of whatever was accepted: operation and key, in the order of acceptance.
    async fn accepted(&self) -> Vec<(String, i64)> {
        let read = |text: &String| {
            let event: Value = serde_json::from_str(text).unwrap();
            assert_eq!((&event["source"], &event["table"]), (&"orders".into(), &"public.orders".into()));
            (event["operation"].as_str().unwrap().to_owned(), event["key"]["id"].as_i64().unwrap_or(-1))
        };
        self.world.db.payloads().await.iter().map(read).collect()
    }

    async fn until(&self, count: usize) -> Vec<(String, i64)> {
        eventually(async || Some(self.accepted().await).filter(|all| all.len() >= count)).await
    }

    async fn status(&self) -> SourceStatus {
        let view = self.world.registry().source(&self.world.namespace, &self.source.name).await.unwrap();
        view.status.unwrap()
    }

    async fn until_state(&self, state: SourceState) -> SourceStatus {
        eventually(async || Some(self.status().await).filter(|status| status.state == state)).await
    }

    async fn pause(&self, paused: bool) {
        let davit = self.world.registry().as_davit("test");
        davit.pause_source(&self.world.namespace, &self.source.name, paused).await.unwrap();
    }

    async fn left(&self) -> Vec<String> {
        self.user
            .ask(&format!("select count(*) from davit_source.outbox_{}", self.source.id.0.simple()))
            .await
    }
}

fn inserts(ids: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    ids.into_iter().map(|id| ("insert".to_owned(), id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_become_calls_in_their_order_and_the_outbox_is_empty_afterwards() {
    let story = Story::new(|spec| spec.batch = 3).await;
    let gateway = story.gateway().await;
    story.user.run("insert into orders select n, 'boat' from generate_series(1, 20) n").await;
    assert_eq!(story.until(20).await, inserts(1..=20));
    story.user.run("update orders set item = 'ship' where id = 7; delete from orders where id = 8").await;
    assert_eq!(story.until(22).await[20..], [("update".to_owned(), 7), ("delete".to_owned(), 8)]);
    let status = eventually(async || Some(story.status().await).filter(|s| s.lag_seconds == Some(0.0))).await;
    assert_eq!((status.state, status.gateway, status.delivered), (SourceState::Active, Some(gateway.id), 22));
    assert_eq!(eventually(async || Some(story.left().await).filter(|left| left == &["0"])).await, ["0"]);
    let text = gateway.metrics.render();
    for line in [
        "davit_sources_held 1\n",
        "davit_sources_received_total 22\n",
        "davit_sources_delivered_total 22\n",
        "davit_sources_errors_total 0\n",
        "davit_source_lag_seconds{namespace=\"shop\",source=\"orders\"} 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_are_cut_off_at_any_moment_lose_and_double_nothing() {
    let story = Story::new(|spec| spec.batch = 5).await;
    let next = AtomicI32::new(1);
    let write = async || {
        let client = story.theirs.client().await;
        for n in 0..60 {
            let (id, end) =
                (next.fetch_add(1, Ordering::Relaxed), if n % 5 == 0 { "rollback" } else { "commit" });
            let hold = if n % 20 == 1 { "select pg_sleep(0.4);" } else { "" };
            client.run(&format!("begin; insert into orders values ({id}, ''); {hold} {end}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let cut = async || {
        for n in 0..12_u64 {
            let gateway = story.gateway().await;
            tokio::time::sleep(Duration::from_millis(150 + n * 37 % 200)).await;
            // Its row goes, as it does when its lease has lapsed; its tasks end wherever they are.
            drop(gateway.tasks);
            story.world.registry().drop_gateway(gateway.id).await.unwrap();
        }
    };
    tokio::join!(write(), write(), write(), cut());
    let last = story.gateway().await;
    let committed: Vec<i64> = story
        .user
        .ask("select id from orders order by id")
        .await
        .iter()
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(committed.len(), 3 * 48);
    eventually(async || Some(story.left().await).filter(|left| left == &["0"])).await;
    let mut accepted: Vec<i64> = story.accepted().await.into_iter().map(|(_, id)| id).collect();
    accepted.sort_unstable();
    assert_eq!(accepted, committed, "each once");
    last.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_share_the_work_of_one_and_the_second_takes_over() {
    let story = Story::new(|_| {}).await;
    let (a, b) = (story.gateway().await, story.gateway().await);
    let holder = eventually(async || story.status().await.gateway).await;
    let (first, second) = if holder == a.id { (a, b) } else { (b, a) };
    story.user.run("insert into orders values (1, '')").await;
    story.until(1).await;
    // It is counted after the commit, at which the row can be seen.
    eventually(async || Some(()).filter(|()| first.metrics.sources.delivered.get() > 0)).await;
    assert_eq!((first.metrics.sources.delivered.get(), second.metrics.sources.delivered.get()), (1, 0));
    first.stop.cancel();
    story.world.registry().drop_gateway(first.id).await.unwrap();
    story.user.run("insert into orders values (2, '')").await;
    assert_eq!(story.until(2).await, inserts([1, 2]));
    assert_eq!(story.status().await.gateway, Some(second.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_source_is_left_alone_and_goes_on_where_it_was() {
    let story = Story::new(|_| {}).await;
    let _gateway = story.gateway().await;
    story.user.run("insert into orders values (1, '')").await;
    story.until(1).await;
    story.pause(true).await;
    story.user.run("insert into orders values (2, ''), (3, '')").await;
    tokio::time::sleep(LOOK + Duration::from_secs(1)).await;
    assert_eq!((story.accepted().await.len(), story.status().await.state), (1, SourceState::Paused));
    let connections = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'davit'";
    // The user's own connection is the one that is left.
    assert_eq!(story.user.ask(connections).await, ["1"]);
    story.pause(false).await;
    assert_eq!(story.until(3).await, inserts([1, 2, 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_is_said_to_be_and_found_again_without_its_password_anywhere() {
    let story = Story::new(|_| {}).await;
    let gateway = story.gateway().await;
    story.user.run("insert into orders values (1, '')").await;
    story.until(1).await;
    story.theirs.close().await;
    let status = story.until_state(SourceState::Failing).await;
    let error = status.last_error.unwrap();
    assert!(status.last_error_at.is_some() && !error.contains(davit_outbox::testing::PASSWORD), "{error}");
    assert!(gateway.metrics.sources.errors.get() > 0);
    story.theirs.open().await;
    story.theirs.client().await.run("insert into orders values (2, '')").await;
    assert_eq!(story.until(2).await, inserts([1, 2]));
    story.until_state(SourceState::Active).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_has_enough_to_do_is_given_no_more() {
    let story = Story::new(|spec| (spec.batch, spec.backlog) = (2, 4)).await;
    let _gateway = story.gateway().await;
    // Nobody carries anything out here, so that nothing ends.
    story.user.run("insert into orders select n, '' from generate_series(1, 20) n").await;
    story.until_state(SourceState::HeldBack).await;
    assert_eq!(story.accepted().await, inserts(1..=4));
    assert_eq!(story.left().await, ["16"], "the rest waits where it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_address_counts_as_soon_as_its_secret_is_set() {
    let story = Story::new(|_| {}).await;
    let _gateway = story.gateway().await;
    let (secret, key) = ("orders-db".parse().unwrap(), MasterKey::from_bytes([7; 32]));
    let davit = story.world.registry().as_davit("test");
    let namespace = &story.world.namespace;
    davit.set_secret(namespace, &secret, "postgres://u:hunter2@localhost:1/d", &key).await.unwrap();
    let error = story.until_state(SourceState::Failing).await.last_error.unwrap();
    assert!(!error.contains("hunter2"), "{error}");
    davit.set_secret(namespace, &secret, &story.theirs.url("owner"), &key).await.unwrap();
    story.user.run("insert into orders values (1, '')").await;
    assert_eq!(story.until(1).await, inserts([1]));
}
