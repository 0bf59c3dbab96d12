//! Every field of every pod is held against the Pod Security Standard "restricted"
//! (kubernetes.io/docs/concepts/security/pod-security-standards), whatever was asked for.

use davit_api::PoolKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::backend::ImageId;

pub(in super::super) fn frame() -> Frame {
    Frame {
        installation: InstallationId::new(),
        owner: OwnerReference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: "davit-instances".into(),
            uid: "1-2".into(),
            ..Default::default()
        },
        config: Config::parse(super::super::config::tests::SMALL).unwrap(),
    }
}

pub(in super::super) fn request(network: NetworkClass) -> StartRequest {
    StartRequest {
        instance: InstanceId::new(),
        role: Role::Instance,
        image: ImageId("sha256:aa".into()),
        key: PoolKey { image: "x".into(), memory_mb: 256, cpu_millis: 500, ephemeral_mb: 64, network },
    }
}

fn own(words: &[&str], volumes: &[&str]) -> Program {
    let all = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Program::Own(ImageFacts {
        id: ImageId("registry.test/app@sha256:aa".into()),
        os: "linux".into(),
        architecture: "amd64".into(),
        size: 1,
        entrypoint: all(words),
        cmd: Vec::new(),
        folder: "/srv".into(),
        volumes: all(volumes),
    })
}

fn made(frame: &Frame, request: &StartRequest, program: &Program) -> Value {
    let secret = InstanceSecret::from_bytes([7; 32]);
    let name = new_name(frame.installation, request.role);
    let pod = function_pod(frame, request, name, "registry.test/x@sha256:aa".into(), &secret, program);
    serde_json::to_value(pod).unwrap()
}

/// Whether a pod writes to memory alone.
fn in_memory_only(pod: &Value) -> bool {
    pod["spec"]["volumes"].as_array().unwrap().iter().all(|volume| volume["emptyDir"]["medium"] == "Memory")
}

/// The rules of "restricted", and of "baseline" which it includes.
fn restricted(pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let must = |good: bool, rule: &str| if good { Ok(()) } else { Err(format!("{rule}: {pod:#}")) };
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        must(spec[host] != true, host)?;
    }
    must(spec["securityContext"]["sysctls"].is_null(), "sysctls")?;
    must(spec["securityContext"]["seLinuxOptions"].is_null(), "SELinux")?;
    must(spec["ephemeralContainers"].is_null(), "ephemeral containers")?;
    for volume in spec["volumes"].as_array().unwrap() {
        let mut kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        must(kinds.all(|kind| kind == "emptyDir"), "volume types")?;
        must(volume["emptyDir"]["sizeLimit"].is_string(), "bounded volumes")?;
    }
    let lists = ["initContainers", "containers"];
    let containers = lists.iter().filter_map(|list| spec[list].as_array()).flatten();
    for container in containers {
        let context = &container["securityContext"];
        must(context["privileged"] == false, "privileged")?;
        must(context["allowPrivilegeEscalation"] == false, "privilege escalation")?;
        must(context["capabilities"] == json!({"drop": ["ALL"]}), "capabilities")?;
        must(context["runAsNonRoot"] == true && context["runAsUser"] == 993, "non-root")?;
        must(context["seccompProfile"]["type"] == "RuntimeDefault", "seccomp")?;
        must(context["readOnlyRootFilesystem"] == true, "read-only root")?;
        must(context["procMount"].is_null() && context["appArmorProfile"].is_null(), "proc, AppArmor")?;
        let resources = &container["resources"];
        must(resources["limits"]["memory"].is_string(), "memory limit")?;
        must(resources["limits"]["memory"] == resources["requests"]["memory"], "memory as promised")?;
        must(resources["limits"]["cpu"].is_string(), "cpu limit")?;
        must(container["livenessProbe"].is_null() && container["lifecycle"].is_null(), "probes, hooks")?;
        must(container["envFrom"].is_null(), "environment from elsewhere")?;
        for port in container["ports"].as_array().into_iter().flatten() {
            must(port["hostPort"].is_null(), "host ports")?;
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            must(mount["mountPropagation"].is_null(), "propagation")?;
        }
    }
    must(spec["automountServiceAccountToken"] == false, "token")?;
    must(spec["enableServiceLinks"] == false, "service links")?;
    must(spec["serviceAccountName"].is_null(), "service account")
}

