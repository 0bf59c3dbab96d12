//! A version's first start, in a container of its own, through the same door as every later one: what cannot
//! start here would not start for a caller either, and never goes live.

use std::time::{Duration, Instant};

use davit_api::{FunctionKind, InstanceId};
use davit_link::{InitRequest, Kind, LinkError, LinkEvent};
use davit_registry::{BuildJob, Environment};
use tokio::sync::mpsc;

use super::Failed;
use super::bundle::Bundle;
use super::log::BuildLog;
use super::run::backend;
use super::warm::Warm;
use crate::world::World;

/// Loading, and unpacking where code is not shared.
const INIT: Duration = Duration::from_secs(60);
/// After the outcome, for output that is still on its way.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a first start needs besides the version itself.
pub(super) struct First {
    pub(super) environment: Environment,
    pub(super) file: std::fs::File,
    pub(super) bundle: Bundle,
}

/// Starts the version in `warm` and waits until it is ready for a call; the container goes with it.
pub(super) async fn start(
    world: &World,
    job: &BuildJob,
    mut warm: Warm,
    first: First,
    log: &BuildLog,
) -> Result<Duration, Failed> {
    let printing = warm.events.take().map(|events| tokio::spawn(print(events, log.clone())));
    let mut request = request(job, &first, warm.instance);
    // As later starts get it, so that what works here works there.
    request.code_mounted = !job.spec.runtime.is_own_image() && warm.link.takes_mounted_code() && {
        let file = first.file.try_clone().map_err(Failed::platform)?;
        world.backend.share_code(warm.instance, first.bundle.digest, file).await.map_err(backend)?
    };
    let begun = Instant::now();
    let files = first.environment.files.iter().map(|(name, contents)| (name.as_str(), contents.as_str()));
    let outcome = match warm.link.give_secret_files(files) {
        Ok(()) => warm.link.init(request, first.file, begun + INIT + Duration::from_secs(5)).await,
        Err(error) => Err(error),
    };
    let took = begun.elapsed();
    drop(warm);
    if let Some(printing) = printing {
        // Its last words may still be on their way.
        let _ = tokio::time::timeout(LAST_WORDS, printing).await;
    }
    match outcome {
        Ok(_) => Ok(took),
        Err(LinkError::Failure(failure)) => {
            let error = failure.error.as_ref().map(|raw| format!("\n{}", raw.get())).unwrap_or_default();
            let hint = if failure.message.contains("not ready") { hint(job) } else { "" };
            Err(Failed::User(format!("the function did not start: {}{hint}{error}", failure.message)))
        }
        Err(LinkError::Deadline) => {
            Err(Failed::User(format!("the function was not ready within {} s{}", INIT.as_secs(), hint(job))))
        }
        Err(LinkError::Closed) => Err(Failed::User(
            "the function did not start: its instance ended, which most often means that it needs more memory".into(),
        )),
        Err(error @ LinkError::Protocol(_)) => Err(Failed::platform(error)),
    }
}

/// What most often is behind an image that never gets ready.
fn hint(job: &BuildJob) -> &'static str {
    match job.spec.kind {
        FunctionKind::Handler if job.spec.runtime.is_own_image() => {
            "; it asks for no events: an image that listens on $PORT is of kind = \"server\""
        }
        FunctionKind::Server if job.spec.runtime.is_own_image() => {
            "; nothing listens on $PORT, which is 8080"
        }
        FunctionKind::Handler | FunctionKind::Server => "",
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
            // Whatever it asks for while it loads is refused, as it would be later.
            LinkEvent::Asked(_) | LinkEvent::Exited(_) | LinkEvent::Leaving => {}
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
        env: first.environment.variables.clone(),
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
        answers_asks: true,
        // It is only tried: nobody will come to debug it.
        debugger: None,
    }
}
