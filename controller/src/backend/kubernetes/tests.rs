//! Against a real cluster: where `DAVIT_TEST_CLUSTER` names the directory of one, as for the stories, whose registry has the
//! images davit/davit and davit/runtime-provided (`scripts/cluster.sh load`). Without one they say so and pass.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use davit_api::{NetworkClass, PoolKey};
use davit_link::{Link, LinkEvent};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ResourceQuotaSpec, ServiceAccount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use serde_json::json;

use super::super::image::ImageLimits;
use super::super::{BuildLimits, Role};
use super::*;

mod resize;

const PROVIDED: &str = "davit/runtime-provided:latest";
/// The test cluster's own registry, as nodes and this process reach it.
const REGISTRY: &str = "10.213.0.254:15000";
const LIMIT: Duration = Duration::from_secs(90);

/// A namespace of one test's own, and davit in it.
struct Stage {
    client: Client,
    access: kube::Config,
    namespace: String,
    registry: String,
    backend: KubernetesBackend,
}

async fn stage() -> Option<Stage> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(directory) = std::env::var_os("DAVIT_TEST_CLUSTER").map(PathBuf::from) else {
        eprintln!("skipped: DAVIT_TEST_CLUSTER names no cluster");
        return None;
    };
    let registry = std::env::var("DAVIT_TEST_REGISTRY").unwrap_or_else(|_| REGISTRY.into());
    let access = access(&directory).await;
    let client = Client::try_from(access.clone()).unwrap();
    let namespace = format!("davit-test-{:08x}", rand::random::<u32>());
    let labels = BTreeMap::from([("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned())]);
    let made = Namespace { metadata: named(&namespace, labels), ..Default::default() };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &made).await.unwrap();
    let owner = ConfigMap { metadata: named("davit-instances", BTreeMap::new()), ..Default::default() };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    maps.create(&PostParams::default(), &owner).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let account = async {
        // A new namespace takes no pod before the cluster has given it one.
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, account).await.expect("the namespace gets its account");
    let settings = settings(&namespace, &registry);
    let backend = KubernetesBackend::with_client(client.clone(), settings).await.unwrap();
    Some(Stage { client, access, namespace, registry, backend })
}

/// The way to the cluster, as its administrator.
async fn access(directory: &Path) -> kube::Config {
    let kubeconfig = kube::config::Kubeconfig::read_from(directory.join("certs/admin.kubeconfig")).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()
}

fn named(name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() }
}

fn settings(namespace: &str, registry: &str) -> KubernetesSettings {
    let config = json!({
        "namespace": namespace, "owner": "davit-instances",
        "agentImage": format!("{registry}/davit/davit:latest"),
        "runtimes": {"provided": format!("{registry}/davit/runtime-provided:latest")},
        "plainHttpRegistries": [registry], "memoryMb": 4096, "instances": 20,
    });
    KubernetesSettings {
        config: Config::parse(&config.to_string()).unwrap(),
        installation: InstallationId::new(),
        master_key: Arc::new(MasterKey::from_bytes([7; 32])),
        logins: Logins::None,
    }
}

impl Stage {
    async fn request(&self, memory_mb: u32) -> StartRequest {
        let network = NetworkClass::Egress;
        let key = PoolKey { image: PROVIDED.into(), memory_mb, cpu_millis: 500, ephemeral_mb: 16, network };
        let image = self.backend.resolve(PROVIDED).await.unwrap();
        StartRequest { instance: InstanceId::new(), role: Role::Instance, image, key }
    }

