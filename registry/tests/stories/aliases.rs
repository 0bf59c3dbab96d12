//! Names for versions, what they lead to, and which versions are kept.

use davit_api::{
    AliasName, AliasSettings, ErrorCode, NewVersion, Promote, Qualifier, RetentionPolicy, Rollout,
    VersionView, VersionWeight,
};
use davit_registry::{AsRead, MasterKey, NewInvocation, Registry};
use sqlx::Connection;

use crate::queues::work;
use crate::support::*;

fn alias(text: &str) -> AliasName {
    text.parse().unwrap()
}

fn weights(pairs: &[(u32, u32)]) -> AliasSettings {
    let versions = pairs.iter().map(|&(version, weight)| VersionWeight { version, weight }).collect();
    AliasSettings { versions, ..AliasSettings::of(1) }
}

/// A function `f` with so many ready versions; the last one is live.
async fn versions(registry: &Registry, count: usize) -> Vec<VersionView> {
    let mut all = Vec::new();
    for source in [&b"a"[..], b"b", b"c", b"d", b"e", b"g"].into_iter().take(count) {
        all.push(deployed(registry, "f", &spec(), source).await);
    }
    all
}

async fn shown(registry: &Registry, name_of: &str) -> Vec<(u32, u32)> {
    let found = registry.alias(&ns(), &name("f"), &alias(name_of)).await.unwrap();
    found.versions.iter().map(|v| (v.version, v.weight)).collect()
}

#[tokio::test]
async fn an_alias_shares_calls_out_between_ready_versions() {
    let db = fresh().await;
    let registry = db.registry();
    let davit = registry.as_davit("test");
    versions(registry, 3).await;
    built(registry, "f", &spec(), b"unready").await;
    let set = async |name_of: &str, pairs: &[(u32, u32)]| {
        davit.set_alias(&ns(), &name("f"), &alias(name_of), &weights(pairs)).await
    };
    let beta = AliasSettings {
        description: Some("for the brave".into()),
        sticky: Some("cookie:session".parse().unwrap()),
        ..weights(&[(3, 10), (1, 90)])
    };
    let made = davit.set_alias(&ns(), &name("f"), &alias("beta"), &beta).await.unwrap();
    assert_eq!((made.versions, made.sticky), (beta.versions, beta.sticky));
    assert_eq!(shown(registry, "live").await, [(3, 100)]);

    for (pairs, code_of, names) in [
        (&[(1, 99)][..], ErrorCode::InvalidRequest, "versions:"),
        (&[(1, 90), (9, 10)], ErrorCode::NotFound, "versions[1].version:"),
        (&[(1, 90), (4, 10)], ErrorCode::Conflict, "versions[1].version: version 4 is starting"),
    ] {
        let refused = set("beta", pairs).await.unwrap_err().into_api();
        assert_eq!(refused.code, code_of, "{pairs:?}");
        assert!(refused.message.starts_with(names), "{}", refused.message);
    }
    assert_eq!(shown(registry, "beta").await, [(3, 10), (1, 90)], "what was refused changed nothing");

    set("live", &[(2, 70), (1, 30)]).await.unwrap();
    let listed = registry.list_versions(&ns(), &name("f"), None, 10).await.unwrap().items;
    let of = |number: u32| listed.iter().find(|v| v.number == number).unwrap();
    let aliases =
        |v: &VersionView| v.aliases.iter().map(|a| format!("{} {}", a.alias, a.weight)).collect::<Vec<_>>();
    assert_eq!(aliases(of(1)), ["beta 90", "live 30"]);
    assert_eq!((aliases(of(2)), of(2).live, of(1).live), (vec!["live 70".to_owned()], true, false));

    let key = MasterKey::from_bytes([7; 32]);
    let snapshot = registry.routing_snapshot(&key, &AsRead).await.unwrap();
    assert_eq!(snapshot.functions.iter().map(|f| f.number).collect::<Vec<_>>(), [2]);
    let mut others: Vec<u32> = snapshot.others.iter().map(|f| f.number).collect();
    others.sort_unstable();
    assert_eq!(others, [1, 3]);
    let mut routed: Vec<_> = snapshot.aliases.iter().map(|a| (a.name.to_string(), a.shares.len())).collect();
    routed.sort();
    assert_eq!(routed, [("beta".into(), 2), ("live".into(), 2)]);

    // Going back from a split is going to the version whose routes are in force, then to the one before.
    assert_eq!(davit.rollback(&ns(), &name("f"), None).await.unwrap().number, 2);
    assert_eq!(shown(registry, "live").await, [(2, 100)]);
    assert_eq!(davit.rollback(&ns(), &name("f"), None).await.unwrap().number, 1);

    // Promoting an alias is promoting the one version that it leads to.
    let to_beta = Promote { version: "beta".parse().unwrap(), canary: None };
    assert_eq!(code(davit.promote(&ns(), &name("f"), &to_beta).await), ErrorCode::Conflict);
    set("beta", &[(3, 100)]).await.unwrap();
    assert_eq!(davit.promote(&ns(), &name("f"), &to_beta).await.unwrap().number, 3);
}