#[test]
fn a_functions_pod_says_who_it_is_and_what_it_may_have() {
    let (frame, request) = (frame(), request(NetworkClass::None));
    let pod = made(&frame, &request, &Program::Runtime);
    restricted(&pod).unwrap();
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["davit.installation"], frame.installation.to_string());
    assert_eq!(labels["davit.instance"], request.instance.to_string());
    assert_eq!((&labels["davit.role"], &labels["davit.network"]), (&json!("instance"), &json!("none")));
    assert_eq!(labels["app.kubernetes.io/component"], "function");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "1-2");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let shape: Vec<_> = name.split('-').collect();
    assert!(matches!(&shape[..], ["davit", short, "instance", hex] if short.len() == 8 && hex.len() == 16));
    let spec = &pod["spec"];
    assert_eq!((&spec["restartPolicy"], &spec["hostname"]), (&json!("Never"), &json!("davit")));
    assert_eq!(
        (&spec["dnsPolicy"], &spec["dnsConfig"]["nameservers"]),
        (&json!("None"), &json!(["127.0.0.1"]))
    );
    assert_eq!(spec["terminationGracePeriodSeconds"], 900);
    assert!(spec["initContainers"].is_null());
    let container = &spec["containers"][0];
    assert_eq!(container["resources"]["limits"], json!({"memory": "256Mi", "cpu": "500m"}));
    assert_eq!(container["resources"]["requests"], json!({"memory": "256Mi", "cpu": "25m"}));
    let policy = |resource| json!({"resourceName": resource, "restartPolicy": "NotRequired"});
    assert_eq!(container["resizePolicy"], json!([policy("cpu"), policy("memory")]));
    assert_eq!(container["command"], json!(["/opt/davit/agent"]));
    assert_eq!(container["ports"][0]["containerPort"], 9000);
    let paths: Vec<_> =
        container["volumeMounts"].as_array().unwrap().iter().map(|m| &m["mountPath"]).collect();
    assert_eq!(paths, ["/tmp", "/var/task", "/run/secrets"]);
    let sizes: Vec<_> =
        spec["volumes"].as_array().unwrap().iter().map(|v| &v["emptyDir"]["sizeLimit"]).collect();
    assert_eq!(sizes, ["64Mi", &format!("{TASK_MB}Mi"), "2Mi"]);
    let env: Vec<_> = container["env"].as_array().unwrap().iter().map(|e| &e["name"]).collect();
    assert_eq!(env, ["DAVIT_LINK_SECRET"]);
}

#[test]
fn an_image_that_may_have_an_old_agent_or_none_gets_one() {
    for program in [Program::OldRuntime, own(&["/app"], &["/data", "/run/secrets"])] {
        let pod = made(&frame(), &request(NetworkClass::Egress), &program);
        restricted(&pod).unwrap();
        let brings = &pod["spec"]["initContainers"][0];
        assert!(brings["resizePolicy"].is_null(), "the cluster takes none before a container");
        assert_eq!(brings["image"], "registry.test/davit/davit:0.1.0");
        assert_eq!(brings["command"], json!(["/opt/davit/agent", "copy", "/davit/agent"]));
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        let agent = mounts.iter().find(|mount| mount["mountPath"] == "/opt/davit/agent").unwrap();
        assert_eq!((&agent["subPath"], &agent["readOnly"]), (&json!("agent"), &json!(true)));
        let twice = mounts.iter().filter(|mount| mount["mountPath"] == "/run/secrets").count();
        assert_eq!(twice, 1, "a place is mounted once, or the cluster refuses the pod");
    }
}

#[test]
fn a_build_is_as_confined_and_ends_by_itself() {
    let frame = frame();
    let request = BuildRequest {
        id: InstanceId::new(),
        image: ImageId("sha256:aa".into()),
        source: "/s".into(),
        deps: None,
        ca_bundle: None,
        env: vec![("SECRET".into(), "hush".into())],
        network: NetworkClass::None,
        bundle_out: "/b".into(),
        deps_out: "/d".into(),
        limits: crate::backend::BuildLimits {
            memory_mb: 2_048,
            cpu_millis: 2_000,
            wall: std::time::Duration::from_secs(900),
            bundle_bytes: 1,
            deps_bytes: 1,
        },
    };
    let secret = InstanceSecret::from_bytes([7; 32]);
    let pod = builder_pod(&frame, &request, "b".into(), "registry.test/x@sha256:aa".into(), &secret);
    let pod = serde_json::to_value(pod).unwrap();
    restricted(&pod).unwrap();
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 1_500);
    let labels = &pod["metadata"]["labels"];
    assert_eq!(
        (&labels["davit.role"], &labels["app.kubernetes.io/component"]),
        (&json!("builder"), &json!("builder"))
    );
    assert_eq!(labels["davit.network"], "none");
    assert!(!pod.to_string().contains("hush"), "its environment goes over the link");
}

