//! What a pod's status means for davit. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus};

use super::pod::{AGENT_PORT, CONTAINER};
use crate::backend::{ContainerId, LABEL_INSTANCE, LABEL_ROLE, Life, Observed, Role};

/// A pod that is deleted with at most this, in seconds, has no calls to end: it is davit's own removal, or somebody's
/// who wants it gone now.
pub(super) const AT_ONCE: i64 = 5;
/// What a kubelet says of a container that it is only about to make.
const ON_ITS_WAY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
/// Longest reason that is passed on, in characters.
const REASON: usize = 500;

/// How a pod is doing.
pub(super) fn life(pod: &Pod) -> Life {
    let status = status(pod);
    if is_over(pod) || pod.metadata.deletion_timestamp.is_some() {
        return Life::Ended;
    }
    if let Some(condition) = condition(status, "PodScheduled").filter(|c| c.status == "False") {
        let why = condition.message.as_deref().unwrap_or("the scheduler does not say why");
        return Life::Waiting(short(format!("no node takes it: {why}")));
    }
    // Containers before it, then itself: the first that waits for something is what it waits for.
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = all.filter_map(|one| one.state.as_ref()?.waiting.as_ref());
    let stuck = waiting.clone().find(|w| w.reason.as_deref().is_some_and(|r| !ON_ITS_WAY.contains(&r)));
    if let Some(stuck) = stuck {
        let reason = stuck.reason.as_deref().unwrap_or_default();
        let what = match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => "its node cannot fetch the image",
            _ => "its node cannot start the container",
        };
        let detail = stuck.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        return Life::Hopeless(short(format!("{what} ({reason}){detail}")));
    }
    match function(status).and_then(|one| one.state.as_ref()) {
        Some(ContainerState { running: Some(_), .. }) => Life::Running,
        Some(ContainerState { terminated: Some(_), .. }) => Life::Ended,
        _ if condition(status, "PodScheduled").is_none() => Life::Waiting("no node was chosen yet".into()),
        _ => Life::Waiting("its node fetches the image or makes the container".into()),
    }
}

/// Whether a pod's calls are over: its process ended, or what was left of it is being removed.
fn is_over(pod: &Pod) -> bool {
    let status = status(pod);
    let ended = |one: &ContainerStatus| one.state.as_ref().is_some_and(|state| state.terminated.is_some());
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded" | "Unknown"))
        || function(status).is_some_and(ended)
}

/// Whether a node was chosen for a pod.
pub(super) fn is_placed(pod: &Pod) -> bool {
    condition(status(pod), "PodScheduled").is_some_and(|c| c.status == "True")
}

/// Whether a pod's node has stopped answering: the node's controller then says that pods are not ready, while their
/// containers, which have no probe, were when they were last seen.
fn is_lost(pod: &Pod) -> bool {
    let status = status(pod);
    let is = |name: &str, wanted: &str| condition(status, name).is_some_and(|c| c.status == wanted);
    is("Ready", "False") && is("ContainersReady", "True")
}

/// Whether a pod is on its way out with no calls to end, so that nothing is left to do about it.
pub(super) fn is_leaving(pod: &Pod) -> bool {
    let meta = &pod.metadata;
    let at_once = meta.deletion_grace_period_seconds.is_none_or(|seconds| seconds <= AT_ONCE);
    meta.deletion_timestamp.is_some() && (at_once || is_over(pod) || is_lost(pod))
}

/// A pod as reconcile sees it. One that is drained still runs: its agent has told its gateway, which gives it up when
/// its calls have ended.
pub(super) fn observed(pod: &Pod) -> Option<Observed> {
    if is_leaving(pod) {
        return None;
    }
    let meta = &pod.metadata;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    let created = meta.creation_timestamp.as_ref().map_or(0, |at| at.0.as_second());
    Some(Observed {
        container: ContainerId(meta.name.clone()?),
        instance: label(LABEL_INSTANCE).and_then(|text| text.parse().ok()),
        role: label(LABEL_ROLE).and_then(|text| Role::from_label(text)),
        running: !is_over(pod) && !is_lost(pod),
        status: sentence(pod),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(created).unwrap_or(0)),
    })
}

/// One sentence about a pod.
pub(super) fn sentence(pod: &Pod) -> String {
    let status = status(pod);
    if let Some(reason) = &status.reason {
        let detail = status.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        return short(format!("{reason}{detail}"));
    }
    let ended = function(status).and_then(|one| one.state.as_ref()?.terminated.as_ref());
    if let Some(ended) = ended {
        let reason = ended.reason.as_deref().unwrap_or("Ended");
        let detail = ended.message.as_deref().map(|m| format!(": {m}")).unwrap_or_default();
        return short(format!("{reason} ({}){detail}", ended.exit_code));
    }
    if is_lost(pod) {
        return "its node does not answer".into();
    }
    if let Some(target) = condition(status, "DisruptionTarget").filter(|c| c.status == "True") {
        return short(format!("leaves: {}", target.message.as_deref().unwrap_or("it is in the way")));
    }
    status.phase.clone().unwrap_or_else(|| "Pending".into())
}

