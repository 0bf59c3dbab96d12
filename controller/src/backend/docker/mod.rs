//! Docker, by its own socket. Names are random and unique (an engine may hold a name after its container is
//! gone); what belongs to us is known by label alone.

mod agents;
mod build;
mod dirs;
mod dockerfile;
mod fetch;
pub mod images;
mod kept;
mod lines;
mod network;
mod sharing;
mod tarball;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use davit_api::{Digest, InstallationId, InstanceId, NetworkClass, RuntimeName};
use davit_link::Place;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use self::agents::Agents;
use self::dirs::Dirs;
use self::sharing::Sharing;
use super::image::{FetchRequest, HadImage, ImageBuildRequest, KeptImage};
use super::spec::{self, Common, Mounts, OwnImage};
use super::{
    Backend, BackendError, BuildOutcome, BuildRequest, ContainerId, ImageId, LABEL_INSTALLATION,
    LABEL_INSTANCE, LABEL_ROLE, Life, Observed, Reply, Role, RuntimeImage, StartRequest, short,
};

/// No single answer of the engine is waited for longer, not even on a disk that is busy.
const ANSWER: Duration = Duration::from_secs(60);
const LAST_WORDS: usize = 20;

/// Where the engine is and what belongs to this installation.
#[derive(Debug, Clone)]
pub struct DockerSettings {
    /// davit's state directory, absolute.
    pub state_dir: PathBuf,
    /// Labels everything that is created.
    pub installation: InstallationId,
    /// Whether containers may share code on this host; where they cannot, they do not.
    pub share_code: bool,
}

/// A connected engine.
pub struct DockerBackend {
    docker: Docker,
    common: Common,
    dirs: Dirs,
    sharing: Sharing,
    network: network::Network,
    agents: Agents,
}

impl DockerBackend {
    /// Connects to the engine at `DOCKER_HOST` or the usual socket, and agrees on a version of its interface.
    pub async fn connect(settings: DockerSettings) -> Result<Self, BackendError> {
        let docker = Docker::connect_with_defaults().map_err(|e| BackendError::Unavailable(e.to_string()))?;
        let docker = docker.with_timeout(ANSWER);
        let docker =
            within(Duration::from_secs(10), "connecting to the engine", docker.negotiate_version()).await?;
        let network = network::Network::new(docker.clone(), settings.installation);
        let common = Common {
            installation: settings.installation,
            network: network.name().to_owned(),
            max_open_files: dirs::max_open_files(),
        };
        let dirs = Dirs::create(&settings.state_dir.join("instances"))?;
        let sharing = Sharing::open(&settings.state_dir, settings.share_code);
        let agents = Agents::new(docker.clone(), &settings.state_dir, settings.installation);
        Ok(Self { docker, common, dirs, sharing, network, agents })
    }

    /// Removes everything that this installation created in the engine and on the host's firewall.
    pub async fn uninstall(&self) -> Result<(), BackendError> {
        let found = self.observe().await?;
        let removals = found.iter().map(|seen| self.stop(&seen.container, seen.instance));
        let mut removals = futures_util::stream::iter(removals).buffer_unordered(4);
        while let Some(removed) = removals.next().await {
            removed?;
        }
        drop(removals);
        self.agents.tidy().await?;
        self.sharing.close()?;
        self.network.remove().await
    }