#[test]
fn what_an_image_starts_comes_to_the_agent_as_it_is() {
    let pod = made(&frame(), &request(NetworkClass::Egress), &own(&["$(HOME)", "$$", "a$b"], &[]));
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let said = env.iter().find(|var| var["name"] == "DAVIT_IMAGE").unwrap()["value"].as_str().unwrap();
    assert!(said.contains("$$(HOME)"), "{said}");
    // As the kubelet reads it: two are one.
    let read: Value = serde_json::from_str(&said.replace("$$", "$")).unwrap();
    assert_eq!(read["entrypoint"], json!(["$(HOME)", "$$", "a$b"]));
}

#[test]
fn what_the_operator_says_about_nodes_is_in_every_pod() {
    let mut frame = frame();
    frame.config.node_selector.insert("pool".into(), "functions".into());
    frame.config.runtime_class_name = Some("gvisor".into());
    frame.config.priority_class_name = Some("low".into());
    frame.config.image_pull_secrets = vec!["pull".into()];
    frame.config.pod_labels.insert("team".into(), "a".into());
    let pod = made(&frame, &request(NetworkClass::Egress), &Program::Runtime);
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"], json!({"pool": "functions"}));
    assert_eq!((&spec["runtimeClassName"], &spec["priorityClassName"]), (&json!("gvisor"), &json!("low")));
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!((&pod["metadata"]["labels"]["team"], &spec["dnsPolicy"]), (&json!("a"), &json!("Default")));
}

#[test]
fn a_pod_leaves_a_lost_node_soon_unless_the_operator_says_when() {
    let spared = |given: &[Value]| -> Vec<(String, Option<i64>)> {
        let mut frame = frame();
        frame.config.tolerations = serde_json::from_value(json!(given)).unwrap();
        let pod = made(&frame, &request(NetworkClass::Egress), &Program::Runtime);
        let all: Vec<Toleration> = serde_json::from_value(pod["spec"]["tolerations"].clone()).unwrap();
        all.into_iter().map(|one| (one.key.unwrap_or_default(), one.toleration_seconds)).collect()
    };
    let (gone, silent) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    let soon = |key: &str| (key.to_owned(), Some(LOST_SECONDS));
    assert_eq!(spared(&[]), [soon(gone), soon(silent)]);
    let functions = json!({"key": "functions", "operator": "Exists"});
    assert_eq!(spared(&[functions]), [("functions".to_owned(), None), soon(gone), soon(silent)]);
    let late = json!({"key": silent, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60});
    assert_eq!(spared(&[late]), [(silent.to_owned(), Some(60)), soon(gone)]);
    assert_eq!(spared(&[json!({"operator": "Exists"})]), [(String::new(), None)]);
}

proptest! {
    #[test]
    fn no_request_makes_a_pod_that_is_not_restricted(
        memory_mb in 1_u32..1_000_000,
        cpu_millis in 1_u32..200_000,
        ephemeral_mb in 1_u32..100_000,
        offline: bool,
        kind in 0..3,
        words in proptest::collection::vec("\\PC{0,20}", 0..4),
        volumes in proptest::collection::vec("/[a-z]{1,5}", 0..4),
    ) {
        let network = if offline { NetworkClass::None } else { NetworkClass::Egress };
        let mut request = request(network);
        request.key = PoolKey { memory_mb, cpu_millis, ephemeral_mb, ..request.key };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
        let program = match kind {
            0 => Program::Runtime,
            1 => Program::OldRuntime,
            _ => own(&words, &volumes),
        };
        let pod = made(&frame(), &request, &program);
        prop_assert!(restricted(&pod).is_ok(), "{:?}", restricted(&pod));
        prop_assert!(in_memory_only(&pod), "{:#}", pod);
    }
}
