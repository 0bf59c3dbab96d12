//! The one place where pods are made, as [`crate::backend::spec`] is for an engine: whatever a version asks for arrives
//! here as a few checked numbers, and nothing that a user wrote becomes a part of a pod but what its own image starts,
//! as text for the agent. What comes out satisfies the Pod Security Standard "restricted".

use std::collections::BTreeMap;

use davit_api::{InstallationId, InstanceId, NetworkClass, SECRET_FOLDER};
use davit_link::InstanceSecret;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, ContainerResizePolicy, EmptyDirVolumeSource, EnvVar,
    LocalObjectReference, Pod, PodDNSConfig, PodSecurityContext, PodSpec, ResourceRequirements,
    SeccompProfile, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::config::Config;
use crate::backend::image::ImageFacts;
use crate::backend::spec::{self, AGENT, SECRETS_MB, TASK_MB, TASK_ROOT};
use crate::backend::{
    BuildRequest, LABEL_INSTALLATION, LABEL_INSTANCE, LABEL_ROLE, Role, StartRequest, short,
};

/// Where agents in pods listen.
pub(super) const AGENT_PORT: u16 = 9000;
/// Label with what a pod can reach: policies of the network select by it.
pub(super) const LABEL_NETWORK: &str = "davit.network";
/// Tells a cluster's autoscaler that a node may be given up with this pod on it, whatever volumes the pod has.
const EVICTABLE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// The container that runs the agent.
pub(super) const CONTAINER: &str = "function";
/// The one before it that brings the agent.
pub(super) const BRINGS_AGENT: &str = "agent";
/// User and group of everything inside, as of [`spec::USER`].
const USER: i64 = 993;
/// How long calls may go on in a pod that its node or an operator wants away. They are as long as calls may be.
const GRACE_SECONDS: i64 = 900;
/// How long a pod stays bound to a node that the cluster has lost, in seconds; a cluster's own default is 300 (Kubernetes
/// documentation, "Taints and Tolerations"). Calls in it are lost already, and a start in it is waited for.
const LOST_SECONDS: i64 = 5;
/// Where the agent is put by the container that brings it.
const BROUGHT: &str = "/davit";
/// Room for it, in MiB. It is in memory, so that a pod needs nothing of its node's disk.
const AGENT_MB: u64 = 16;
/// Where a build program works, as `runtime-images/base/build-lib.sh` has it, and how much of its node's disk it may take.
const BUILD_FOLDER: &str = "/davit";
const BUILD_DISK: &str = "8Gi";
const BUILD_TMP: &str = "2Gi";
/// A build's pod is started, and given its files, in this time.
const SLACK_SECONDS: i64 = 600;
/// What a pod is promised of its processor limit: nodes are shared by functions that mostly wait.
const CPU_REQUEST: u32 = 20;
const LEAST_CPU: u32 = 10;

/// What is the same for every pod of an installation.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The installation.
    pub installation: InstallationId,
    /// What owns them all.
    pub owner: OwnerReference,
    /// What the operator says.
    pub config: Config,
}

/// What runs in a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Program {
    /// A runtime, with the agent of its image.
    Runtime,
    /// A runtime whose image is not the current one: its agent may be too old.
    OldRuntime,
    /// A user's own image; its volumes have been judged.
    Own(ImageFacts),
}

/// A pod for one instance.
pub(super) fn function_pod(
    frame: &Frame,
    request: &StartRequest,
    name: String,
    image: String,
    secret: &InstanceSecret,
    program: &Program,
) -> Pod {
    let key = &request.key;
    let mut memory = vec![("tmp".to_owned(), "/tmp".to_owned(), u64::from(key.ephemeral_mb))];
    let mut env = link_env(secret);
    match program {
        Program::Runtime | Program::OldRuntime => {
            memory.push(("task".into(), TASK_ROOT.into(), TASK_MB));
        }
        Program::Own(facts) => {
            // What the image wants to write to is memory, as /tmp is.
            let volumes = facts.volumes.iter().filter(|path| *path != SECRET_FOLDER).enumerate();
            memory.extend(
                volumes.map(|(n, path)| (format!("volume-{n}"), path.clone(), u64::from(key.ephemeral_mb))),
            );
            env.push(plain("DAVIT_IMAGE", &spec::described(facts)));
            env.push(plain("DAVIT_RUNTIME_COMMAND", "[]"));
        }
    }
    memory.push(("secrets".into(), SECRET_FOLDER.into(), SECRETS_MB));
    let brought = *program != Program::Runtime;
    let mut mounts: Vec<VolumeMount> = memory.iter().map(|(name, path, _)| mount(name, path)).collect();
    let mut volumes: Vec<Volume> = memory.iter().map(|(name, _, mb)| in_memory(name, *mb)).collect();
    if brought {
        volumes.push(in_memory(BRINGS_AGENT, AGENT_MB));
        mounts.push(agent_mount());
    }
    let container = Container {
        name: CONTAINER.into(),
        image: Some(image),
        command: Some(vec![AGENT.into()]),
        args: Some(Vec::new()),
        // The agent goes to the image's own folder when it starts what is in it.
        working_dir: Some("/".into()),
        env: Some(env),
        ports: Some(vec![agent_port()]),
        volume_mounts: Some(mounts),
        resize_policy: Some(["cpu", "memory"].map(in_place).into()),
        ..confined(frame, key.memory_mb, key.cpu_millis)
    };
    let init = brought.then(|| vec![brings_agent(frame, key.memory_mb, key.cpu_millis)]);
    let mut pod = bare(frame, (request.role, request.instance), key.network, name);
    pod.spec = Some(PodSpec {
        init_containers: init,
        containers: vec![container],
        volumes: Some(volumes),
        ..around(frame, key.network)
    });
    pod
}

