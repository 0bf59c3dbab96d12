//! Another size for a pod that runs: its limits and requests are changed through the subresource `resize`, which clusters have
//! from version 1.33 on, and its kubelet carries that out. A cluster that does not is not asked again for a while.

use std::time::Duration;

use davit_api::PoolKey;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use super::errors::failed;
use super::pod::{CONTAINER, resources};
use super::quantity::is_same;
use super::{ANSWER, KubernetesBackend, state};
use crate::backend::{BackendError, ContainerId, Life, Resized};

/// Longest time for a kubelet to carry it out.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a kubelet may put it off: a new pod can go to another node.
const PUT_OFF: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);
/// How long a cluster that has no such thing, or does not let us, is left alone.
const REFUSED: Duration = Duration::from_secs(600);
/// The same for one whose nodes have no room.
const FULL: Duration = Duration::from_secs(60);

/// Until when nothing is resized.
#[derive(Default)]
pub(super) struct Rest(Mutex<Option<Instant>>);

impl Rest {
    pub(super) fn is_now(&self) -> bool {
        self.0.lock().is_some_and(|until| Instant::now() < until)
    }

    fn begin(&self, time: Duration) {
        *self.0.lock() = Some(Instant::now() + time);
    }
}

/// How far a resize has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// The container has it.
    Done,
    /// Its kubelet is at it, or has not seen it yet.
    UnderWay,
    /// Its kubelet waits for room on the node.
    PutOff(String),
    /// It will not be, because the node has too little for it.
    NoRoom(String),
    /// It will not be.
    Failed(String),
}