#[tokio::test]
async fn an_alias_that_is_asked_for_by_name_stays() {
    let db = fresh().await;
    let registry = db.registry();
    let davit = registry.as_davit("test");
    versions(registry, 2).await;
    davit.set_alias(&ns(), &name("f"), &alias("beta"), &AliasSettings::of(1)).await.unwrap();
    let function = function_id(registry, "f").await;
    let qualifier = Some(Qualifier::Alias(alias("beta")));
    let id = registry.enqueue(NewInvocation { qualifier, ..work(function, "{}") }).await.unwrap();
    let refused = davit.remove_alias(&ns(), &name("f"), &alias("beta")).await.unwrap_err().into_api();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.starts_with("alias: 1 invocation"), "{}", refused.message);
    davit.cancel_invocation(&ns(), id).await.unwrap();
    davit.remove_alias(&ns(), &name("f"), &alias("beta")).await.unwrap();
    assert_eq!(code(davit.remove_alias(&ns(), &name("f"), &alias("beta")).await), ErrorCode::NotFound);
    assert_eq!(code(davit.remove_alias(&ns(), &name("f"), &alias("live")).await), ErrorCode::Conflict);
}

#[tokio::test]
async fn a_deployment_says_where_its_version_goes() {
    let db = fresh().await;
    let registry = db.registry();
    let davit = registry.as_davit("test");
    let deploy = async |source: &'static [u8], rollout: Rollout| {
        let digest = stored(registry, source).await;
        let new =
            NewVersion { description: Some("faster".into()), rollout, ..NewVersion::of(spec(), digest) };
        let accepted = davit.create_version(&ns(), &name("f"), &new).await.unwrap();
        if !accepted.unchanged {
            registry.claim_build(uuid::Uuid::new_v4()).await.unwrap().unwrap();
            registry.finish_build(accepted.version.id, digest, 1, IMAGE).await.unwrap();
            registry.version_ready_and_live(accepted.version.id).await.unwrap();
        }
        accepted
    };
    deploy(b"a", Rollout::Alias(alias("beta"))).await;
    assert_eq!(shown(registry, "live").await, [(1, 100)], "the first one is live in any case");
    deploy(b"b", Rollout::Alias(alias("beta"))).await;
    deploy(b"c", Rollout::Hold).await;
    assert_eq!(shown(registry, "live").await, [(1, 100)]);
    assert_eq!(shown(registry, "beta").await, [(2, 100)]);
    let held = registry.version(&ns(), &name("f"), 3).await.unwrap();
    assert_eq!((held.aliases, held.description.as_deref()), (vec![], Some("faster")));
    // The same again is the same version, and goes where this deployment wants it.
    let again = deploy(b"c", Rollout::Live).await;
    assert!(again.unchanged && again.version.number == 3 && again.version.live);
    let again = deploy(b"a", Rollout::Live).await;
    assert!(again.unchanged && again.version.number == 1 && again.version.live, "an older one, too");
}

