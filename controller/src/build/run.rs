//! One attempt at one version, in order: sources, builder, bundle, first start, live.

use std::path::{Path, PathBuf};

use davit_api::{Digest, InstanceId};
use davit_registry::{BuildJob, Registry, RegistryError};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::bundle::{self, Bundle};
use super::log::BuildLog;
use super::{ATTEMPTS, Failed, deps, smoke};
use crate::backend::{BackendError, BuildOutcome, BuildRequest, ImageId};
use crate::source::{self, ArchiveLimits, SourceError};
use crate::world::World;

/// Where builds keep their files, below the state directory.
pub(crate) fn workshop(state_dir: &Path) -> PathBuf {
    state_dir.join("build")
}

/// Brings a version to `ready` and `live`, or says why not.
pub(super) async fn run(world: &World, job: &BuildJob) -> Result<(), Failed> {
    let parent = workshop(&world.settings.state_dir);
    std::fs::create_dir_all(&parent).map_err(Failed::platform)?;
    let prefix = format!("{}-", job.version_id);
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).map_err(Failed::platform)?;
    let (log, written) = BuildLog::start(world.registry.clone(), job.version_id);
    let outcome = steps(world, job, dir.path(), &log).await;
    drop(log);
    // The lines come before the verdict, so that whoever follows them sees both in order.
    let last = written.await.unwrap_or_default();
    match outcome {
        Ok(()) => {
            world.registry.version_ready_and_live(job.version_id).await.map_err(refused)?;
            Ok(())
        }
        Err(Failed::User(message)) if !last.is_empty() => {
            let lines: Vec<String> =
                last.into_iter().filter(|line| !message.contains(line.as_str())).collect();
            let separator = if lines.is_empty() { "" } else { "\n" };
            Err(Failed::User(format!("{message}{separator}{}", lines.join("\n"))))
        }
        Err(failed) => Err(failed),
    }
}

async fn steps(world: &World, job: &BuildJob, dir: &Path, log: &BuildLog) -> Result<(), Failed> {
    let image = world.backend.resolve(&job.spec.runtime.image()).await.map_err(backend)?;
    let source = unpack_source(world, job, dir).await?;
    let cache_key = {
        let (image, source) = (image.clone(), source.clone());
        blocking(move || deps::key(&image, &source)).await?.map_err(Failed::platform)?
    };
    let deps = match &cache_key {
        Some(key) => cached(world, key, &dir.join("deps.tar")).await,
        None => None,
    };
    let cached = deps.is_some();
    let request = BuildRequest {
        id: InstanceId::new(),
        image: image.clone(),
        source,
        deps,
        ca_bundle: world.settings.build.ca_bundle.as_deref().and_then(|path| std::fs::read(path).ok()),
        env: environment(world, job),
        bundle_out: dir.join("bundle.tar"),
        deps_out: dir.join("deps-new.tar"),
        limits: world.settings.build.limits,
    };
    let (bundle_path, deps_path) = (request.bundle_out.clone(), request.deps_out.clone());
    let outcome = {
        let _errand = world.errands.enter(request.id);
        world.backend.build(request, log.sender()).await.map_err(backend)?
    };
    verdict(&outcome)?;

    let bundle = accept_bundle(&world.registry, &bundle_path).await?;
    if let (Some(key), true, false) = (cache_key, outcome.deps_written, cached) {
        keep(&world.registry, &key, &deps_path).await;
    }
    world
        .registry
        .finish_build(job.version_id, bundle.digest, bundle.size, &image.0)
        .await
        .map_err(refused)?;
    first_start(world, job, image, &bundle_path, bundle, log).await
}

fn environment(world: &World, job: &BuildJob) -> Vec<(String, String)> {
    let mut env = world.settings.build.env.clone();
    env.push(("DAVIT_HANDLER".into(), job.spec.handler.clone()));
    env
}

async fn first_start(
    world: &World,
    job: &BuildJob,
    image: ImageId,
    path: &Path,
    bundle: Bundle,
    log: &BuildLog,
) -> Result<(), Failed> {
    let resolved = world.registry.resolve_environment(&job.namespace, &job.spec, &world.master_key).await;
    let (env, missing) = resolved.map_err(refused)?;
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
        return Err(Failed::User(format!(
            "secrets that are not set: {}; set them with `davit secret set` and deploy again",
            names.join(", ")
        )));
    }
    let mut attempt = 1;
    loop {
        let file = std::fs::File::open(path).map_err(Failed::platform)?;
        let first = smoke::First { image: image.clone(), env: env.clone(), file, bundle };
        match smoke::start(world, job, first, log).await {
            Ok(took) => {
                log.say(format!("first start: ready after {} ms", took.as_millis())).await;
                return Ok(());
            }
            // The bundle is recorded by now, so only the start is tried again, never the build.
            Err(Failed::Platform(message)) if attempt < ATTEMPTS => {
                tracing::warn!(attempt, %message, "a first start did not get through; trying again");
                attempt += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Err(Failed::Platform(message)) => {
                return Err(Failed::User(format!("davit could not start it: {message}")));
            }
            Err(failed) => return Err(failed),
        }
    }
}