impl KubernetesBackend {
    pub(super) async fn resize_inner(
        &self,
        container: &ContainerId,
        key: &PoolKey,
    ) -> Result<Resized, BackendError> {
        if self.resizes_rest.is_now() {
            return Ok(Resized::Refused("the cluster did not resize pods a while ago".into()));
        }
        let wanted = resources(key.memory_mb, key.cpu_millis);
        let change = json!({"spec": {"containers": [{"name": CONTAINER, "resources": wanted}]}});
        let (params, change) = (PatchParams::default(), Patch::Strategic(&change));
        let asked = self.asked("patch", "pods/resize");
        match tokio::time::timeout(ANSWER, self.api.patch_resize(&container.0, &params, &change)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let (refused, rest) = refusal(&error, &container.0);
                if let Some(rest) = rest {
                    self.resizes_rest.begin(rest);
                }
                let error = failed(asked, error);
                return if refused { Ok(Resized::Refused(error.to_string())) } else { Err(error) };
            }
            Err(_) => return Err(BackendError::Deadline("resizing a pod")),
        }
        self.resized(container, &wanted).await
    }

    /// Waits until the kubelet has carried it out.
    async fn resized(
        &self,
        container: &ContainerId,
        wanted: &ResourceRequirements,
    ) -> Result<Resized, BackendError> {
        let begun = Instant::now();
        let mut put_off: Option<Instant> = None;
        loop {
            let gone = || Progress::Failed("its pod is gone".into());
            match self.pods.get(&container.0).map_or_else(gone, |pod| progress(&pod, wanted)) {
                Progress::Done => return Ok(Resized::Done),
                Progress::UnderWay => put_off = None,
                Progress::PutOff(why) if put_off.get_or_insert_with(Instant::now).elapsed() >= PUT_OFF => {
                    self.resizes_rest.begin(FULL);
                    return Err(BackendError::Refused(why));
                }
                Progress::PutOff(_) => {}
                Progress::NoRoom(why) => {
                    self.resizes_rest.begin(FULL);
                    return Err(BackendError::Refused(why));
                }
                Progress::Failed(why) => return Err(BackendError::Refused(why)),
            }
            if begun.elapsed() >= LIMIT {
                return Err(BackendError::Deadline("resizing a pod"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Whether an answer means that nothing was changed, and for how long nothing needs to be asked again.
fn refusal(error: &kube::Error, pod: &str) -> (bool, Option<Duration>) {
    let kube::Error::Api(status) = error else { return (false, None) };
    let Status { code, message, .. } = &**status;
    match code {
        // This pod's own end, and not the absence of the subresource.
        404 if message.contains(pod) => (true, None),
        403 if message.contains("quota") => (true, Some(FULL)),
        403..=405 => (true, Some(REFUSED)),
        // What it says is about this pod and this size.
        400 | 401 | 409 | 422 => (true, None),
        _ => (false, None),
    }
}

/// What a pod's status says of its resize (Kubernetes documentation, "Resize CPU and Memory Resources assigned to Containers").
fn progress(pod: &Pod, wanted: &ResourceRequirements) -> Progress {
    if state::life(pod) != Life::Running {
        return Progress::Failed(format!("its pod has ended: {}", state::sentence(pod)));
    }
    let status = state::status(pod);
    let said = |name: &str| state::condition(status, name).filter(|condition| condition.status == "True");
    let why = |message: &Option<String>| state::short(message.clone().unwrap_or_default());
    if let Some(pending) = said("PodResizePending") {
        return match pending.reason.as_deref() {
            Some("Infeasible") => Progress::NoRoom(why(&pending.message)),
            _ => Progress::PutOff(why(&pending.message)),
        };
    }
    let has = state::function(status).and_then(|one| one.resources.as_ref());
    if has.is_some_and(|has| is_equal(has, wanted)) {
        return Progress::Done;
    }
    match said("PodResizeInProgress") {
        Some(at_it) if at_it.reason.as_deref() == Some("Error") => Progress::Failed(why(&at_it.message)),
        Some(_) | None => Progress::UnderWay,
    }
}

/// Whether everything that is wanted is there.
fn is_equal(has: &ResourceRequirements, wanted: &ResourceRequirements) -> bool {
    [(&has.limits, &wanted.limits), (&has.requests, &wanted.requests)].into_iter().all(|(has, wanted)| {
        let has = |name| has.as_ref().and_then(|has| has.get(name));
        wanted.iter().flatten().all(|(name, amount)| has(name).is_some_and(|has| is_same(has, amount)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(limits: Value, requests: Value, conditions: Value) -> Pod {
        let resources = json!({"limits": limits, "requests": requests});
        let function = json!({"name": CONTAINER, "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}, "resources": resources});
        let status = json!({"phase": "Running", "containerStatuses": [function], "conditions": conditions});
        serde_json::from_value(json!({"metadata": {"name": "davit-1"}, "status": status})).unwrap()
    }

    fn before(conditions: Value) -> Pod {
        pod(json!({"memory": "512Mi", "cpu": "1"}), json!({"memory": "512Mi", "cpu": "50m"}), conditions)
    }

    #[test]
    fn it_is_done_when_the_kubelet_says_that_the_container_has_everything() {
        let wanted = resources(1_024, 2_000);
        assert_eq!(progress(&before(json!([])), &wanted), Progress::UnderWay);
        let at_it = json!([{"type": "PodResizeInProgress", "status": "True"}]);
        assert_eq!(progress(&before(at_it), &wanted), Progress::UnderWay);
        let (limits, requests) =
            (json!({"memory": "1Gi", "cpu": "2"}), json!({"memory": "1Gi", "cpu": "100m"}));
        assert_eq!(progress(&pod(limits.clone(), requests, json!([])), &wanted), Progress::Done);
        let half = pod(limits, json!({"memory": "512Mi", "cpu": "50m"}), json!([]));
        assert_eq!(progress(&half, &wanted), Progress::UnderWay);
        let nothing = pod(json!(null), json!(null), json!([]));
        assert_eq!(
            progress(&nothing, &wanted),
            Progress::UnderWay,
            "a kubelet that says nothing has not done it"
        );
    }

    #[test]
    fn what_will_not_be_is_told_from_what_takes_time() {
        let wanted = resources(1_024, 2_000);
        let said = |kind: &str, reason: &str, message: &str| {
            before(json!([{"type": kind, "status": "True", "reason": reason, "message": message}]))
        };
        let late = said("PodResizePending", "Deferred", "Node didn't have enough resource: memory");
        assert!(matches!(progress(&late, &wanted), Progress::PutOff(why) if why.contains("memory")));
        let never = said("PodResizePending", "Infeasible", "Node didn't have enough capacity: memory");
        assert!(matches!(progress(&never, &wanted), Progress::NoRoom(why) if why.contains("capacity")));
        let failed =
            said("PodResizeInProgress", "Error", "cannot decrease memory limits: below current usage");
        assert!(matches!(progress(&failed, &wanted), Progress::Failed(why) if why.contains("usage")));
        let mut over = before(json!([]));
        over.status.as_mut().unwrap().phase = Some("Failed".into());
        assert!(matches!(progress(&over, &wanted), Progress::Failed(_)));
    }

    #[test]
    fn a_cluster_without_it_is_told_from_a_pod_that_is_gone() {
        let said = |code: u16, message: &str| {
            let status = Status { code, message: message.into(), ..Status::default() };
            refusal(&kube::Error::Api(Box::new(status)), "davit-1")
        };
        for (code, message, wanted) in [
            (404, "the server could not find the requested resource", (true, Some(REFUSED))),
            (404, r#"pods "davit-1" not found"#, (true, None)),
            (
                403,
                r#"pods "davit-1" is forbidden: User "x" cannot patch resource "pods/resize""#,
                (true, Some(REFUSED)),
            ),
            (403, r#"pods "davit-1" is forbidden: exceeded quota: few"#, (true, Some(FULL))),
            (405, "the server does not allow this method", (true, Some(REFUSED))),
            (422, "Pod is invalid: memory limits cannot be decreased", (true, None)),
            (409, "the object has been modified", (true, None)),
            (503, "apiserver is shutting down", (false, None)),
            (500, "etcdserver: request timed out", (false, None)),
        ] {
            assert_eq!(said(code, message), wanted, "{code} {message}");
        }
        let (rest, time) = (Rest::default(), Duration::from_secs(60));
        assert!(!rest.is_now());
        rest.begin(time);
        assert!(rest.is_now());
    }
}
