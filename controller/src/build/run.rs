//! One attempt at one version, in order: sources, bundle, first start, live.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{Digest, InstanceId, PoolKey};
use davit_registry::{BuildJob, Registry, RegistryError};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

use super::bundle::{self, Bundle};
use super::direct::Direct;
use super::log::BuildLog;
use super::recipe::Recipe;
use super::warm::{Class, Warm};
use super::{ATTEMPTS, Failed, deps, image, prepare, smoke};
use crate::backend::{BackendError, BuildOutcome, BuildRequest, ImageId};
use crate::source::{self, ArchiveLimits, SourceError};
use crate::world::World;

/// Where builds keep their files, below the state directory.
pub(crate) fn workshop(state_dir: &Path) -> PathBuf {
    state_dir.join("build")
}

/// Brings a version to `ready` and `live`, or says why not.
pub(super) async fn run(world: &Arc<World>, job: &BuildJob) -> Result<(), Failed> {
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

async fn steps(world: &Arc<World>, job: &BuildJob, dir: &Path, log: &BuildLog) -> Result<(), Failed> {
    if job.spec.runtime.is_own_image() {
        return image::steps(world, job, dir, log).await;
    }
    let image = world.backend.resolve(&job.spec.runtime.image()).await.map_err(backend)?;
    // The version will always run in this one, whatever has its name tomorrow.
    world.backend.keep_image(&image).await.map_err(backend)?;
    // Both are looked for before anything is done.
    let builder = match job.spec.runtime.build_image() {
        same if same == job.spec.runtime.image() || job.spec.prebuilt => image.clone(),
        other => world.backend.resolve(&other).await.map_err(backend)?,
    };
    let class: Class = (image.clone(), PoolKey::of(&job.spec, &image.0));
    let recipe = match job.spec.prebuilt {
        true => Some(Recipe::default()),
        false => world.recipes.of(world, &builder).await,
    };
    let prepares = recipe.as_ref().is_some_and(|recipe| recipe.prepare.is_some());
    world.spares.want(&class, 1 + usize::from(prepares), world.settings.build.keep_spares);
    // Started before it is needed, beside the build.
    let ahead = Ahead::begin(world, &class);

    let begun = Instant::now();
    let source = unpack_source(world, job, dir).await?;
    let bundle_path = dir.join("bundle.tar");
    let direct = without_builder(world, job, (recipe.as_ref(), &class), (&source, &bundle_path), log).await?;
    if !direct {
        with_builder(world, job, &builder, (source, bundle_path.clone()), log).await?;
    }
    log.say(format!("built in {}", seconds(begun.elapsed()))).await;

    let bundle = accept_bundle(&world.registry, &bundle_path).await?;
    log.flush().await;
    world
        .registry
        .finish_build(job.version_id, bundle.digest, bundle.size, &image.0)
        .await
        .map_err(refused)?;
    first_start(world, job, (&class, ahead), &bundle_path, bundle, log).await
}

/// Packs the source as the image's build program would, where that is all it would do. False when it is not, or when
/// what it takes did not work out: the builder is always right.
pub(super) async fn without_builder(
    world: &Arc<World>,
    job: &BuildJob,
    (recipe, class): (Option<&Recipe>, &Class),
    (source, out): (&Path, &Path),
    log: &BuildLog,
) -> Result<bool, Failed> {
    let Some(recipe) = recipe.cloned() else { return Ok(false) };
    let prepare = recipe.prepare.clone();
    let path = source.to_owned();
    let mut direct = match blocking(move || Direct::judge(&recipe, &path)).await?.map_err(Failed::platform)? {
        Ok(direct) => direct,
        Err(why) => {
            tracing::debug!(version = %job.version_id, why, "a builder is needed");
            return Ok(false);
        }
    };
    if let Some(prepare) = prepare {
        let files = match direct.to_prepare(&prepare).map_err(Failed::platform)? {
            Ok(files) => files,
            Err(why) => {
                tracing::debug!(version = %job.version_id, why, "a builder is needed");
                return Ok(false);
            }
        };
        if !files.is_empty() {
            let prepared = async {
                let warm = world.spares.take(world, class).await.map_err(|e| format!("{e:?}"))?;
                let (added, note) = prepare::run(job, &prepare, warm, files).await?;
                direct.add(added).map(|()| note)
            };
            match prepared.await {
                Ok(Some(note)) => log.say(note).await,
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!(version = %job.version_id, why, "preparing a source failed; a builder does it");
                    return Ok(false);
                }
            }
        }
    }
    let files = direct.files();
    let out = out.to_owned();
    let size = blocking(move || direct.write(&out).and_then(|()| Ok(std::fs::metadata(&out)?.len())));
    let size = size.await?.map_err(Failed::platform)?;
    log.say(format!("bundle: {size} bytes, {files} files")).await;
    Ok(true)
}