    async fn until_ready(&self, instance: InstanceId, container: &ContainerId) -> Place {
        let waiting = async {
            loop {
                if let Some(place) = self.backend.ready(instance, container).await.unwrap() {
                    return place;
                }
                let life = self.backend.life(container).await.unwrap();
                let lives = matches!(life, Life::Running | Life::Waiting(_));
                assert!(lives, "{life:?}: {:?}", self.backend.last_words(container).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let Ok(place) = tokio::time::timeout(LIMIT, waiting).await else {
            panic!("not ready: {:?}", self.backend.life(container).await)
        };
        place
    }

    /// Waits until a container's life is as wanted.
    async fn until(&self, container: &ContainerId, wanted: impl Fn(&Life) -> bool) {
        let waiting = async {
            while !wanted(&self.backend.life(container).await.unwrap()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let done = tokio::time::timeout(LIMIT, waiting).await;
        assert!(done.is_ok(), "{:?}", self.backend.life(container).await);
    }

    /// The way to the cluster of a new account, which has no rights.
    async fn account(&self, name: &str) -> Client {
        let account = ServiceAccount { metadata: named(name, BTreeMap::new()), ..Default::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        accounts.create(&PostParams::default(), &account).await.unwrap();
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}});
        let token: serde_json::Value =
            accounts.create_subresource("token", name, &PostParams::default(), &request).await.unwrap();
        let mut config = self.access.clone();
        config.auth_info = kube::config::AuthInfo::default();
        config.auth_info.token = Some(token["status"]["token"].as_str().unwrap().to_owned().into());
        Client::try_from(config).unwrap()
    }

    async fn leave_nothing(self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_is_started_reached_seen_and_removed_and_others_are_left_alone() {
    let Some(stage) = stage().await else { return };
    let request = stage.request(64).await;
    // As ours in all but the installation.
    let mut foreign = pod::tests::frame();
    foreign.config = stage.backend.frame.config.clone();
    foreign.owner = stage.backend.frame.owner.clone();
    let secret = stage.backend.secret(request.instance);
    let image = stage.backend.images.reference(PROVIDED, &request.image).unwrap();
    let made = pod::function_pod(&foreign, &request, "stranger".into(), image, &secret, &Program::Runtime);
    stage.backend.api.create(&PostParams::default(), &made).await.unwrap();

    let container = stage.backend.start(request.clone()).await.unwrap();
    let seen = stage.backend.observe().await.unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].instance, seen[0].role), (Some(request.instance), Some(Role::Instance)));
    let place = stage.until_ready(request.instance, &container).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let (link, _events) = Link::connect(&place, deadline).await.unwrap();
    assert!(!link.is_closed());
    assert_eq!(stage.backend.life(&container).await, Ok(Life::Running));

    stage.backend.stop(&container, Some(request.instance)).await.unwrap();
    assert_eq!(stage.backend.observe().await.unwrap(), []);
    stage.until(&container, |life| *life == Life::Gone).await;
    stage.backend.stop(&container, Some(request.instance)).await.unwrap();
    assert!(stage.backend.api.get_opt("stranger").await.unwrap().is_some());
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_stranger_at_an_instances_address_is_not_taken_for_it() {
    let Some(stage) = stage().await else { return };
    let request = stage.request(64).await;
    let container = stage.backend.start(request.clone()).await.unwrap();
    let Place::Tcp { address, .. } = stage.until_ready(request.instance, &container).await else {
        panic!("pods are reached by TCP")
    };
    let other = Place::Tcp { address, secret: stage.backend.secret(InstanceId::new()) };
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let refused = Link::connect(&other, deadline).await.err().expect("another instance's secret");
    assert!(refused.to_string().contains("secret"), "{refused}");
    stage.leave_nothing().await;
}

#[tokio::test]
async fn an_image_that_is_not_the_current_one_gets_its_agent_from_davits() {
    let Some(stage) = stage().await else { return };
    let request = stage.request(64).await;
    let image = stage.backend.images.reference(PROVIDED, &request.image).unwrap();
    let (name, secret) = ("davit-old".to_owned(), stage.backend.secret(request.instance));
    let made = pod::function_pod(&stage.backend.frame, &request, name, image, &secret, &Program::OldRuntime);
    let made = stage.backend.api.create(&PostParams::default(), &made).await.unwrap();
    stage.backend.pods.made(made);
    stage.until_ready(request.instance, &ContainerId("davit-old".into())).await;
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_users_image_gets_davits_agent_and_a_later_controller_knows_it() {
    let Some(stage) = stage().await else { return };
    // Any image will do, davit's own as well.
    let image = format!("{}/davit/runtime-provided:latest", stage.registry).parse().unwrap();
    let limits = ImageLimits { wall: LIMIT, bytes: 1 << 30 };
    let (log, _lines) = mpsc::channel(10);
    let asked = FetchRequest { image, logins: Logins::None, limits };
    let had = stage.backend.fetch_image(asked, log).await.unwrap();
    assert!(had.facts.id.0.starts_with(&stage.registry) && had.facts.os == "linux", "{had:?}");
    let absent = format!("{}/davit/nothing:1", stage.registry).parse().unwrap();
    let (log, _lines) = mpsc::channel(10);
    let asked = FetchRequest { image: absent, logins: Logins::None, limits };
    let refused = stage.backend.fetch_image(asked, log).await.unwrap_err();
    assert!(refused.to_string().starts_with("image: there is no "), "{refused}");

    let later = settings(&stage.namespace, &stage.registry);
    let later = KubernetesBackend::with_client(stage.client.clone(), later).await.unwrap();
    let id = later.resolve(&had.facts.id.0).await.unwrap();
    let key = PoolKey { image: id.0.clone(), ..stage.request(64).await.key };
    assert!(key.is_own_image());
    let request = StartRequest { instance: InstanceId::new(), role: Role::Instance, image: id, key };
    let container = later.start(request.clone()).await.unwrap();
    let kept = later.kept_images().await.unwrap();
    assert_eq!(kept.iter().map(|kept| &kept.id).collect::<Vec<_>>(), [&had.facts.id]);
    later.drop_image(kept[0].clone()).await.unwrap();
    assert_eq!(later.kept_images().await.unwrap(), []);

    let stage = Stage { backend: later, ..stage };
    stage.until_ready(request.instance, &container).await;
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_build_gets_the_sources_and_gives_a_bundle() {
    let Some(stage) = stage().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut sources = tar::Builder::new(std::fs::File::create(dir.join("source.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(10);
    header.set_mode(0o755);
    sources.append_data(&mut header, "bootstrap", &b"#!/bin/sh\n"[..]).unwrap();
    sources.finish().unwrap();
    let request = BuildRequest {
        id: InstanceId::new(),
        image: stage.backend.resolve(PROVIDED).await.unwrap(),
        source: dir.join("source.tar"),
        deps: None,
        ca_bundle: Some(b"none".to_vec()),
        env: Vec::new(),
        network: NetworkClass::None,
        bundle_out: dir.join("bundle.tar"),
        deps_out: dir.join("deps.tar"),
        limits: BuildLimits {
            memory_mb: 256,
            cpu_millis: 1_000,
            wall: LIMIT,
            bundle_bytes: 1 << 20,
            deps_bytes: 1 << 20,
        },
    };
    let (log, mut lines) = mpsc::channel(1_000);
    let outcome = stage.backend.build(request, log).await;
    let mut printed = Vec::new();
    while let Ok(line) = lines.try_recv() {
        printed.push(line);
    }
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}: {printed:?}"));
    assert_eq!((outcome.exit_code, outcome.out_of_memory), (0, false), "{printed:?}");
    let mut bundle = tar::Archive::new(std::fs::File::open(dir.join("bundle.tar")).unwrap());
    let names: Vec<_> =
        bundle.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|n| n.trim_start_matches("./") == "bootstrap"), "{names:?}");
    assert_eq!(stage.backend.observe().await.unwrap(), [], "the builder is gone");
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_why() {
    let Some(stage) = stage().await else { return };
    let mut absent = stage.request(64).await;
    absent.image = ImageId(format!("sha256:{}", "0".repeat(64)));
    let container = stage.backend.start(absent).await.unwrap();
    stage
        .until(
            &container,
            |life| matches!(life, Life::Hopeless(why) if why.contains("cannot fetch the image")),
        )
        .await;

    let container = stage.backend.start(stage.request(900_000_000).await).await.unwrap();
    stage
        .until(&container, |life| matches!(life, Life::Waiting(why) if why.contains("Insufficient memory")))
        .await;

    let hard = BTreeMap::from([("pods".to_owned(), Quantity("2".into()))]);
    let quota = ResourceQuota {
        metadata: named("few", BTreeMap::new()),
        spec: Some(ResourceQuotaSpec { hard: Some(hard), ..Default::default() }),
        ..Default::default()
    };
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let refused = async {
        loop {
            // Until the quota has counted what there is, it lets nothing or everything pass.
            match stage.backend.start(stage.request(64).await).await {
                Err(BackendError::Refused(why)) if why.contains("exceeded quota: few") => return why,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("the quota is held");
    stage.leave_nothing().await;
}

/// One webhook that nobody answers, and a rule that lets no pod in: each for this test's namespace alone.
#[tokio::test]
async fn what_admission_refuses_is_told_in_its_own_words() {
    let Some(stage) = stage().await else { return };
    let (namespace, name) = (&stage.namespace, format!("{}.example.com", stage.namespace));
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let creations =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]);
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 1,
            "namespaceSelector": here, "rules": creations,
            "clientConfig": {"url": "https://127.0.0.1:1/"},
        }],
    });
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"namespaceSelector": here, "resourceRules": creations},
            "validations": [{"expression": "false", "message": "nothing comes in here"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    let all = |kind: &str| {
        let resource =
            ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
        Api::<DynamicObject>::all_with(stage.client.clone(), &resource)
    };
    let hooks = all("ValidatingWebhookConfiguration");
    let (policies, bindings) = (all("ValidatingAdmissionPolicy"), all("ValidatingAdmissionPolicyBinding"));
    let until_refused = async |words: &str| {
        let refused = async {
            loop {
                // The API server hears of its rules a moment after they are made.
                match stage.backend.start(stage.request(64).await).await {
                    Err(BackendError::Refused(why)) if why.contains(words) => return,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, refused).await.is_ok()
    };
    let made = |object| serde_json::from_value::<DynamicObject>(object).unwrap();
    hooks.create(&PostParams::default(), &made(webhook)).await.unwrap();
    let unanswered = until_refused(&format!("failed calling webhook \"{name}\"")).await;
    hooks.delete(&name, &DeleteParams::default()).await.unwrap();
    policies.create(&PostParams::default(), &made(policy)).await.unwrap();
    bindings.create(&PostParams::default(), &made(binding)).await.unwrap();
    let denied = until_refused("nothing comes in here").await;
    // They are nobody's namespace's, so they go before anything can fail.
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    policies.delete(&name, &DeleteParams::default()).await.unwrap();
    assert!(unanswered && denied, "webhook: {unanswered}, policy: {denied}");
    stage.leave_nothing().await;
}

#[tokio::test]
async fn an_account_without_rights_is_told_which() {
    let Some(stage) = stage().await else { return };
    let client = stage.account("nobody").await;
    let settings = settings(&stage.namespace, &stage.registry);
    let Err(BackendError::Refused(why)) = KubernetesBackend::with_client(client, settings).await else {
        panic!("an account without rights was let in")
    };
    assert!(why.contains("may not get configmaps") && why.contains("Role"), "{why}");
    stage.leave_nothing().await;
}

#[tokio::test]
async fn a_drained_pod_says_so_and_runs_until_its_gateway_lets_go() {
    let Some(stage) = stage().await else { return };
    let request = stage.request(64).await;
    let container = stage.backend.start(request.clone()).await.unwrap();
    let place = stage.until_ready(request.instance, &container).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let (link, mut events) = Link::connect(&place, deadline).await.unwrap();
    // As a node that is drained does.
    stage.backend.api.evict(&container.0, &Default::default()).await.unwrap();
    let said = tokio::time::timeout(LIMIT, events.recv()).await.expect("the agent says so");
    assert!(matches!(said, Some(LinkEvent::Leaving)), "{said:?}");
    stage.until(&container, |life| *life == Life::Ended).await;
    let seen = stage.backend.observe().await.unwrap();
    assert!(seen.len() == 1 && seen[0].running, "it may have calls: {seen:?}");
    drop(link);
    drop(events);
    stage.until(&container, |life| *life == Life::Gone).await;
    assert_eq!(stage.backend.observe().await.unwrap(), []);
    stage.leave_nothing().await;
}

#[tokio::test]
async fn without_its_owner_nothing_begins_and_with_it_everything_goes() {
    let Some(stage) = stage().await else { return };
    let container = stage.backend.start(stage.request(64).await).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &stage.namespace);
    maps.delete("davit-instances", &DeleteParams::default()).await.unwrap();
    stage.until(&container, |life| matches!(life, Life::Gone | Life::Ended)).await;
    let again =
        KubernetesBackend::with_client(stage.client.clone(), settings(&stage.namespace, &stage.registry));
    let Err(BackendError::Refused(why)) = again.await else { panic!("it began without an owner") };
    assert!(why.contains("there is no ConfigMap davit-instances"), "{why}");
    stage.leave_nothing().await;
}

#[tokio::test]
async fn the_doctor_finds_a_cluster_in_order_and_what_is_wrong_with_another() {
    let Some(stage) = stage().await else { return };
    let mut config = stage.backend.frame.config.clone();
    let found = check::check_with(&stage.client, &config, Logins::None).await;
    let wrong: Vec<_> = found.iter().filter(|one| one.verdict == check::Verdict::Missing).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(found.iter().any(|one| one.what == "a trial pod"), "{found:?}");
    config.runtime_class_name = Some("nobody-has-it".into());
    config.agent_image = format!("{}/davit/nothing:1", stage.registry).parse().unwrap();
    let found = check::check_with(&stage.client, &config, Logins::None).await;
    let said =
        |what: &str| found.iter().find(|one| one.what == what && one.verdict == check::Verdict::Missing);
    assert!(said("a trial pod").is_some_and(|one| one.found.contains("nobody-has-it")), "{found:?}");
    assert!(said("images").is_some_and(|one| one.found.contains("no such image")), "{found:?}");
    stage.leave_nothing().await;
}
