//! What is kept: secrets, tokens, instances, leases, counters, and the database itself after a kill.

use std::time::Duration;

use chrono::Utc;
use davit_api::{
    ColdPhases, ErrorCode, GatewayId, InstanceId, InstanceState, LogStream, NewToken, PoolKey, Role,
};
use davit_registry::{
    Act, AsRead, Changes, ConnectSettings, GatewayWord, InstanceUpdate, LogFilter, LogRow, MasterKey, Ready,
    Registry, Topic, UsageDelta, embedded, hash_token,
};
use sqlx::Connection;
use uuid::Uuid;

use crate::support::*;

#[tokio::test]
async fn tokens_and_secrets_open_only_for_whom_they_are_meant() {
    let db = fresh().await;
    let registry = db.registry();
    let new =
        NewToken { description: "ci".into(), namespace: Some(ns()), role: Role::Deploy, expires_at: None };
    let made = registry.as_davit("test").create_token(new.clone()).await.unwrap();
    assert_eq!(made.token.len(), 47);
    let found = registry.find_token(hash_token(&made.token)).await.unwrap().unwrap();
    assert_eq!((found.id, found.namespace, found.role), (made.view.id, Some(ns()), Role::Deploy));
    let other: davit_api::NamespaceName = "other".parse().unwrap();
    registry.as_davit("test").ensure_namespace(&other).await.unwrap();
    assert_eq!(
        code(registry.as_davit("test").revoke_token(found.id, Some(&other)).await),
        ErrorCode::NotFound
    );
    registry.as_davit("test").revoke_token(found.id, Some(&ns())).await.unwrap();
    assert!(registry.find_token(hash_token(&made.token)).await.unwrap().is_none());
    let expired =
        NewToken { expires_at: Some(Utc::now() - Duration::from_secs(1)), namespace: None, ..new.clone() };
    let expired = registry.as_davit("test").create_token(expired).await.unwrap();
    assert!(registry.find_token(hash_token(&expired.token)).await.unwrap().is_none());
    let nul = NewToken { description: "a\0b".into(), ..new.clone() };
    assert_eq!(code(registry.as_davit("test").create_token(nul).await), ErrorCode::InvalidRequest);
    let long = NewToken { description: "x".repeat(101), ..new };
    assert_eq!(code(registry.as_davit("test").create_token(long).await), ErrorCode::InvalidRequest);

    // One that the operator made is taken in once, however many do so at a time, and stays revoked when it was.
    let given = "dvt_0123456789abcdefghijklmnopqrstuv";
    let admin =
        NewToken { description: "given".into(), namespace: None, role: Role::Admin, expires_at: None };
    let both = registry.as_davit("test");
    let (one, two) =
        tokio::join!(both.adopt_token(admin.clone(), given), both.adopt_token(admin.clone(), given));
    assert!(one.unwrap() && two.unwrap());
    let found = registry.find_token(hash_token(given)).await.unwrap().unwrap();
    assert_eq!((found.role, found.namespace), (Role::Admin, None));
    registry.as_davit("test").revoke_token(found.id, None).await.unwrap();
    assert!(!registry.as_davit("test").adopt_token(admin.clone(), given).await.unwrap());
    let short = registry.as_davit("test").adopt_token(admin, "dvt_guessable").await;
    assert_eq!(code(short), ErrorCode::InvalidRequest);

    // A sealed secret that is moved to another place, or read with another key, does not open.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let key = MasterKey::load_or_create(&path).unwrap();
    let same = MasterKey::load_or_create(&path).unwrap();
    let secret = "api-key".parse().unwrap();
    registry.as_davit("test").set_secret(&ns(), &secret, "s3cret", &key).await.unwrap();
    let mut wants = spec();
    wants.secrets.insert("KEY".parse().unwrap(), secret.clone());
    deployed(registry, "f", &wants, b"a").await;
    let env =
        async |key: &MasterKey| registry.routing_snapshot(key, &AsRead).await.unwrap().functions.remove(0);
    assert_eq!(env(&same).await.environment.variables["KEY"], "s3cret");
    assert_eq!(env(&MasterKey::from_bytes([1; 32])).await.environment.missing, std::slice::from_ref(&secret));
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let stored: Vec<u8> = sqlx::query_scalar("select sealed from secrets").fetch_one(&mut raw).await.unwrap();
    assert!(!stored.windows(6).any(|w| w == b"s3cret"));
    registry.as_davit("test").set_secret(&other, &secret, "theirs", &key).await.unwrap();
    let steal = "update secrets s set sealed = o.sealed, nonce = o.nonce from secrets o, namespaces n
        where n.name = 'other' and o.namespace_id = n.id and s.namespace_id <> n.id";
    sqlx::raw_sql(steal).execute(&mut raw).await.unwrap();
    assert_eq!(env(&key).await.environment.missing, std::slice::from_ref(&secret));
    registry.as_davit("test").remove_secret(&ns(), &secret).await.unwrap();
    assert!(registry.list_secrets(&ns()).await.unwrap().is_empty());
}