async fn unpack_source(world: &World, job: &BuildJob, dir: &Path) -> Result<PathBuf, Failed> {
    let packed = dir.join("source.tar.gz");
    fetch(&world.registry, job.source, &packed).await.map_err(refused)?;
    let clean = dir.join("source.tar");
    let target = clean.clone();
    let checked = blocking(move || {
        let archive = std::io::BufReader::new(std::fs::File::open(packed).map_err(SourceError::Output)?);
        let out = std::io::BufWriter::new(std::fs::File::create(target).map_err(SourceError::Output)?);
        source::sanitise(archive, out, ArchiveLimits::default())
    });
    match checked.await? {
        Ok(_) => Ok(clean),
        Err(error @ SourceError::Output(_)) => Err(Failed::platform(error)),
        Err(error) => Err(Failed::User(error.to_string())),
    }
}

async fn fetch(registry: &Registry, digest: Digest, to: &Path) -> Result<(), RegistryError> {
    let host = |e: std::io::Error| RegistryError::Unavailable(format!("{}: {e}", to.display()));
    let mut reader = registry.open_artifact(digest).await?;
    let mut file = tokio::fs::File::create(to).await.map_err(host)?;
    while let Some(chunk) = reader.next_chunk().await? {
        file.write_all(&chunk).await.map_err(host)?;
    }
    file.flush().await.map_err(host)
}

/// Dependencies of an earlier build. Whatever goes wrong, they can be installed again.
async fn cached(world: &World, key: &str, to: &Path) -> Option<PathBuf> {
    let digest = world.registry.get_cache(key).await.ok().flatten()?;
    match fetch(&world.registry, digest, to).await {
        Ok(()) => Some(to.to_owned()),
        Err(error) => {
            tracing::warn!(%error, "cannot read cached dependencies; installing them again");
            None
        }
    }
}

async fn keep(registry: &Registry, key: &str, path: &Path) {
    let kept = async {
        let path_of_measure = path.to_owned();
        let measured =
            blocking(move || bundle::measure(&path_of_measure)).await?.map_err(Failed::platform)?;
        store(registry, measured.digest, path).await?;
        registry.put_cache(key, measured.digest).await.map_err(refused)
    };
    if let Err(error) = kept.await {
        tracing::warn!(?error, "cannot cache dependencies");
    }
}

async fn accept_bundle(registry: &Registry, path: &Path) -> Result<Bundle, Failed> {
    let checked = path.to_owned();
    let bundle = blocking(move || {
        bundle::check(&checked).map_err(Failed::User)?;
        bundle::measure(&checked).map_err(Failed::platform)
    })
    .await??;
    store(registry, bundle.digest, path).await?;
    Ok(bundle)
}

async fn store(registry: &Registry, digest: Digest, path: &Path) -> Result<(), Failed> {
    if registry.has_artifact(digest).await.map_err(refused)? {
        return Ok(());
    }
    let file = tokio::fs::File::open(path).await.map_err(Failed::platform)?;
    let chunks = tokio_util::io::ReaderStream::with_capacity(file, 1 << 20).boxed();
    registry.put_artifact(digest, chunks).await.map_err(refused)?;
    Ok(())
}

fn verdict(outcome: &BuildOutcome) -> Result<(), Failed> {
    match outcome {
        BuildOutcome { out_of_memory: true, .. } => {
            Err(Failed::User("the build used more memory than builds may (DAVIT_BUILD_MEMORY_MB)".into()))
        }
        BuildOutcome { exit_code: 0, .. } => Ok(()),
        BuildOutcome { exit_code, .. } => {
            Err(Failed::User(format!("the build failed with exit code {exit_code}; its last lines:")))
        }
    }
}

/// What the engine says about a build, as a verdict on whose fault it is.
pub(super) fn backend(error: BackendError) -> Failed {
    match error {
        BackendError::NoImage(_) | BackendError::BadOutput(_) => Failed::User(error.to_string()),
        BackendError::Deadline("the build") => {
            Failed::User("the build took longer than builds may (DAVIT_BUILD_TIMEOUT)".into())
        }
        other => Failed::platform(other),
    }
}

fn refused(error: RegistryError) -> Failed {
    match error {
        RegistryError::Refused(error) => Failed::User(error.to_string()),
        other => Failed::platform(other),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(Failed::platform)
}