#[tokio::test]
async fn versions_that_nobody_keeps_go_and_those_in_use_stay() {
    let db = fresh().await;
    let registry = db.registry();
    let davit = registry.as_davit("test");
    versions(registry, 6).await;
    assert_eq!(registry.collect_versions().await.unwrap(), 0, "ten are kept where nobody says otherwise");
    let policy = RetentionPolicy { versions: Some(2), days: Some(1) };
    assert_eq!(davit.set_namespace_retention(&ns(), policy).await.unwrap().versions, 2);
    let refused = RetentionPolicy { versions: Some(0), days: None };
    assert_eq!(
        code(davit.set_function_retention(&ns(), &name("f"), refused).await),
        ErrorCode::InvalidRequest
    );
    assert_eq!(registry.collect_versions().await.unwrap(), 0, "they are younger than a day");
    let policy = RetentionPolicy { versions: None, days: Some(0) };
    let view = davit.set_function_retention(&ns(), &name("f"), policy).await.unwrap();
    assert_eq!((view.own, view.versions, view.days), (policy, 2, 0));

    davit.set_alias(&ns(), &name("f"), &alias("old"), &weights(&[(1, 50), (2, 50)])).await.unwrap();
    let function = function_id(registry, "f").await;
    let pinned = NewInvocation { qualifier: Some(Qualifier::Version(3)), ..work(function, "{}") };
    registry.enqueue(pinned).await.unwrap();
    for (number, why) in [(1, "alias old"), (3, "invocation"), (6, "alias live")] {
        let refused = davit.delete_version(&ns(), &name("f"), number).await.unwrap_err().into_api();
        assert_eq!(refused.code, ErrorCode::Conflict);
        assert!(refused.message.contains(why), "{}", refused.message);
    }
    assert_eq!(registry.collect_versions().await.unwrap(), 1);
    let numbers = async || {
        let page = registry.list_versions(&ns(), &name("f"), None, 10).await.unwrap();
        page.items.iter().map(|v| v.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers().await, [6, 5, 3, 2, 1]);
    davit.delete_version(&ns(), &name("f"), 5).await.unwrap();
    assert_eq!(code(davit.delete_version(&ns(), &name("f"), 5).await), ErrorCode::NotFound);
    // A number is never given again.
    assert_eq!(deployed(registry, "f", &spec(), b"new").await.number, 7);
}

#[tokio::test]
async fn the_database_itself_refuses_shares_that_are_no_whole() {
    let db = fresh().await;
    let registry = db.registry();
    let all = versions(registry, 2).await;
    let mut raw = sqlx::PgConnection::connect(db.url()).await.unwrap();
    let function = function_id(registry, "f").await;
    let insert =
        "insert into alias_shares (function_id, alias, version_id, weight) values ($1, 'live', $2, $3)";
    for (version, weight, rule) in [(1, 99_i16, "alias_shares_sum"), (0, 100, "alias_shares_first")] {
        let refused =
            sqlx::query(insert).bind(function.0).bind(all[version].id.0).bind(weight).execute(&mut raw).await;
        let error = refused.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().constraint(), Some(rule));
    }
    // An older davit moves the alias and knows of no shares.
    registry
        .as_davit("test")
        .set_alias(&ns(), &name("f"), &alias("live"), &weights(&[(2, 50), (1, 50)]))
        .await
        .unwrap();
    let moved = "update aliases set version_id = $1 where function_id = $2";
    sqlx::query(moved).bind(all[0].id.0).bind(function.0).execute(&mut raw).await.unwrap();
    assert_eq!(shown(registry, "live").await, [(1, 100)]);
}