#[tokio::test]
async fn no_change_without_its_entry_and_no_entry_without_its_change() {
    let db = fresh().await;
    let registry = db.registry();
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let key = MasterKey::from_bytes([7; 32]);
    let secret = "api-key".parse().unwrap();
    let act = Act {
        request_id: None,
        token_id: None,
        actor: "ci".into(),
        namespace: Some(ns()),
        action: "secrets.set".into(),
        object: "api-key".into(),
    };
    let entries = async || registry.list_audit(Some(&ns()), None, 10).await.unwrap();

    // The log takes nothing: then nothing is changed either.
    sqlx::raw_sql("alter table audit add constraint full_disk check (false) not valid")
        .execute(&mut raw)
        .await
        .unwrap();
    let audited = registry.audited(act.clone());
    assert!(audited.set_secret(&ns(), &secret, "s3cret", &key).await.is_err());
    assert!(!audited.recorded());
    assert!(registry.list_secrets(&ns()).await.unwrap().is_empty());
    sqlx::raw_sql("alter table audit drop constraint full_disk").execute(&mut raw).await.unwrap();

    audited.set_secret(&ns(), &secret, "s3cret", &key).await.unwrap();
    assert!(audited.recorded());
    let written = entries().await;
    let found = (written[0].actor.as_str(), written[0].action.as_str(), written[0].object.as_str());
    assert_eq!((found, written[0].outcome.as_str()), (("ci", "secrets.set", "api-key"), "ok"));
    let other = "other".parse().unwrap();
    assert!(registry.list_audit(Some(&other), None, 10).await.unwrap().is_empty());

    // A change that is refused leaves no entry of its own; its refusal is written down by who refused.
    let removing = registry.audited(Act { action: "secrets.remove".into(), ..act });
    assert!(removing.remove_secret(&ns(), &"unknown".parse().unwrap()).await.is_err());
    assert_eq!(entries().await, written);
    removing.record("not_found").await.unwrap();
    assert_eq!(entries().await[0].outcome, "not_found");
}

#[tokio::test]
async fn the_audit_log_is_append_only_until_an_entry_is_old() {
    let db = fresh().await;
    let registry = db.registry();
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql(
        "insert into audit (at, actor, action, object, outcome)
         select clock_timestamp() - make_interval(days => n), 'ci', 'old', n::text, 'ok'
         from unnest(array[10, 399, 401, 900]) n",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    let kept = async || {
        let entries = registry.list_audit(None, None, 100).await.unwrap().into_iter();
        entries.filter(|e| e.action == "old").map(|e| e.object).collect::<Vec<_>>()
    };
    for forgery in [
        "delete from audit",
        "update audit set actor = 'nobody'",
        "set davit.audit_days = '0'; delete from audit",
        "set davit.audit_days = '1'; delete from audit where at > clock_timestamp() - interval '1 hour'",
        "set davit.audit_days = '1'; update audit set actor = 'nobody'",
    ] {
        let forged = sqlx::raw_sql(forgery).execute(&mut raw).await;
        assert_eq!(code(forged.map_err(Into::into)), ErrorCode::Conflict, "{forgery}");
    }
    assert_eq!(registry.prune_audit(400).await.unwrap(), 2);
    assert_eq!(kept().await, ["399", "10"]);
    assert_eq!(registry.prune_audit(400).await.unwrap(), 0);
}

