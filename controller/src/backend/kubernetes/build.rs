//! One build in one pod: files go in, and what it left comes out, over the link to its agent. The pod is removed however it
//! ends; a crash of davit leaves it to the collector, which knows the label, and to its own deadline.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use davit_link::{BuildOrder, Builder, LinkError};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use tokio::sync::mpsc;

use super::{ContainerId, KubernetesBackend, pod, state};
use crate::backend::{BackendError, BuildOutcome, BuildRequest, Role};
use crate::probe;

const CONNECT: Duration = Duration::from_secs(5);
/// Files on their way to or from the pod.
const CARRY: Duration = Duration::from_secs(300);
/// Longest line that is passed on, in characters.
const LINE_CHARS: usize = 4_096;

/// Runs `request` to its end.
pub(super) async fn run(
    backend: &KubernetesBackend,
    request: BuildRequest,
    log: mpsc::Sender<String>,
) -> Result<BuildOutcome, BackendError> {
    let image = backend.images.of_digest(&request.image)?;
    let name = pod::new_name(backend.frame.installation, Role::Builder);
    let secret = backend.secret(request.id);
    let made = pod::builder_pod(&backend.frame, &request, name.clone(), image, &secret);
    let params = PostParams::default();
    let made = backend.ask("create", "pods", backend.api.create(&params, &made)).await?;
    backend.pods.made(made);
    let mut guard = RemoveOnDrop { api: backend.api.clone(), name: Some(name.clone()) };
    let container = ContainerId(name);
    let outcome = steps(backend, &container, &request, log).await;
    guard.name = None;
    backend.stop_inner(&container).await?;
    outcome
}

async fn steps(
    backend: &KubernetesBackend,
    container: &ContainerId,
    request: &BuildRequest,
    log: mpsc::Sender<String>,
) -> Result<BuildOutcome, BackendError> {
    let ready = probe::wait_ready(backend, request.id, container).await;
    let place = ready.map_err(|why| BackendError::Refused(format!("the builder: {why}")))?;
    let mut builder = Builder::connect(&place, Instant::now() + CONNECT).await.map_err(carrying)?;
    let host = |e: std::io::Error| BackendError::Host(e.to_string());
    let carried = Instant::now() + CARRY;
    let files = [("source.tar", Some(&request.source)), ("deps.tar", request.deps.as_ref())];
    for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path?))) {
        builder.put(name, File::open(path).map_err(host)?, carried).await.map_err(carrying)?;
    }
    if let Some(pem) = &request.ca_bundle {
        let file = in_a_file(pem).map_err(host)?;
        builder.put("ca-bundle.crt", file, carried).await.map_err(carrying)?;
    }
    let order = BuildOrder { env: request.env.iter().cloned().collect() };
    let deadline = Instant::now() + request.limits.wall;
    let (send, receive) = mpsc::channel(64);
    let (built, ()) = tokio::join!(
        async {
            let built = builder.run(&order, &send, deadline).await;
            drop(send);
            built
        },
        relay(receive, log)
    );
    let built = match built {
        Ok(built) => built,
        Err(LinkError::Deadline) => return Err(BackendError::Deadline("the build")),
        Err(LinkError::Closed) => return ended(backend, container),
        Err(error) => return Err(carrying(error)),
    };
    let (exit_code, out_of_memory) = (i64::from(built.exit_code), built.out_of_memory);
    let mut deps_written = false;
    if exit_code == 0 {
        let limits = &request.limits;
        let left = fetch(&mut builder, "out/bundle.tar", &request.bundle_out, limits.bundle_bytes).await?;
        left.then_some(()).ok_or_else(|| BackendError::BadOutput("the build left no bundle".into()))?;
        // A cache that is absent or too large costs time at the next build, nothing else.
        let deps = fetch(&mut builder, "out/deps.tar", &request.deps_out, limits.deps_bytes);
        deps_written = deps.await.unwrap_or(false);
    }
    Ok(BuildOutcome { exit_code, out_of_memory, deps_written })
}

/// Passes lines on as the build's log takes them.
async fn relay(mut from: mpsc::Receiver<String>, to: mpsc::Sender<String>) {
    while let Some(line) = from.recv().await {
        let line: String =
            line.trim_end_matches(['\n', '\r']).chars().filter(|c| *c != '\0').take(LINE_CHARS).collect();
        // Who does not listen any more still wants the build.
        let _ = to.send(line).await;
    }
}

async fn fetch(builder: &mut Builder, name: &str, to: &Path, limit: u64) -> Result<bool, BackendError> {
    match builder.get(name, to, limit, Instant::now() + CARRY).await {
        Ok(there) => Ok(there),
        Err(LinkError::Protocol(why)) if why.contains("is larger than") => Err(BackendError::BadOutput(why)),
        Err(error) => Err(carrying(error)),
    }
}

/// The connection is gone: the pod says why.
fn ended(backend: &KubernetesBackend, container: &ContainerId) -> Result<BuildOutcome, BackendError> {
    let sentence = backend.pods.get(&container.0).map(|pod| state::sentence(&pod)).unwrap_or_default();
    if sentence.contains("OOMKilled") {
        return Ok(BuildOutcome { exit_code: 137, out_of_memory: true, deps_written: false });
    }
    Err(BackendError::Refused(format!("the builder ended before the build: {sentence}")))
}

fn carrying(error: LinkError) -> BackendError {
    match error {
        LinkError::Deadline => BackendError::Deadline("carrying files to or from the builder"),
        other => BackendError::Unavailable(format!("the builder: {other}")),
    }
}

/// A file without a name that holds this.
fn in_a_file(content: &[u8]) -> std::io::Result<File> {
    use std::io::{Seek as _, Write as _};
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Removes the builder when whoever waited for it does not any more.
struct RemoveOnDrop {
    api: Api<Pod>,
    name: Option<String>,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let api = self.api.clone();
        runtime.spawn(async move {
            let params = DeleteParams::default().grace_period(super::END_SECONDS);
            if let Err(error) = api.delete(&name, &params).await {
                tracing::warn!(%error, "cannot remove a builder; the collector will");
            }
        });
    }
}
