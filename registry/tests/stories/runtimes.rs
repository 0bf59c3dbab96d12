//! Versions keep the image that they were built for, and are moved on when somebody says so.

use davit_api::{CanarySpec, NewVersion, Rollout};

use crate::support::*;

#[tokio::test]
async fn a_version_stays_in_its_image_until_somebody_moves_the_function_on() {
    let db = fresh().await;
    let registry = db.registry();
    let (old, new, ours) = (IMAGE.to_owned(), format!("sha256:{}", "b".repeat(64)), spec().runtime);
    let note = async |id: &str| registry.note_runtime_images(&[(ours.clone(), id.to_owned())]).await.unwrap();
    let counts = async || {
        let all = registry.runtimes(&ns()).await.unwrap();
        all.into_iter().map(|r| (r.runtime.to_string(), r.image_id, r.current, r.behind)).collect::<Vec<_>>()
    };
    let upgrade = async |function: &str, rollout: Option<Rollout>| {
        registry.as_davit("test").upgrade_runtime(&ns(), &name(function), rollout).await
    };
    let canary = Rollout::Canary(CanarySpec::new(vec![50]));

    assert_eq!(counts().await, [], "nothing is known, and nothing deployed");
    let first = deployed(registry, "a", &spec(), b"a").await;
    deployed(registry, "b", &spec(), b"b").await;
    assert_eq!(first.image_id.as_ref(), Some(&old));
    let none = upgrade("a", None).await.unwrap_err().to_string();
    assert!(none.contains("there is no image of"), "{none}");
    assert_eq!(note(&old).await, 1);
    assert_eq!(note(&old).await, 0, "nothing has changed");
    assert_eq!(counts().await, [(ours.to_string(), Some(old.clone()), 2, 0)]);
    assert!(upgrade("a", None).await.unwrap().unchanged);

    assert_eq!(note(&new).await, 1);
    assert_eq!(counts().await, [(ours.to_string(), Some(new.clone()), 0, 2)]);
    let behind = async |after: Option<&str>| {
        let after = after.map(name);
        let page = registry.functions_behind(&ns(), None, after.as_ref(), 1).await.unwrap();
        (page.items.iter().map(|f| f.name.to_string()).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(behind(None).await, (vec!["a".to_owned()], Some("a".to_owned())));
    assert_eq!(behind(Some("a")).await, (vec!["b".to_owned()], None));
    let page = registry.functions_behind(&ns(), Some(&"node20".parse().unwrap()), None, 9).await.unwrap();
    assert!(page.items.is_empty());

    let asked = upgrade("a", Some(canary.clone())).await.unwrap();
    assert!(!asked.unchanged && asked.version.number == 2);
    assert_eq!((&asked.version.spec, asked.version.source), (&first.spec, first.source));
    let job = registry.claim_build(uuid::Uuid::new_v4()).await.unwrap().unwrap();
    registry.finish_build(job.version_id, first.source, 1, &new).await.unwrap();
    registry.version_ready_and_live(job.version_id).await.unwrap();
    let running = registry.function_detail(&ns(), &name("a")).await.unwrap();
    assert_eq!(running.live.unwrap().number, 1, "in steps");
    let refused = upgrade("a", Some(canary)).await.unwrap_err().to_string();
    assert!(refused.contains("canary"), "{refused}");
    registry.as_davit("test").end_canary(&ns(), &name("a"), false).await.unwrap();

    let again = upgrade("a", None).await.unwrap();
    assert!(again.unchanged && again.version.number == 2, "it was built already");
    assert_eq!(counts().await, [(ours.to_string(), Some(new.clone()), 1, 1)]);
    let same = NewVersion::of(spec(), stored(registry, b"a").await);
    let same = registry.as_davit("test").create_version(&ns(), &name("a"), &same).await.unwrap();
    assert!(same.unchanged && same.version.number == 2, "the same content is the live one of the two");
    let mut used = registry.images_of_versions().await.unwrap();
    used.sort();
    assert_eq!(used, [old, new]);
}