#[tokio::test]
async fn an_instance_serves_one_version_and_never_goes_back() {
    let db = fresh().await;
    let registry = db.registry();
    let one = deployed(registry, "f", &spec(), b"a").await;
    let two = deployed(registry, "g", &spec(), b"b").await;
    let (gateway, stranger) = (GatewayId::new(), GatewayId::new());
    let changes = Changes::listen(registry).await.unwrap();
    let mut demand_changed = changes.subscribe(Topic::Demand);
    let joined = registry.register_gateway(gateway, "http://127.0.0.1:7480").await.unwrap();
    assert_eq!(registry.gateways().await.unwrap()[0].lapsed_for, None);
    assert!(registry.beat_gateway(gateway, joined, &GatewayWord::default()).await.unwrap().is_some());
    assert!(registry.beat_gateway(stranger, joined, &GatewayWord::default()).await.unwrap().is_none());

    let key = PoolKey::of(&spec(), "");
    registry.write_demand(gateway, &[(key.clone(), 3, 1)]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), demand_changed.changed()).await.unwrap().unwrap();
    let demand = registry.read_demand().await.unwrap();
    assert_eq!((demand[0].key.clone(), demand[0].waiting), (key.clone(), 3));
    registry.write_demand(gateway, &[]).await.unwrap();
    registry.write_demand(stranger, &[(key.clone(), 1, 1)]).await.unwrap();
    assert!(registry.read_demand().await.unwrap().is_empty());

    let id = InstanceId::new();
    let fence = registry.acquire_lease("controller", uuid::Uuid::new_v4()).await.unwrap().unwrap();
    assert!(registry.insert_instance(&fence, id, gateway, &key, IMAGE).await.unwrap());
    assert!(registry.set_pooled(id, Ready::default()).await.unwrap());
    let mut news = InstanceUpdate {
        id,
        state: InstanceState::Active,
        version_id: Some(one.id),
        config_digest: Some(digest_of(b"env")),
        calls: 5,
        errors: 1,
    };
    registry.record_instances(stranger, std::slice::from_ref(&news)).await.unwrap();
    assert_eq!(
        registry.live_instances().await.unwrap()[0].state,
        InstanceState::Pooled,
        "not the stranger's"
    );
    registry.record_instances(gateway, std::slice::from_ref(&news)).await.unwrap();
    assert_eq!(
        registry.list_functions(&ns(), &Default::default(), 100).await.unwrap().items[0].instances.active,
        1
    );
    news.state = InstanceState::Frozen;
    registry.record_instances(gateway, std::slice::from_ref(&news)).await.unwrap();
    news.version_id = Some(two.id);
    assert_eq!(
        code(registry.record_instances(gateway, std::slice::from_ref(&news)).await),
        ErrorCode::Conflict
    );
    news = InstanceUpdate { version_id: None, state: InstanceState::Pooled, ..news };
    registry.record_instances(gateway, std::slice::from_ref(&news)).await.unwrap();
    let row = registry.gateway_instances(gateway).await.unwrap().remove(0);
    assert_eq!((row.state, row.version_id, row.calls), (InstanceState::Frozen, Some(one.id), 5));
    assert!(!registry.set_pooled(id, Ready::default()).await.unwrap());
    registry.set_removed(id, "idle").await.unwrap();
    assert!(registry.live_instances().await.unwrap().is_empty());
    registry.drop_gateway(gateway).await.unwrap();
    assert!(registry.gateways().await.unwrap().is_empty());
}

