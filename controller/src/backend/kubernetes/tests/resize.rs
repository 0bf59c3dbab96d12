//! Other sizes for pods that run, in a real cluster.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::*;

#[tokio::test]
async fn a_pod_gets_more_and_less_while_it_runs_and_sooner_than_another_starts() {
    let Some(stage) = stage().await else { return };
    let begun = std::time::Instant::now();
    let request = stage.request(512).await;
    let container = stage.backend.start(request.clone()).await.unwrap();
    let place = stage.until_ready(request.instance, &container).await;
    let started = begun.elapsed();
    let deadline = begun + LIMIT;
    let (link, _events) = Link::connect(&place, deadline).await.unwrap();
    assert!(stage.backend.resizes());
    let mut took = Vec::new();
    for (memory_mb, cpu_millis) in [(1_024, 500), (1_024, 2_000), (2_048, 250), (256, 1_000)] {
        let key = PoolKey { memory_mb, cpu_millis, ..request.key.clone() };
        let begun = std::time::Instant::now();
        assert_eq!(stage.backend.resize(&container, &key).await, Ok(Resized::Done), "{key:?}");
        took.push(begun.elapsed());
        let pod = stage.backend.api.get(&container.0).await.unwrap();
        let status = &pod.status.unwrap().container_statuses.unwrap()[0];
        let limits = status.resources.as_ref().unwrap().limits.as_ref().unwrap();
        let wanted = Quantity(format!("{memory_mb}Mi"));
        assert!(quantity::is_same(&limits["memory"], &wanted), "{limits:?}");
        assert_eq!(status.restart_count, 0);
    }
    // As soon as it is said twice, since a later controller may do so.
    let key = PoolKey { memory_mb: 256, cpu_millis: 1_000, ..request.key.clone() };
    assert_eq!(stage.backend.resize(&container, &key).await, Ok(Resized::Done));
    assert!(!link.is_closed(), "nothing was restarted");
    eprintln!("a pod's start: {started:?}; its resizes: {took:?}");

    let key = PoolKey { memory_mb: 900_000_000, ..request.key.clone() };
    let refused = stage.backend.resize(&container, &key).await;
    assert!(matches!(&refused, Err(BackendError::Refused(why)) if why.contains("capacity")), "{refused:?}");
    assert!(!stage.backend.resizes(), "the nodes are left alone for a while");
    assert!(matches!(stage.backend.resize(&container, &request.key).await, Ok(Resized::Refused(_))));
    stage.leave_nothing().await;
}

#[tokio::test]
async fn without_the_right_a_pod_stays_as_it_is_and_nothing_is_asked_again() {
    let Some(stage) = stage().await else { return };
    let request = stage.request(64).await;
    let container = stage.backend.start(request.clone()).await.unwrap();
    stage.until_ready(request.instance, &container).await;
    let client = stage.account("older").await;
    let metadata = || named("older", BTreeMap::new());
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        verbs: verbs.iter().map(|&verb| verb.into()).collect(),
        ..Default::default()
    };
    let pods = rule("pods", &["get", "list", "watch", "create", "delete"]);
    let rules = Some(vec![pods, rule("configmaps", &["get", "patch"])]);
    let role = Role { metadata: metadata(), rules };
    let roles: Api<Role> = Api::namespaced(stage.client.clone(), &stage.namespace);
    roles.create(&PostParams::default(), &role).await.unwrap();
    let subject = Subject {
        kind: "ServiceAccount".into(),
        name: "older".into(),
        namespace: Some(stage.namespace.clone()),
        ..Default::default()
    };
    let role_ref =
        RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: "Role".into(), name: "older".into() };
    let binding = RoleBinding { metadata: metadata(), role_ref, subjects: Some(vec![subject]) };
    let bindings: Api<RoleBinding> = Api::namespaced(stage.client.clone(), &stage.namespace);
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let settings = KubernetesSettings {
        installation: stage.backend.frame.installation,
        ..settings(&stage.namespace, &stage.registry)
    };
    let older = KubernetesBackend::with_client(client, settings).await.unwrap();
    let key = PoolKey { memory_mb: 128, ..request.key.clone() };
    let refused = older.resize(&container, &key).await;
    assert!(
        matches!(&refused, Ok(Resized::Refused(why)) if why.contains("may not patch pods/resize")),
        "{refused:?}"
    );
    assert!(!older.resizes());
    let pod = stage.backend.api.get(&container.0).await.unwrap();
    let limits = pod.spec.unwrap().containers.remove(0).resources.unwrap().limits.unwrap();
    assert_eq!(limits["memory"], Quantity("64Mi".into()));
    stage.leave_nothing().await;
}