/// A pod for one build: as confined as a function's, but with folders on its node's disk for compilers.
pub(super) fn builder_pod(
    frame: &Frame,
    request: &BuildRequest,
    name: String,
    image: String,
    secret: &InstanceSecret,
) -> Pod {
    let limits = &request.limits;
    let folders = [("davit", BUILD_FOLDER, BUILD_DISK), ("tmp", "/tmp", BUILD_TMP)];
    let mut mounts: Vec<VolumeMount> = folders.iter().map(|(name, path, _)| mount(name, path)).collect();
    mounts.push(agent_mount());
    let mut volumes: Vec<Volume> = folders.iter().map(|(name, _, size)| on_disk(name, size)).collect();
    volumes.push(in_memory(BRINGS_AGENT, AGENT_MB));
    let mut env = link_env(secret);
    env.push(plain("DAVIT_BUILDER", "1"));
    let container = Container {
        name: CONTAINER.into(),
        image: Some(image),
        command: Some(vec![AGENT.into()]),
        args: Some(Vec::new()),
        working_dir: Some(BUILD_FOLDER.into()),
        env: Some(env),
        ports: Some(vec![agent_port()]),
        volume_mounts: Some(mounts),
        ..confined(frame, limits.memory_mb, limits.cpu_millis)
    };
    let mut pod = bare(frame, (Role::Builder, request.id), request.network, name);
    pod.spec = Some(PodSpec {
        init_containers: Some(vec![brings_agent(frame, limits.memory_mb, limits.cpu_millis)]),
        containers: vec![container],
        volumes: Some(volumes),
        // Should nobody be left to end it.
        active_deadline_seconds: Some(
            i64::try_from(limits.wall.as_secs()).unwrap_or(i64::MAX / 2) + SLACK_SECONDS,
        ),
        ..around(frame, request.network)
    });
    pod
}

/// With it the agent takes its gateway by TCP. Functions do not get to see it.
fn link_env(secret: &InstanceSecret) -> Vec<EnvVar> {
    vec![plain("DAVIT_LINK_SECRET", &secret.to_hex())]
}

fn agent_port() -> ContainerPort {
    ContainerPort {
        name: Some("agent".into()),
        container_port: i32::from(AGENT_PORT),
        protocol: Some("TCP".into()),
        ..Default::default()
    }
}

/// One file, whatever else the image has in its folder.
fn agent_mount() -> VolumeMount {
    VolumeMount { sub_path: Some("agent".into()), read_only: Some(true), ..mount(BRINGS_AGENT, AGENT) }
}

/// Copies the agent to where the function's container has it.
fn brings_agent(frame: &Frame, memory_mb: u32, cpu_millis: u32) -> Container {
    Container {
        name: BRINGS_AGENT.into(),
        image: Some(frame.config.agent_image.to_string()),
        command: Some(vec![AGENT.into(), "copy".into(), format!("{BROUGHT}/agent")]),
        volume_mounts: Some(vec![mount(BRINGS_AGENT, BROUGHT)]),
        ..confined(frame, memory_mb, cpu_millis)
    }
}