    async fn create(&self, role: Role, spec: ContainerCreateBody) -> Result<ContainerId, BackendError> {
        let name = format!(
            "davit-{}-{}-{:016x}",
            short(self.common.installation),
            role.as_str(),
            rand::random::<u64>()
        );
        let image = spec.image.clone().unwrap_or_default();
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let created =
            within(ANSWER, "creating a container", self.docker.create_container(Some(options), spec)).await;
        match created {
            Ok(answer) => Ok(ContainerId(answer.id)),
            Err(Failed::Gone(_)) => Err(BackendError::NoImage(image)),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn run(&self, id: &ContainerId) -> Result<(), BackendError> {
        Ok(within(ANSWER, "starting a container", self.docker.start_container(&id.0, None)).await?)
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), BackendError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match within(ANSWER, "removing a container", self.docker.remove_container(&id.0, Some(options))).await
        {
            // Gone already, or somebody else's removal is on its way.
            Ok(()) | Err(Failed::Gone(_) | Failed::Conflict(_)) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn start_inner(&self, request: StartRequest) -> Result<ContainerId, BackendError> {
        if request.key.network == NetworkClass::Egress {
            self.network.ensure().await?;
        }
        let own = if request.key.is_own_image() { Some(self.own_image(&request.image).await?) } else { None };
        let agent = self.agents.beside(&request).await?;
        let shared = self.dirs.make(request.instance)?;
        if let Some(own) = own {
            let spec = spec::own_image_container(&self.common, &request, &shared, &own);
            let started = self.start_spec(request.role, spec).await;
            if started.is_err() {
                let _ = self.remove_dirs(request.instance);
            }
            return started;
        }
        let task = self.sharing.make(request.instance);
        let agent = agent.as_deref();
        let start = async |task: Option<&Path>| {
            let mounts = Mounts { shared: &shared, task, agent };
            self.start_spec(request.role, spec::function_container(&self.common, &request, mounts)).await
        };
        let mut started = start(task.as_deref()).await;
        if let (Err(refused @ BackendError::Refused(why)), Some(_)) = (&started, &task)
            && why.contains("mount")
        {
            let again = start(None).await;
            if again.is_ok() {
                self.sharing.give_up(refused);
                let _ = self.sharing.remove(request.instance);
            }
            started = again;
        }
        if started.is_err() {
            let _ = self.remove_dirs(request.instance);
        }
        started
    }

    /// What the container of a user's own image needs besides what its key says.
    async fn own_image(&self, image: &ImageId) -> Result<OwnImage, BackendError> {
        Ok(OwnImage { facts: self.image_facts(&image.0).await?, agent: self.agents.path().await? })
    }

    async fn start_spec(&self, role: Role, spec: ContainerCreateBody) -> Result<ContainerId, BackendError> {
        let id = self.create(role, spec).await?;
        match self.run(&id).await {
            Ok(()) => Ok(id),
            Err(error) => {
                let _ = self.remove(&id).await;
                // The network can vanish under us when somebody prunes; the next start makes it anew.
                self.network.forget();
                Err(error)
            }
        }
    }

    /// The mount point first: a folder without one is what a collector looks for.
    fn remove_dirs(&self, instance: InstanceId) -> Result<(), BackendError> {
        self.sharing.remove(instance)?;
        self.dirs.remove(instance)
    }

    async fn observe_inner(&self) -> Result<Vec<Observed>, BackendError> {
        let label = format!("{LABEL_INSTALLATION}={}", self.common.installation);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = within(ANSWER, "listing containers", self.docker.list_containers(Some(options))).await?;
        Ok(listed.into_iter().filter_map(observed).collect())
    }

    async fn resolve_inner(&self, image: &str) -> Result<ImageId, BackendError> {
        // What the engine knows as `name@digest` is something else: a registry's name for an image.
        let reference = RuntimeName::split_pinned(image).map_or(image, |(_, id)| id);
        let found = image_id(&self.docker, reference).await?;
        found.map(ImageId).ok_or_else(|| BackendError::NoImage(image.to_owned()))
    }

    async fn image_label_inner(&self, image: &ImageId, label: &str) -> Result<Option<String>, BackendError> {
        let found = within(ANSWER, "looking at an image", self.docker.inspect_image(&image.0)).await?;
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(labels.get(label).cloned())
    }

    async fn runtime_images_inner(&self) -> Result<Vec<RuntimeImage>, BackendError> {
        let filters = HashMap::from([("reference", vec!["davit/runtime-*:latest"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let listed = within(ANSWER, "listing images", self.docker.list_images(Some(options))).await?;
        let images = listed.into_iter().flat_map(|image| {
            let (id, always_warm) = (ImageId(image.id), image.labels.contains_key("davit.runtime"));
            // The others may be names that keep it.
            let names = image.repo_tags.into_iter().filter(|name| RuntimeName::of_image(name).is_some());
            names.map(move |name| RuntimeImage { name, id: id.clone(), always_warm })
        });
        Ok(images.collect())
    }

    async fn life_inner(&self, id: &ContainerId) -> Result<Life, BackendError> {
        match within(ANSWER, "looking at a container", self.docker.inspect_container(&id.0, None)).await {
            Ok(found) if found.state.as_ref().and_then(|s| s.running) == Some(true) => Ok(Life::Running),
            Ok(_) => Ok(Life::Ended),
            Err(Failed::Gone(_)) => Ok(Life::Gone),
            Err(failed) => Err(failed.into()),
        }
    }

    async fn last_words_inner(&self, id: &ContainerId) -> Result<Vec<String>, BackendError> {
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&LAST_WORDS.to_string()).build();
        let mut stream = std::pin::pin!(self.docker.logs(&id.0, Some(options)));
        let mut words = Vec::new();
        while let Ok(Some(item)) = tokio::time::timeout(Duration::from_secs(5), stream.next()).await {
            let Ok(output) = item else { break };
            words.extend(text(&output).lines().map(str::to_owned));
            if words.len() > 4 * LAST_WORDS {
                break;
            }
        }
        let surplus = words.len().saturating_sub(LAST_WORDS);
        words.drain(..surplus);
        Ok(words)
    }
}

impl Backend for DockerBackend {
    fn observe(&self) -> Reply<'_, Vec<Observed>> {
        self.observe_inner().boxed()
    }
    fn resolve(&self, image: &str) -> Reply<'_, ImageId> {
        let image = image.to_owned();
        async move { self.resolve_inner(&image).await }.boxed()
    }
    fn image_label(&self, image: &ImageId, label: &'static str) -> Reply<'_, Option<String>> {
        let image = image.clone();
        async move { self.image_label_inner(&image, label).await }.boxed()
    }
    fn runtime_images(&self) -> Reply<'_, Vec<RuntimeImage>> {
        self.runtime_images_inner().boxed()
    }
    fn start(&self, request: StartRequest) -> Reply<'_, ContainerId> {
        self.start_inner(request).boxed()
    }
    fn stop(&self, container: &ContainerId, instance: Option<InstanceId>) -> Reply<'_, ()> {
        let container = container.clone();
        async move {
            self.remove(&container).await?;
            instance.map_or(Ok(()), |instance| self.remove_dirs(instance))
        }
        .boxed()
    }
    fn life(&self, container: &ContainerId) -> Reply<'_, Life> {
        let container = container.clone();
        async move { self.life_inner(&container).await }.boxed()
    }
    fn ready(&self, instance: InstanceId, _: &ContainerId) -> Reply<'_, Option<Place>> {
        // A look at a directory: it costs microseconds, where asking the engine costs milliseconds.
        std::future::ready(self.dirs.ready(instance).map(|socket| socket.map(Place::Socket))).boxed()
    }
    fn last_words(&self, container: &ContainerId) -> Reply<'_, Vec<String>> {
        let container = container.clone();
        async move { self.last_words_inner(&container).await }.boxed()
    }
    fn build(&self, request: BuildRequest, log: mpsc::Sender<String>) -> Reply<'_, BuildOutcome> {
        build::run(self, request, log).boxed()
    }
    fn fetch_image(&self, request: FetchRequest, log: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        async move { self.fetch(&request, &log).await }.boxed()
    }
    fn build_image(&self, request: ImageBuildRequest, log: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        async move { self.build_dockerfile(&request, &log).await }.boxed()
    }
    fn architecture(&self) -> Reply<'_, String> {
        self.engine_architecture().boxed()
    }
    fn keep_image(&self, image: &ImageId) -> Reply<'_, ()> {
        let image = image.clone();
        async move { self.keep(&image).await }.boxed()
    }
    fn kept_images(&self) -> Reply<'_, Vec<KeptImage>> {
        self.list_kept().boxed()
    }
    fn drop_image(&self, kept: KeptImage) -> Reply<'_, ()> {
        async move { self.untag(&kept.name).await }.boxed()
    }
    fn leftover_dirs(&self, age: Duration) -> Result<Vec<InstanceId>, BackendError> {
        self.dirs.list(age)
    }
    fn remove_dir(&self, instance: InstanceId) -> Result<(), BackendError> {
        self.remove_dirs(instance)
    }
    fn share_code(&self, instance: InstanceId, digest: Digest, bundle: std::fs::File) -> Reply<'_, bool> {
        self.sharing.share(instance, digest, bundle).map(Ok).boxed()
    }
}

