//! A version's first start, in a container of its own, through the same door as every later one: what cannot
//! start here would not start for a caller either, and never goes live.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use davit_api::{FunctionKind, InstanceId, PoolKey};
use davit_link::{InitRequest, Kind, Link, LinkError, LinkEvent};
use davit_registry::BuildJob;
use tokio::sync::mpsc;

use super::Failed;
use super::bundle::Bundle;
use super::log::BuildLog;
use super::run::backend;
use crate::backend::{ImageId, Role, StartRequest};
use crate::probe::{self, SOCKET};
use crate::world::World;

/// Loading, and unpacking where code is not shared.
const INIT: Duration = Duration::from_secs(60);

/// What a first start needs besides the version itself.
pub(super) struct First {
    pub(super) image: ImageId,
    pub(super) env: BTreeMap<String, String>,
    pub(super) file: std::fs::File,
    pub(super) bundle: Bundle,
}

/// Starts the version, waits until it is ready for a call, and removes it again.
pub(super) async fn start(
    world: &World,
    job: &BuildJob,
    first: First,
    log: &BuildLog,
) -> Result<Duration, Failed> {
    let instance = InstanceId::new();
    // Left in place when this future is dropped: the collector then finds a container nobody is busy with.
    let _errand = world.errands.enter(instance);
    let request =
        StartRequest { instance, role: Role::Smoke, image: first.image.clone(), key: PoolKey::of(&job.spec) };
    let container = world.backend.start(request).await.map_err(backend)?;
    let ready = match probe::wait_ready(&*world.backend, instance, &container).await {
        Ok(()) => init(world, job, instance, first, log).await,
        Err(error) => Err(Failed::Platform(format!("the runtime did not start: {error}"))),
    };
    if let Err(error) = world.backend.stop(&container, Some(instance)).await {
        tracing::warn!(%error, "cannot remove a first start's container");
    }
    ready
}

async fn init(
    world: &World,
    job: &BuildJob,
    instance: InstanceId,
    first: First,
    log: &BuildLog,
) -> Result<Duration, Failed> {
    let socket = world.backend.instance_dir(instance).join(SOCKET);
    let connected = Link::connect(&socket, Instant::now() + Duration::from_secs(5)).await;
    let (link, events) = connected.map_err(Failed::platform)?;
    let printing = tokio::spawn(print(events, log.clone()));
    let mut request = request(job, &first, instance);
    // As later starts get it, so that what works here works there.
    request.code_mounted = link.takes_mounted_code() && {
        let file = first.file.try_clone().map_err(Failed::platform)?;
        world.backend.share_code(instance, first.bundle.digest, file).await.map_err(backend)?
    };
    let begun = Instant::now();
    let outcome = link.init(request, first.file, begun + INIT + Duration::from_secs(5)).await;
    let took = begun.elapsed();
    drop(link);
    // Its last words may still be on their way.
    let _ = tokio::time::timeout(Duration::from_secs(2), printing).await;
    match outcome {
        Ok(_) => Ok(took),
        Err(LinkError::Failure(failure)) => {
            let error = failure.error.as_ref().map(|raw| format!("\n{}", raw.get())).unwrap_or_default();
            Err(Failed::User(format!("the function did not start: {}{error}", failure.message)))
        }
        Err(LinkError::Deadline) => {
            Err(Failed::User(format!("the function was not ready within {} s", INIT.as_secs())))
        }
        Err(LinkError::Closed) => Err(Failed::User(
            "the function did not start: its instance ended, which most often means that it needs more memory".into(),
        )),
        Err(error @ LinkError::Protocol(_)) => Err(Failed::platform(error)),
    }
}

async fn print(mut events: mpsc::Receiver<LinkEvent>, log: BuildLog) {
    while let Some(event) = events.recv().await {
        match event {
            LinkEvent::Log(entries) => {
                for entry in entries {
                    log.say(entry.line).await;
                }
            }
            LinkEvent::Exited(_) => {}
            LinkEvent::Closed => return,
        }
    }
}

fn request(job: &BuildJob, first: &First, instance: InstanceId) -> InitRequest {
    let spec = &job.spec;
    InitRequest {
        function_name: job.function.to_string(),
        version: job.number.to_string(),
        namespace: job.namespace.to_string(),
        kind: match spec.kind {
            FunctionKind::Handler => Kind::Handler,
            FunctionKind::Server => Kind::Server,
        },
        handler: spec.handler.clone(),
        command: spec.command.clone(),
        env: first.env.clone(),
        memory_mb: spec.memory_mb,
        timeout_seconds: spec.timeout_seconds,
        concurrency: spec.concurrency,
        init_timeout_ms: u64::try_from(INIT.as_millis()).unwrap_or(u64::MAX),
        arn: format!("arn:davit:lambda:local:{}:function:{}", job.namespace, job.function),
        log_group: format!("/davit/{}/{}", job.namespace, job.function),
        log_stream: format!("first-start/{instance}"),
        bundle_digest: first.bundle.digest.to_string(),
        bundle_size: first.bundle.size,
        code_mounted: false,
    }
}