#[tokio::test]
async fn gateways_hear_each_other_and_a_word_of_an_earlier_life_counts_for_nothing() {
    let db = fresh().await;
    let registry = db.registry();
    let (one, two) = (GatewayId::new(), GatewayId::new());
    let changes = Changes::listen(registry).await.unwrap();
    let mut told = changes.subscribe(Topic::Gateways);
    let first = registry.register_gateway(one, "http://a").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), told.changed()).await.unwrap().unwrap();
    let second = registry.register_gateway(two, "http://b").await.unwrap();
    assert_ne!(first, second);
    let word = GatewayWord {
        adopted: vec![first, second],
        over: [(davit_api::VersionId::new(), 3)].into(),
        address: Some("10.0.0.1:7483".into()),
        leaving: true,
    };
    registry.beat_gateway(one, first, &word).await.unwrap().unwrap();
    let heard = registry.beat_gateway(two, second, &GatewayWord::default()).await.unwrap().unwrap();
    let of_one = heard.iter().find(|peer| peer.id == one).unwrap();
    assert_eq!((of_one.joined, of_one.alive, &of_one.word), (first, true, &word));
    assert_eq!(heard.len(), 2, "itself included");

    // Silent for too long, then given up, then back: under another number.
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql("update gateways set seen_at = '2020-01-01'").execute(&mut raw).await.unwrap();
    let heard = registry.beat_gateway(two, second, &GatewayWord::default()).await.unwrap().unwrap();
    assert!(heard.iter().all(|peer| peer.alive == (peer.id == two)));
    // A controller that slept, and still thinks both silent, forgets nobody that was heard of, or has an instance.
    assert!(!registry.forget_gateway(two).await.unwrap());
    let instance = InstanceId::new();
    let fence = registry.acquire_lease("controller", uuid::Uuid::new_v4()).await.unwrap().unwrap();
    assert!(registry.insert_instance(&fence, instance, one, &PoolKey::of(&spec(), ""), IMAGE).await.unwrap());
    assert!(!registry.forget_gateway(one).await.unwrap());
    registry.set_removed(instance, "its gateway is gone").await.unwrap();
    assert!(registry.forget_gateway(one).await.unwrap());
    registry.register_gateway(one, "http://a").await.unwrap();
    registry.drop_gateway(one).await.unwrap();
    assert!(registry.beat_gateway(one, first, &word).await.unwrap().is_none());
    assert_ne!(registry.register_gateway(one, "http://a").await.unwrap(), first);
    assert!(registry.beat_gateway(one, first, &word).await.unwrap().is_none());

    // An older davit's gateway shares nothing, and knows nothing of it.
    sqlx::query("insert into gateways (id, public_url) values ($1, 'http://old')")
        .bind(uuid::Uuid::new_v4())
        .execute(&mut raw)
        .await
        .unwrap();
    assert_eq!(registry.beat_gateway(two, second, &word).await.unwrap().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lease_has_one_holder_and_its_number_grows() {
    let db = fresh().await;
    let registry = db.registry();
    let (one, two) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let first = registry.acquire_lease("controller", one).await.unwrap().unwrap();
    assert!(registry.acquire_lease("controller", two).await.unwrap().is_none());
    assert!(registry.renew_lease(&first).await.unwrap());
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql("update leases set expires_at = '2020-01-01'").execute(&mut raw).await.unwrap();
    assert!(!registry.renew_lease(&first).await.unwrap(), "lapsed: it must be acquired again");
    let second = registry.acquire_lease("controller", two).await.unwrap().unwrap();
    assert!(second.number > first.number);
    // One that slept through its lease starts nothing that the other does not know of.
    let gateway = GatewayId::new();
    registry.register_gateway(gateway, "http://localhost").await.unwrap();
    let key = PoolKey::of(&spec(), "");
    for (fence, writes) in [(&first, false), (&second, true)] {
        let written = registry.insert_instance(fence, InstanceId::new(), gateway, &key, IMAGE).await;
        assert_eq!(written.unwrap(), writes, "{fence:?}");
    }
    assert_eq!(registry.live_instances().await.unwrap().len(), 1);
    registry.release_lease(&first).await.unwrap();
    assert!(registry.renew_lease(&second).await.unwrap(), "a past holder cannot release it");
    registry.release_lease(&second).await.unwrap();
    assert!(registry.acquire_lease("controller", one).await.unwrap().is_some());
}

#[tokio::test]
async fn counters_add_up_and_logs_are_read_in_order() {
    let db = fresh().await;
    let registry = db.registry();
    deployed(registry, "f", &spec(), b"a").await;
    let function_id = function_id(registry, "f").await;
    let delta = |calls, last_cold_ms| UsageDelta {
        function_id,
        calls,
        errors: 1,
        cold_starts: 0,
        last_call_at: Some(Utc::now()),
        last_cold_ms,
        last_cold: last_cold_ms.map(|ms| ColdPhases { load_ms: ms, ..ColdPhases::default() }),
    };
    registry.record_usage(&[delta(2, Some(9.5)), delta(3, None)]).await.unwrap();
    registry.record_usage(&[delta(5, None)]).await.unwrap();
    let usage =
        registry.list_functions(&ns(), &Default::default(), 100).await.unwrap().items[0].usage.clone();
    assert_eq!((usage.calls, usage.errors, usage.last_cold_ms), (10, 3, Some(9.5)));
    assert_eq!(usage.last_cold.map(|cold| cold.times()), Some([0.0, 0.0, 0.0, 9.5, 0.0]));

    let row = |n: usize| LogRow {
        function_id,
        version: 1,
        invocation_id: None,
        stream: LogStream::Stdout,
        at: Utc::now(),
        line: format!("line\0 {n}"),
    };
    registry.append_logs(&(0..20).map(row).collect::<Vec<_>>()).await.unwrap();
    let read = async |after, limit| {
        let lines = registry.read_logs(&ns(), &name("f"), after, limit, &LogFilter::default()).await.unwrap();
        lines.into_iter().map(|l| (l.cursor, l.line)).collect::<Vec<_>>()
    };
    let tail = read(None, 3).await;
    assert_eq!(tail.iter().map(|l| l.1.as_str()).collect::<Vec<_>>(), ["line  17", "line  18", "line  19"]);
    assert_eq!(read(Some(tail[0].0), 10).await, tail[1..]);
    assert_eq!(registry.prune_logs(Duration::from_secs(60), 5).await.unwrap(), 15);
    assert_eq!(read(None, 100).await.len(), 5);
}

#[tokio::test]
async fn the_embedded_postgres_survives_a_kill_and_takes_over_from_an_orphan() {
    let dir = tempfile::tempdir().unwrap();
    let postgres = embedded::Postgres::start(dir.path()).await.unwrap();
    assert!(embedded::Postgres::start(dir.path()).await.is_err(), "one davit a state directory");
    let registry = Registry::connect(&ConnectSettings::new(postgres.url())).await.unwrap();
    registry.migrate().await.unwrap();
    registry.migrate().await.unwrap();
    let installation = registry.installation().await.unwrap();
    let changes = Changes::listen(&registry).await.unwrap();
    let mut routes = changes.subscribe(Topic::Routes);

    let pid = postgres.pid().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while postgres.pid() == Some(pid) || registry.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(registry.installation().await.unwrap(), installation);
    // The lost listening connection makes everybody read again.
    tokio::time::timeout(Duration::from_secs(15), routes.changed()).await.unwrap().unwrap();
    registry.close().await;
    assert_eq!(code(registry.ping().await), ErrorCode::Unavailable);
    postgres.stop().await;
    assert!(!dir.path().join("pg/postmaster.pid").exists(), "stopped in an orderly way");

    // davit is killed, its server is not: the next davit stops it before it starts its own.
    let mut orphan = embedded_orphan(dir.path());
    let postgres = embedded::Postgres::start(dir.path()).await.unwrap();
    assert!(orphan.wait().unwrap().success());
    let registry = Registry::connect(&ConnectSettings::new(postgres.url())).await.unwrap();
    assert_eq!(registry.installation().await.unwrap(), installation);
    postgres.stop().await;
}

/// A server on the directory that nobody watches.
fn embedded_orphan(state: &std::path::Path) -> std::process::Child {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    let data = state.canonicalize().unwrap().join("pg");
    let owner = std::fs::metadata(&data).unwrap();
    let mut command = std::process::Command::new("postgres");
    command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c"]);
    command.arg(format!("unix_socket_directories={}", data.display())).current_dir("/");
    if rustix::process::geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    while !std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|t| t.contains("ready")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[tokio::test]
async fn what_stands_in_the_way_of_starts_is_told_with_the_function() {
    let db = fresh().await;
    let registry = db.registry();
    let version = deployed(registry, "f", &spec(), b"f").await;
    let key = PoolKey::of(&version.spec, version.image_id.as_deref().unwrap());
    let told = async || registry.function_detail(&ns(), &name("f")).await.unwrap().obstacle;
    assert_eq!(told().await, None);
    registry.note_obstacle(&key, "exceeded quota\0").await.unwrap();
    registry.note_obstacle(&key, &"é".repeat(2_000)).await.unwrap();
    assert_eq!(told().await.unwrap().chars().count(), 1_000, "the newest, and no more of it");
    let other = PoolKey { memory_mb: 1, ..key.clone() };
    registry.note_obstacle(&other, "elsewhere").await.unwrap();
    assert_eq!(registry.obstacles().await.unwrap().len(), 2);
    assert_eq!(registry.prune_obstacles().await.unwrap(), 0, "they are news");
    registry.clear_obstacle(&key).await.unwrap();
    assert_eq!(told().await, None);
    assert_eq!(registry.obstacles().await.unwrap(), [(other, "elsewhere".to_owned())]);
}

#[tokio::test]
async fn a_size_that_is_wished_for_becomes_the_rows_when_the_container_has_it_and_not_before() {
    let db = fresh().await;
    let registry = db.registry();
    let (gateway, stranger) = (GatewayId::new(), GatewayId::new());
    registry.register_gateway(gateway, "http://a").await.unwrap();
    let fence = registry.acquire_lease("controller", Uuid::new_v4()).await.unwrap().unwrap();
    let small = PoolKey::of(&spec(), "");
    let large = PoolKey { memory_mb: 2 * small.memory_mb, cpu_millis: 3, ..small.clone() };
    let made = async |resizable| {
        let id = InstanceId::new();
        assert!(registry.insert_instance(&fence, id, gateway, &small, IMAGE).await.unwrap());
        assert!(registry.set_pooled(id, Ready { resizable, ..Ready::default() }).await.unwrap());
        id
    };
    let row = async |id| {
        registry.gateway_instances(gateway).await.unwrap().into_iter().find(|row| row.id == id).unwrap()
    };
    let (fixed, first, second) = (made(false).await, made(true).await, made(true).await);
    let third = made(true).await;
    let wishes = [fixed, first, second, third].map(|id| (id, large.clone()));
    registry.wish_sizes(stranger, &wishes).await.unwrap();
    assert_eq!(row(first).await.wish, None, "not the stranger's");
    registry.wish_sizes(gateway, &wishes).await.unwrap();
    assert_eq!((row(fixed).await.wish, row(fixed).await.resizable), (None, false));
    let wished = row(first).await;
    assert_eq!(
        (&wished.key, wished.wish.as_ref().map(|w| (&w.key, w.begun))),
        (&small, Some((&large, false)))
    );
    assert!(!registry.finish_resize(first, &large).await.unwrap(), "nobody has begun");

    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    assert!(!registry.begin_resize(first, &small, one).await.unwrap(), "another size");
    assert!(registry.begin_resize(first, &large, one).await.unwrap());
    assert!(row(first).await.wish.unwrap().begun);
    assert!(!registry.decline_resize(first, None).await.unwrap(), "it may have the size already");
    // Another controller goes on with it; the first one's news of having changed nothing is old.
    assert!(registry.begin_resize(first, &large, two).await.unwrap());
    assert!(!registry.decline_resize(first, Some(one)).await.unwrap());
    assert!(registry.finish_resize(first, &large).await.unwrap());
    let done = row(first).await;
    assert_eq!((done.key, done.wish, done.resizable), (large.clone(), None, false));
    assert!(!registry.finish_resize(first, &large).await.unwrap());
    assert!(!registry.abandon_resize(first).await.unwrap(), "its size is known");
    registry.wish_sizes(gateway, &[(first, small.clone())]).await.unwrap();
    assert_eq!(row(first).await.wish, None, "once");

    assert!(registry.decline_resize(second, None).await.unwrap());
    let stays = row(second).await;
    assert_eq!((stays.key, stays.wish, stays.resizable), (small, None, false));

    assert!(!registry.abandon_resize(third).await.unwrap(), "it was not begun");
    assert!(registry.begin_resize(third, &large, one).await.unwrap());
    assert!(registry.abandon_resize(third).await.unwrap());
    assert_eq!(row(third).await.state, InstanceState::Released);
    assert!(!registry.finish_resize(third, &large).await.unwrap());
}