/// The id of the image of that name or id, if it is here.
async fn image_id(docker: &Docker, reference: &str) -> Result<Option<String>, BackendError> {
    match within(ANSWER, "looking at an image", docker.inspect_image(reference)).await {
        Ok(found) => Ok(found.id),
        Err(Failed::Gone(_)) => Ok(None),
        Err(failed) => Err(failed.into()),
    }
}

fn observed(summary: ContainerSummary) -> Option<Observed> {
    use ContainerSummaryStateEnum as State;
    let labels = summary.labels.unwrap_or_default();
    let created = u64::try_from(summary.created.unwrap_or(0)).unwrap_or(0);
    Some(Observed {
        container: ContainerId(summary.id?),
        instance: labels.get(LABEL_INSTANCE).and_then(|text| text.parse().ok()),
        role: labels.get(LABEL_ROLE).and_then(|text| Role::from_label(text)),
        // `created` is a start on its way; a container stuck there is caught by its row's age.
        running: matches!(summary.state, Some(State::RUNNING | State::CREATED | State::PAUSED)),
        status: summary.status.unwrap_or_default(),
        created: SystemTime::UNIX_EPOCH + Duration::from_secs(created),
    })
}

fn text(output: &LogOutput) -> String {
    String::from_utf8_lossy(match output {
        LogOutput::StdErr { message }
        | LogOutput::StdOut { message }
        | LogOutput::StdIn { message }
        | LogOutput::Console { message } => message,
    })
    .into_owned()
}

/// An engine's refusal, with the two kinds that callers treat as answers kept apart.
#[derive(Debug)]
enum Failed {
    Gone(String),
    Conflict(String),
    Other(BackendError),
}

impl From<Failed> for BackendError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Gone(message) | Failed::Conflict(message) => Self::Refused(message),
            Failed::Other(error) => error,
        }
    }
}

fn classify(error: EngineError) -> Failed {
    match error {
        EngineError::DockerResponseServerError { status_code: 404, message } => Failed::Gone(message),
        EngineError::DockerResponseServerError { status_code: 409, message } => Failed::Conflict(message),
        EngineError::DockerResponseServerError { message, .. } => {
            Failed::Other(BackendError::Refused(message))
        }
        EngineError::RequestTimeoutError => Failed::Other(BackendError::Deadline("the container engine")),
        other => Failed::Other(BackendError::Unavailable(other.to_string())),
    }
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(classify),
        Err(_) => Err(Failed::Other(BackendError::Deadline(what))),
    }
}
