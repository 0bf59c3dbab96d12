//! One build in one builder container: put the sources in, run, relay its lines, fetch what it left. The
//! container is removed however it ends; a crash of davit leaves it to the collector, which knows the label.

use std::time::Duration;

use bollard::body_try_stream;
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, LogsOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::lines::{LINE_CHARS, Lines};
use super::tarball::{self, Content};
use super::{
    BackendError, BuildOutcome, BuildRequest, ContainerId, DockerBackend, Failed, Role, spec, text, within,
};

const UPLOAD: Duration = Duration::from_secs(300);
const ITEM: Duration = Duration::from_secs(30);
/// Between the last line of output and the engine's word about the exit.
const EXIT: Duration = Duration::from_secs(20);

/// Runs `request` to its end.
pub(super) async fn run(
    backend: &DockerBackend,
    request: BuildRequest,
    log: mpsc::Sender<String>,
) -> Result<BuildOutcome, BackendError> {
    backend.network.ensure().await?;
    let id = backend.create(Role::Builder, spec::builder_container(&backend.common, &request)).await?;
    let mut guard = RemoveOnDrop { backend: backend.docker.clone(), id: Some(id.clone()) };
    let outcome = steps(backend, &id, &request, log).await;
    guard.id = None;
    backend.remove(&id).await?;
    outcome
}

async fn steps(
    backend: &DockerBackend,
    id: &ContainerId,
    request: &BuildRequest,
    log: mpsc::Sender<String>,
) -> Result<BuildOutcome, BackendError> {
    let mut files = vec![("source.tar", Content::File(request.source.clone()))];
    files.extend(request.deps.clone().map(|path| ("deps.tar", Content::File(path))));
    files.extend(request.ca_bundle.clone().map(|pem| ("ca-bundle.crt", Content::Bytes(pem))));
    let to_root = UploadToContainerOptionsBuilder::default().path("/").build();
    let body = body_try_stream(tarball::wrap(files));
    within(UPLOAD, "sending the sources", backend.docker.upload_to_container(&id.0, Some(to_root), body))
        .await?;

    let deadline = Instant::now() + request.limits.wall;
    backend.run(id).await?;
    relay(backend, id, deadline, log).await?;
    let (exit_code, out_of_memory) = exit(backend, id, deadline).await?;
    let mut deps_written = false;
    if exit_code == 0 {
        fetch(backend, id, "/davit/out/bundle.tar", &request.bundle_out, request.limits.bundle_bytes)
            .await?
            .then_some(())
            .ok_or_else(|| BackendError::BadOutput("the build left no bundle".into()))?;
        // A cache that is absent or too large costs time at the next build, nothing else.
        let deps = fetch(backend, id, "/davit/out/deps.tar", &request.deps_out, request.limits.deps_bytes);
        deps_written = deps.await.unwrap_or(false);
    }
    Ok(BuildOutcome { exit_code, out_of_memory, deps_written })
}

/// Passes on output as whole lines until the builder closes it.
async fn relay(
    backend: &DockerBackend,
    id: &ContainerId,
    deadline: Instant,
    log: mpsc::Sender<String>,
) -> Result<(), BackendError> {
    let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
    let mut stream = std::pin::pin!(backend.docker.logs(&id.0, Some(options)));
    let mut lines = Lines::default();
    loop {
        let next = tokio::time::timeout_at(deadline, stream.next()).await;
        let Some(item) = next.map_err(|_| BackendError::Deadline("the build"))? else { break };
        let Ok(output) = item else { break };
        for line in lines.take(&text(&output)) {
            let _ = log.send(bounded(&line)).await;
        }
    }
    if let Some(line) = lines.rest() {
        let _ = log.send(bounded(&line)).await;
    }
    Ok(())
}

fn bounded(line: &str) -> String {
    line.trim_end_matches(['\n', '\r']).chars().filter(|c| *c != '\0').take(LINE_CHARS).collect()
}

async fn exit(
    backend: &DockerBackend,
    id: &ContainerId,
    deadline: Instant,
) -> Result<(i64, bool), BackendError> {
    // The log stream may also end because the engine restarted: only its state says that the builder ended.
    loop {
        let found =
            within(ITEM, "looking at the builder", backend.docker.inspect_container(&id.0, None)).await?;
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            return Ok((state.exit_code.unwrap_or(-1), state.oom_killed.unwrap_or(false)));
        }
        if Instant::now() >= deadline + EXIT {
            return Err(BackendError::Deadline("the build"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn fetch(
    backend: &DockerBackend,
    id: &ContainerId,
    from: &str,
    to: &std::path::Path,
    limit: u64,
) -> Result<bool, BackendError> {
    let probe = bollard::query_parameters::ContainerArchiveInfoOptionsBuilder::default().path(from).build();
    match within(
        ITEM,
        "looking for the build's output",
        backend.docker.get_container_archive_info(&id.0, Some(probe)),
    )
    .await
    {
        Ok(_) => {}
        Err(Failed::Gone(_)) => return Ok(false),
        Err(failed) => return Err(failed.into()),
    }
    let options = DownloadFromContainerOptionsBuilder::default().path(from).build();
    let stream = backend.docker.download_from_container(&id.0, Some(options));
    tarball::unwrap_file(stream, to, limit, ITEM).await?;
    Ok(true)
}

/// A build whose future is dropped (shutdown) must not leave its container running.
struct RemoveOnDrop {
    backend: bollard::Docker,
    id: Option<ContainerId>,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            let docker = self.backend.clone();
            runtime.spawn(async move {
                let force =
                    bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).build();
                let _ = docker.remove_container(&id.0, Some(force)).await;
            });
        }
    }
}