/// Where the agent of a pod that runs is reached.
pub(super) fn agent(pod: &Pod) -> Option<SocketAddr> {
    if life(pod) != Life::Running {
        return None;
    }
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()?;
    Some(SocketAddr::new(ip, AGENT_PORT))
}

pub(super) fn status(pod: &Pod) -> &PodStatus {
    static NOTHING_YET: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&NOTHING_YET)
}

pub(super) fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == name)
}

pub(super) fn function(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.iter().flatten().find(|one| one.name == CONTAINER)
}

pub(super) fn short(text: String) -> String {
    match text.char_indices().nth(REASON) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(metadata: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn container(state: Value) -> Value {
        json!([{"name": "function", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
    }

    fn running() -> Value {
        json!({"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": container(json!({"running": {}})),
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "True"}]})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": container(json!({"waiting": {"reason": reason, "message": message}}))})
    }

    fn named() -> Value {
        json!({"name": "davit-1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"davit.role": "instance", "davit.instance": "not an id"}})
    }

    #[test]
    fn a_pod_that_runs_is_reached_at_its_address() {
        let runs = pod(named(), running());
        assert_eq!(life(&runs), Life::Running);
        assert_eq!(agent(&runs), Some("10.0.0.7:9000".parse().unwrap()));
        let seen = observed(&runs).unwrap();
        assert_eq!((seen.running, seen.role, seen.instance), (true, Some(Role::Instance), None));
        assert_eq!(seen.created, SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600));
        let six = pod(
            named(),
            json!({"phase": "Running", "podIP": "fd00::7", "containerStatuses": container(json!({"running": {}}))}),
        );
        assert_eq!(agent(&six), Some("[fd00::7]:9000".parse().unwrap()));
    }

    #[test]
    fn what_it_waits_for_is_said() {
        let no_room = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/2 nodes are available: 2 Insufficient memory."}]});
        for (status, wanted) in [
            (no_room, "0/2 nodes are available"),
            (json!({"phase": "Pending"}), "no node was chosen"),
            (json!(null), "no node was chosen"),
            (waiting("ContainerCreating", ""), "fetches the image"),
        ] {
            let pod = pod(named(), status);
            assert!(matches!(life(&pod), Life::Waiting(why) if why.contains(wanted)), "{pod:?}");
            assert!(observed(&pod).unwrap().running && agent(&pod).is_none());
        }
    }

    #[test]
    fn a_start_that_waiting_does_not_help_is_told_from_one_that_it_does() {
        for (reason, message, wanted) in [
            ("ErrImagePull", "manifest unknown", "cannot fetch the image (ErrImagePull): manifest unknown"),
            ("ImagePullBackOff", "Back-off", "cannot fetch the image"),
            ("InvalidImageName", "", "InvalidImageName"),
            ("CreateContainerConfigError", "runAsNonRoot", "cannot start the container"),
            ("RunContainerError", "exec: not found", "exec: not found"),
        ] {
            let life = life(&pod(named(), waiting(reason, message)));
            assert!(matches!(&life, Life::Hopeless(why) if why.contains(wanted)), "{life:?}");
        }
        let before = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}],
            "initContainerStatuses": container(json!({"waiting": {"reason": "ErrImagePull"}})),
            "containerStatuses": container(json!({"waiting": {"reason": "PodInitializing"}}))});
        assert!(matches!(life(&pod(named(), before)), Life::Hopeless(_)), "the agent's image, too");
    }

    #[test]
    fn an_end_has_its_reason() {
        let ended = |reason: &str, code: i32| json!({"phase": "Failed", "containerStatuses": container(json!({"terminated": {"reason": reason, "exitCode": code}}))});
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        for (status, wanted) in [
            (ended("OOMKilled", 137), "OOMKilled (137)"),
            (ended("Error", 1), "Error (1)"),
            (evicted, "Evicted: The node was low on resource: memory."),
            (json!({"phase": "Unknown", "reason": "NodeLost"}), "NodeLost"),
        ] {
            let pod = pod(named(), status);
            let seen = observed(&pod).unwrap();
            assert_eq!((life(&pod), seen.running, seen.status.as_str()), (Life::Ended, false, wanted));
        }
    }

    #[test]
    fn a_drained_pod_runs_until_its_calls_have_ended_and_a_removed_one_is_gone() {
        let deleted = |grace: i64, status: Value| {
            let mut meta = named();
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:10Z");
            meta["deletionGracePeriodSeconds"] = json!(grace);
            pod(meta, status)
        };
        let drained = deleted(900, running());
        assert!(observed(&drained).unwrap().running);
        assert_eq!(life(&drained), Life::Ended, "one that was to start is not waited for");
        assert_eq!(observed(&deleted(1, running())), None);
        let over = json!({"phase": "Running", "containerStatuses": container(json!({"terminated": {"exitCode": 0}}))});
        assert_eq!(observed(&deleted(900, over)), None);
    }

    #[test]
    fn a_pod_whose_node_is_silent_does_not_run() {
        let mut status = running();
        status["conditions"][1]["status"] = json!("False");
        let lost = pod(named(), status);
        let seen = observed(&lost).unwrap();
        assert_eq!((seen.running, seen.status.as_str()), (false, "its node does not answer"));
    }
}