pub(super) async fn with_builder(
    world: &World,
    job: &BuildJob,
    image: &ImageId,
    (source, bundle_out): (PathBuf, PathBuf),
    log: &BuildLog,
) -> Result<(), Failed> {
    let cache_key = if job.spec.prebuilt {
        None
    } else {
        let (image, source) = (image.clone(), source.clone());
        blocking(move || deps::key(&image, &source)).await?.map_err(Failed::platform)?
    };
    let deps = match &cache_key {
        Some(key) => cached(world, key, &source.with_file_name("deps.tar")).await,
        None => None,
    };
    let cached = deps.is_some();
    let request = BuildRequest {
        id: InstanceId::new(),
        image: image.clone(),
        deps,
        ca_bundle: world.settings.build.ca_bundle.as_deref().and_then(|path| std::fs::read(path).ok()),
        env: environment(world, job),
        network: world.settings.build.network,
        bundle_out,
        deps_out: source.with_file_name("deps-new.tar"),
        source,
        limits: world.settings.build.limits,
    };
    let deps_path = request.deps_out.clone();
    let outcome = {
        let _errand = world.errands.enter(request.id);
        world.backend.build(request, log.sender()).await.map_err(backend)?
    };
    verdict(&outcome)?;
    if let (Some(key), true, false) = (cache_key, outcome.deps_written, cached) {
        keep(&world.registry, &key, &deps_path).await;
    }
    Ok(())
}

fn environment(world: &World, job: &BuildJob) -> Vec<(String, String)> {
    let mut env = world.settings.build.env.clone();
    env.push(("DAVIT_HANDLER".into(), job.spec.handler.clone()));
    if job.spec.prebuilt {
        env.push(("DAVIT_PREBUILT".into(), "1".into()));
    }
    env
}

/// A warm container on its way while something else is done. One that was not needed is removed.
pub(super) struct Ahead(JoinHandle<Result<Warm, Failed>>);

impl Ahead {
    pub(super) fn begin(world: &Arc<World>, class: &Class) -> Self {
        let (world, class) = (world.clone(), class.clone());
        Self(tokio::spawn(async move { world.spares.take(&world, &class).await }))
    }
    async fn ready(self) -> Result<Warm, Failed> {
        self.0.await.map_err(Failed::platform)?
    }
}

pub(super) async fn first_start(
    world: &Arc<World>,
    job: &BuildJob,
    (class, ahead): (&Class, Ahead),
    path: &Path,
    bundle: Bundle,
    log: &BuildLog,
) -> Result<(), Failed> {
    let resolved = world.registry.resolve_environment(&job.namespace, &job.spec, &world.master_key).await;
    let environment = resolved.map_err(refused)?;
    if !environment.missing.is_empty() {
        let names: Vec<&str> = environment.missing.iter().map(|name| name.as_str()).collect();
        return Err(Failed::User(format!(
            "secrets that are not set: {}; set them with `davit secret set` and deploy again",
            names.join(", ")
        )));
    }
    let mut ahead = Some(ahead);
    let mut attempt = 1;
    loop {
        let started = async {
            let warm = match ahead.take() {
                Some(ahead) => ahead.ready().await?,
                None => world.spares.take(world, class).await?,
            };
            let file = std::fs::File::open(path).map_err(Failed::platform)?;
            smoke::start(
                world,
                job,
                warm,
                smoke::First { environment: environment.clone(), file, bundle },
                log,
            )
            .await
        };
        match started.await {
            Ok(took) => {
                log.say(format!("first start: ready after {} ms", took.as_millis())).await;
                return Ok(());
            }
            // The bundle is recorded by now, so only the start is tried again, never the build.
            Err(Failed::Platform(message)) if attempt < ATTEMPTS => {
                tracing::warn!(attempt, %message, "a first start did not get through; trying again");
                attempt += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(Failed::Platform(message)) => {
                return Err(Failed::User(format!("davit could not start it: {message}")));
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// As people say it: a deploy takes a fraction of a second, or minutes.
pub(super) fn seconds(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

pub(super) async fn unpack_source(world: &World, job: &BuildJob, dir: &Path) -> Result<PathBuf, Failed> {
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

pub(super) async fn accept_bundle(registry: &Registry, path: &Path) -> Result<Bundle, Failed> {
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
        BackendError::NoImage(_)
        | BackendError::NotConfigured(_)
        | BackendError::BadOutput(_)
        | BackendError::BadImage(_) => Failed::User(error.to_string()),
        BackendError::Deadline("the build") => {
            Failed::User("the build took longer than builds may (DAVIT_BUILD_TIMEOUT)".into())
        }
        other => Failed::platform(other),
    }
}

pub(super) fn refused(error: RegistryError) -> Failed {
    match error {
        RegistryError::Refused(error) => Failed::User(error.to_string()),
        other => Failed::platform(other),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(Failed::platform)
}
