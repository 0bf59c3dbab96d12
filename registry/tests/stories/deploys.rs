//! From an upload to a live version, and what is refused on the way.

use std::time::Duration;

use bytes::Bytes;
use davit_api::{ErrorCode, FunctionKind, NewVersion, VersionSpec, VersionState};
use davit_registry::{AsRead, Changes, FunctionFilter, MasterKey, RoutingNews, Topic};
use sqlx::Connection;

use crate::support::*;

#[tokio::test]
async fn long_lists_are_read_page_by_page_and_searched() {
    let db = fresh().await;
    let registry = db.registry();
    for n in 0..7 {
        deployed(registry, &format!("f{n}"), &spec(), b"a").await;
    }
    let node = VersionSpec {
        handler: "index.handler".into(),
        ..VersionSpec::new("node20".parse().unwrap(), FunctionKind::Handler)
    };
    deployed(registry, "on-node", &node, b"b").await;
    let page = async |after: Option<&str>, search: Option<&str>, runtime: Option<&str>, limit| {
        let filter = FunctionFilter {
            after: after.map(name),
            search: search.map(|s| s.parse().unwrap()),
            runtime: runtime.map(|r| r.parse().unwrap()),
        };
        let page = registry.list_functions(&ns(), &filter, limit).await.unwrap();
        (page.items.iter().map(|f| f.name.to_string()).collect::<Vec<_>>(), page.next)
    };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (names, next) = page(after.as_deref(), None, None, 3).await;
        all.extend(names);
        // What is made and deleted meanwhile neither hides another nor shows it twice.
        if all.len() == 3 {
            registry.as_davit("test").delete_function(&ns(), &name("f2")).await.unwrap();
            deployed(registry, "a-new-one", &spec(), b"a").await;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all, ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "on-node"]);
    let mut in_use = registry.runtime_images_in_use().await.unwrap();
    in_use.sort();
    let in_use: Vec<_> = in_use.iter().map(|(runtime, id)| (runtime.as_str(), id.as_str())).collect();
    assert_eq!(in_use, [("node20", IMAGE), (spec().runtime.as_str(), IMAGE)]);
    assert_eq!(page(None, Some("5"), None, 10).await, (vec!["f5".to_owned()], None));
    assert_eq!(page(None, Some("-n"), None, 1).await, (vec!["a-new-one".into()], Some("a-new-one".into())));
    assert_eq!(page(None, None, Some("node20"), 10).await, (vec!["on-node".to_owned()], None));
    assert_eq!(page(Some("zz"), None, None, 10).await, (vec![], None));

    for source in [b"b", b"c", b"d"] {
        deployed(registry, "f0", &spec(), source).await;
    }
    let versions = async |after, limit| {
        let page = registry.list_versions(&ns(), &name("f0"), after, limit).await.unwrap();
        (page.items.iter().map(|v| v.number).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(versions(None, 3).await, (vec![4, 3, 2], Some("2".into())));
    assert_eq!(versions(Some(2), 3).await, (vec![1], None));
    registry.as_davit("test").rollback(&ns(), &name("f0"), Some(1)).await.unwrap();
    let detail = registry.function_detail(&ns(), &name("f0")).await.unwrap();
    assert_eq!((detail.live.unwrap().number, detail.latest.unwrap().number), (1, 4));
}

#[tokio::test]
async fn a_deployment_goes_from_upload_to_the_routing_snapshot() {
    let db = fresh().await;
    let registry = db.registry();
    let changes = Changes::listen(registry).await.unwrap();
    let mut routes = changes.subscribe(Topic::Routes);
    let key = MasterKey::from_bytes([7; 32]);
    registry
        .as_davit("test")
        .set_secret(&ns(), &"db-password".parse().unwrap(), "hunter2", &key)
        .await
        .unwrap();

    let mut spec = spec();
    spec.env.insert("STAGE".parse().unwrap(), "prod".into());
    spec.secrets.insert("PASSWORD".parse().unwrap(), "db-password".parse().unwrap());
    spec.secrets.insert("OTHER".parse().unwrap(), "absent".parse().unwrap());
    let live = deployed(registry, "orders", &spec, b"v1").await;
    assert!(live.live && live.state == VersionState::Ready && live.number == 1);
    tokio::time::timeout(Duration::from_secs(5), routes.changed()).await.unwrap().unwrap();

    let snapshot = registry.routing_snapshot(&key, &AsRead).await.unwrap();
    let routed = &snapshot.functions[0];
    assert_eq!((routed.version_id, routed.bundle), (live.id, digest_of(b"v1")));
    assert_eq!(routed.environment.variables["PASSWORD"], "hunter2");
    assert_eq!(routed.environment.variables["STAGE"], "prod");
    assert_eq!(routed.environment.missing, ["absent".parse().unwrap()]);
    assert!(!format!("{routed:?}").contains("hunter2"));

    // The same again is the same version; other settings are a new one, and going back needs no build.
    let source = digest_of(b"v1");
    let again = registry
        .as_davit("test")
        .create_version(&ns(), &name("orders"), &NewVersion::of(spec.clone(), source))
        .await
        .unwrap();
    assert!(again.unchanged && again.version.id == live.id);
    spec.memory_mb = 512;
    let second = deployed(registry, "orders", &spec, b"v1").await;
    assert_eq!(second.number, 2);
    let back = registry.as_davit("test").rollback(&ns(), &name("orders"), None).await.unwrap();
    assert!(back.id == live.id && back.live);
    assert_eq!(
        code(registry.as_davit("test").rollback(&ns(), &name("orders"), None).await),
        ErrorCode::Conflict
    );
    assert_eq!(
        code(registry.as_davit("test").rollback(&ns(), &name("orders"), Some(9)).await),
        ErrorCode::NotFound
    );

    let events = registry.build_events(second.id, 0).await.unwrap();
    let states: Vec<_> = events.iter().filter_map(|e| e.state).map(VersionState::as_str).collect();
    assert_eq!(states, ["queued", "building", "starting", "ready"]);

    registry.as_davit("test").delete_function(&ns(), &name("orders")).await.unwrap();
    assert!(registry.routing_snapshot(&key, &AsRead).await.unwrap().functions.is_empty());
    assert_eq!(code(registry.function_detail(&ns(), &name("orders")).await), ErrorCode::NotFound);
    assert_eq!(deployed(registry, "orders", &spec, b"v3").await.number, 1, "the name is free again");
}

/// A transaction that began first and ends last is what a counter or a time would miss.
#[tokio::test]
async fn no_change_of_routes_is_passed_over_in_whatever_order_transactions_end() {
    let db = fresh().await;
    let registry = db.registry();
    let key = MasterKey::from_bytes([7; 32]);
    let (slow, quick) = (deployed(registry, "slow", &spec(), b"a").await, function_of(registry).await);
    let mut position = registry.routing_snapshot(&key, &AsRead).await.unwrap().position;
    let mut news = async || match registry.routing_changes(&key, &AsRead, &position).await.unwrap() {
        RoutingNews::Changes(changes) => {
            position = changes.position;
            changes.touched
        }
        RoutingNews::Nothing => Vec::new(),
        RoutingNews::ReadAll => panic!("few functions were changed, and just now"),
    };
    assert_eq!(news().await, []);

    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let mut open = raw.begin().await.unwrap();
    let gone = "delete from aliases where version_id = $1";
    sqlx::query(gone).bind(slow.id.0).execute(&mut *open).await.unwrap();
    assert_eq!(news().await, []);
    registry.as_davit("test").delete_function(&ns(), &name("quick")).await.unwrap();
    assert_eq!(news().await, [quick]);
    open.commit().await.unwrap();
    assert_eq!(news().await, [function_id(registry, "slow").await]);
    assert_eq!(news().await, []);

    // A change that is taken back is none.
    let mut open = raw.begin().await.unwrap();
    sqlx::query("update functions set deleted_at = now()").execute(&mut *open).await.unwrap();
    open.rollback().await.unwrap();
    assert_eq!(news().await, []);

    // Notes are kept for longer than any position is good.
    registry.as_davit("test").delete_function(&ns(), &name("slow")).await.unwrap();
    assert_eq!(registry.prune_route_changes().await.unwrap(), 0);
    assert_eq!(news().await.len(), 1);
}

async fn function_of(registry: &davit_registry::Registry) -> davit_api::FunctionId {
    deployed(registry, "quick", &spec(), b"b").await;
    function_id(registry, "quick").await
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_never_be() {
    let db = fresh().await;
    let registry = db.registry();
    let ready = deployed(registry, "one", &spec(), b"a").await;
    let unready = built(registry, "one", &spec(), b"b").await;
    let foreign = deployed(registry, "two", &spec(), b"c").await;
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    for (statement, id, rule) in [
        ("update versions set bundle_size = 99 where id = $1", ready.id, "versions_immutable"),
        ("update versions set state = 'failed' where id = $1", ready.id, "versions_immutable"),
        ("update versions set spec = '{}' where id = $1", unready.id, "versions_input_fixed"),
        (
            "update aliases set version_id = $1 where function_id = (select function_id from versions where id = $1)",
            unready.id,
            "aliases_version_ready",
        ),
        (
            "update aliases set version_id = $1 where function_id <> (select function_id from versions where id = $1)",
            foreign.id,
            "aliases_version_of_function",
        ),
        (
            "update functions set name = '../x' where id = (select function_id from versions where id = $1)",
            ready.id,
            "functions_name_shape",
        ),
        ("insert into namespaces (id, name) values ($1, 'davit-x')", ready.id, "namespaces_name_shape"),
        (
            "insert into routes select function_id, '', 'GET', '/a/../b', '' from versions where id = $1",
            ready.id,
            "routes_path_shape",
        ),
    ] {
        let error = sqlx::query(statement).bind(id.0).execute(&mut raw).await.unwrap_err();
        assert_eq!(
            error.as_database_error().and_then(|e| e.constraint()),
            Some(rule),
            "{statement}: {error}"
        );
        let answer = davit_registry::RegistryError::from(error).into_api();
        assert!(answer.code != ErrorCode::Internal, "{rule} has no meaning for callers");
    }
    // A failed build never becomes live, and a version that was overtaken does not take over.
    registry.fail_version(unready.id, "does not answer").await.unwrap();
    assert_eq!(code(registry.version_ready_and_live(unready.id).await), ErrorCode::Conflict);
    let slow = built(registry, "one", &spec(), b"d").await;
    let quick = deployed(registry, "one", &spec(), b"e").await;
    let late = registry.version_ready_and_live(slow.id).await.unwrap();
    assert!(late.state == VersionState::Ready && !late.live);
    assert!(registry.version(&ns(), &name("one"), quick.number).await.unwrap().live);
}

#[tokio::test]
async fn two_functions_cannot_hold_one_route() {
    let db = fresh().await;
    let registry = db.registry();
    let with_route = |path: &str| {
        let mut spec = spec();
        spec.routes =
            vec![serde_json::from_value(serde_json::json!({"method": "GET", "path": path})).unwrap()];
        spec
    };
    deployed(registry, "first", &with_route("/orders/{id}"), b"a").await;
    let second = built(registry, "second", &with_route("/orders/{number}"), b"b").await;
    assert_eq!(code(registry.version_ready_and_live(second.id).await), ErrorCode::Conflict);
    let unchanged = registry.version(&ns(), &name("second"), 1).await.unwrap();
    assert!(unchanged.state == VersionState::Starting && !unchanged.live, "all or nothing");
    registry.as_davit("test").delete_function(&ns(), &name("first")).await.unwrap();
    assert!(registry.version_ready_and_live(second.id).await.unwrap().live);
}

#[tokio::test]
async fn artifacts_come_back_whole_or_not_at_all() {
    let db = fresh().await;
    let registry = db.registry();
    let content: Vec<u8> = (0..2_500_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    let digest = digest_of(&content);
    let pieces: Vec<_> = content.chunks(70_001).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    registry.put_artifact(digest, futures_util::stream::iter(pieces)).await.unwrap();
    assert!(registry.put_artifact_bytes(digest, content.clone().into()).await.is_ok(), "twice is no error");
    assert_eq!(registry.open_artifact(digest).await.unwrap().read_all().await.unwrap(), content);
    let empty = stored(registry, b"").await;
    assert!(registry.open_artifact(empty).await.unwrap().read_all().await.unwrap().is_empty());

    let wrong = digest_of(b"something else");
    let refused = registry.put_artifact_bytes(wrong, Bytes::from_static(b"content")).await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
    assert!(!registry.has_artifact(wrong).await.unwrap());
    let source_missing =
        registry.as_davit("test").create_version(&ns(), &name("f"), &NewVersion::of(spec(), wrong)).await;
    assert_eq!(code(source_missing), ErrorCode::Conflict);

    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql("update artifact_chunks set data = set_byte(data, 5, get_byte(data, 5) # 1) where seq = 2")
        .execute(&mut raw)
        .await
        .unwrap();
    assert!(
        registry.open_artifact(digest).await.unwrap().read_all().await.is_err(),
        "a flipped bit is noticed"
    );
    sqlx::raw_sql("update artifacts set touched_at = '2020-01-01'; update artifact_uploads set started_at = '2020-01-01'").execute(&mut raw).await.unwrap();
    assert_eq!(registry.gc_artifacts().await.unwrap().artifacts, 2);
    let left: i64 =
        sqlx::query_scalar("select count(*) from artifact_chunks").fetch_one(&mut raw).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_build_is_taken_over_from_a_silent_builder_only() {
    let db = fresh().await;
    let registry = db.registry();
    let source = stored(registry, b"x").await;
    registry
        .as_davit("test")
        .create_version(
            &ns(),
            &name("f"),
            &NewVersion { git_commit: Some("abc".into()), ..NewVersion::of(spec(), source) },
        )
        .await
        .unwrap();
    let (one, two) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let job = registry.claim_build(one).await.unwrap().unwrap();
    assert!(registry.claim_build(two).await.unwrap().is_none());
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    sqlx::raw_sql("update versions set build_lease_until = '2020-01-01'").execute(&mut raw).await.unwrap();
    assert!(registry.claim_build(one).await.unwrap().is_none(), "never from itself");
    assert_eq!(registry.claim_build(two).await.unwrap().unwrap().version_id, job.version_id);
    registry.append_build_log(job.version_id, &["a\0b".into()]).await.unwrap();
    assert_eq!(registry.build_events(job.version_id, 0).await.unwrap().last().unwrap().line, "a\u{fffd}b");
}

#[tokio::test]
async fn a_tag_is_looked_at_anew_and_images_are_wanted_as_long_as_a_version_has_them() {
    let db = fresh().await;
    let registry = db.registry();
    let image = |text: &str| VersionSpec {
        image: Some(text.parse().unwrap()),
        ..VersionSpec::new(davit_api::RuntimeName::own_image(), FunctionKind::Server)
    };
    let by_tag = image("registry.example.com/app:1");
    deployed(registry, "app", &by_tag, b"a").await;
    let again = deployed(registry, "app", &by_tag, b"a").await;
    assert_eq!(again.number, 2, "the tag may lead elsewhere by now");
    assert_eq!(again.image_id.as_deref(), Some(IMAGE));
    let by_digest = image(&format!("app@sha256:{}", "a".repeat(64)));
    deployed(registry, "app", &by_digest, b"a").await;
    let new = NewVersion::of(by_digest, stored(registry, b"a").await);
    let same = registry.as_davit("test").create_version(&ns(), &name("app"), &new).await.unwrap();
    assert!(same.unchanged && same.version.number == 3);

    assert_eq!(registry.images_of_versions().await.unwrap(), [IMAGE]);
    let keys = registry.own_images_live(8).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.image.as_str()).collect::<Vec<_>>(), [IMAGE]);
    registry.as_davit("test").delete_function(&ns(), &name("app")).await.unwrap();
    assert!(registry.own_images_live(8).await.unwrap().is_empty());
}