/// A pod's name and labels, without what is in it.
fn bare(frame: &Frame, (role, instance): (Role, InstanceId), network: NetworkClass, name: String) -> Pod {
    let network = match network {
        NetworkClass::Egress => "egress",
        NetworkClass::None => "none",
    };
    let component = if role == Role::Builder { "builder" } else { "function" };
    let mut labels = frame.config.pod_labels.clone();
    labels.extend(
        [
            (LABEL_INSTALLATION, frame.installation.to_string().as_str()),
            (LABEL_INSTANCE, instance.to_string().as_str()),
            (LABEL_ROLE, role.as_str()),
            (LABEL_NETWORK, network),
            ("app.kubernetes.io/managed-by", "davit"),
            ("app.kubernetes.io/component", component),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    let mut annotations = BTreeMap::from([(EVICTABLE.to_owned(), "true".to_owned())]);
    annotations.extend(frame.config.pod_annotations.clone());
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(frame.config.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![frame.owner.clone()]),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// What every pod has around its containers.
fn around(frame: &Frame, network: NetworkClass) -> PodSpec {
    let config = &frame.config;
    let pull = config.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    let offline = network == NetworkClass::None;
    PodSpec {
        restart_policy: Some("Never".into()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // The default is the pod's name, which would tell a function its own handle.
        hostname: Some("davit".into()),
        host_network: Some(false),
        host_pid: Some(false),
        host_ipc: Some(false),
        // Names of the outside, and none of the cluster's: functions reach one another through davit.
        dns_policy: Some(if offline { "None" } else { "Default" }.into()),
        // A nameserver has to be there; at this one nobody answers.
        dns_config: offline
            .then(|| PodDNSConfig { nameservers: Some(vec!["127.0.0.1".into()]), ..Default::default() }),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(seccomp()),
            ..Default::default()
        }),
        image_pull_secrets: Some(pull.collect()),
        node_selector: Some(config.node_selector.clone()),
        tolerations: Some(tolerations(config)),
        topology_spread_constraints: Some(config.topology_spread_constraints.clone()),
        affinity: config.affinity.clone(),
        runtime_class_name: config.runtime_class_name.clone(),
        priority_class_name: config.priority_class_name.clone(),
        ..Default::default()
    }
}

/// The operator's, and how long a pod stays bound to a node that the cluster has lost.
fn tolerations(config: &Config) -> Vec<Toleration> {
    let lost = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|key| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(LOST_SECONDS),
        ..Default::default()
    });
    // One without a key is for all of them.
    let given =
        |key: &Option<String>| config.tolerations.iter().any(|one| one.key.is_none() || one.key == *key);
    let own = lost.into_iter().filter(|one| !given(&one.key));
    config.tolerations.iter().cloned().chain(own).collect()
}

/// What a container may use, and what it is promised.
pub(super) fn resources(memory_mb: u32, cpu_millis: u32) -> ResourceRequirements {
    let memory = Quantity(format!("{memory_mb}Mi"));
    let cpu = |millis: u32| Quantity(format!("{millis}m"));
    let request = (cpu_millis / CPU_REQUEST).max(LEAST_CPU).min(cpu_millis);
    let of =
        |millis| BTreeMap::from([("memory".to_owned(), memory.clone()), ("cpu".to_owned(), cpu(millis))]);
    ResourceRequirements { limits: Some(of(cpu_millis)), requests: Some(of(request)), ..Default::default() }
}

/// What a container may use of this changes while it runs.
fn in_place(resource: &str) -> ContainerResizePolicy {
    ContainerResizePolicy { resource_name: resource.into(), restart_policy: "NotRequired".into() }
}

/// What every container has: limits, and no privilege.
fn confined(frame: &Frame, memory_mb: u32, cpu_millis: u32) -> Container {
    Container {
        image_pull_policy: Some(frame.config.image_pull_policy.as_str().into()),
        resources: Some(resources(memory_mb, cpu_millis)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            seccomp_profile: Some(seccomp()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn seccomp() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }
}

/// In a value the kubelet takes `$(NAME)` for another variable, and `$$` for one dollar.
fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.replace('$', "$$")), value_from: None }
}

fn in_memory(name: &str, mb: u64) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".into()),
            size_limit: Some(Quantity(format!("{mb}Mi"))),
        }),
        ..Default::default()
    }
}

fn on_disk(name: &str, size: &str) -> Volume {
    let disk = EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(size.into())) };
    Volume { name: name.into(), empty_dir: Some(disk), ..Default::default() }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..Default::default() }
}

/// A new pod's name. Random, as names of containers are: what belongs to us is known by label.
pub(super) fn new_name(installation: InstallationId, role: Role) -> String {
    format!("davit-{}-{}-{:016x}", short(installation), role.as_str(), rand::random::<u64>())
}

#[cfg(test)]
pub(super) mod tests;
