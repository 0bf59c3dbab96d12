//! What the controller asks of a container engine: a few verbs, so that another engine is another file and
//! a test needs none. Reconcile, the build loop and the collector call it; nothing else does.

pub mod docker;
#[cfg(test)]
pub mod fake;
pub mod image;
pub mod kubernetes;
pub mod spec;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use davit_api::{Digest, InstallationId, InstanceId, NetworkClass, PoolKey, RuntimeName};
use davit_link::Place;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use self::image::{FetchRequest, HadImage, ImageBuildRequest, KeptImage};

/// Label with the installation's id: what does not carry it is never touched.
pub const LABEL_INSTALLATION: &str = "davit.installation";
/// Label with the instance's id.
pub const LABEL_INSTANCE: &str = "davit.instance";
/// Label with the container's [`Role`].
pub const LABEL_ROLE: &str = "davit.role";

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Serves calls; has a row in the registry.
    Instance,
    /// A new version's first start, before anybody may call it; or kept warm for one.
    Smoke,
    /// Turns a source archive into a bundle.
    Builder,
}

impl Role {
    /// The word in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Smoke => "smoke",
            Self::Builder => "builder",
        }
    }
    /// The role that a label names.
    pub fn from_label(text: &str) -> Option<Self> {
        [Self::Instance, Self::Smoke, Self::Builder].into_iter().find(|role| role.as_str() == text)
    }
}

/// The engine's own id of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Ids of engines are 64 digits, of which twelve tell them apart; names of pods are read whole.
        let short = if self.0.len() == 64 { &self.0[..12] } else { &self.0 };
        f.write_str(short)
    }
}

/// The content id of an image, such as `sha256:…`; unlike its name it never moves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageId(pub String);

/// A runtime's image as its name leads to it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The name, such as `davit/runtime-python3.13:latest`.
    pub name: String,
    /// What it leads to.
    pub id: ImageId,
    /// Whether some instances shall wait even before anybody has deployed for it: the image says so.
    pub always_warm: bool,
}

/// A container of this installation, as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The engine's id.
    pub container: ContainerId,
    /// Its instance; `None` when the label is missing or not an id.
    pub instance: Option<InstanceId>,
    /// What it is for; `None` when the label says nothing known.
    pub role: Option<Role>,
    /// Whether its process runs, or is about to.
    pub running: bool,
    /// The engine's sentence about it, such as `Exited (137) 2 seconds ago`.
    pub status: String,
    /// When it was created.
    pub created: SystemTime,
}

/// How a container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// There is none.
    Gone,
    /// Its process has ended.
    Ended,
    /// Its process runs.
    Running,
    /// It has not started yet, for this reason: it waits for a machine with room, or for its image.
    Waiting(String),
    /// It cannot start, for this reason, and waiting will not help: its image cannot be had.
    Hopeless(String),
}

/// How giving a container another size came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resized {
    /// It has the size.
    Done,
    /// It is as it was, for this reason.
    Refused(String),
}

/// A container to start from a runtime image.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRequest {
    /// Which instance it will be; also names its directory.
    pub instance: InstanceId,
    /// Instance or smoke.
    pub role: Role,
    /// The image, by content id.
    pub image: ImageId,
    /// Its limits and what it can reach.
    pub key: PoolKey,
}

/// A build to run.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Labels the builder container, so that a leftover one is recognised.
    pub id: InstanceId,
    /// The runtime image that holds the build program.
    pub image: ImageId,
    /// Uncompressed source archive on this host.
    pub source: PathBuf,
    /// Dependencies that an earlier build left, on this host.
    pub deps: Option<PathBuf>,
    /// Certificates that the builder shall trust.
    pub ca_bundle: Option<Vec<u8>>,
    /// Environment of the build program.
    pub env: Vec<(String, String)>,
    /// What it can reach.
    pub network: NetworkClass,
    /// Where to put the bundle on this host.
    pub bundle_out: PathBuf,
    /// Where to put the dependencies on this host, when the build leaves any.
    pub deps_out: PathBuf,
    /// Bounds.
    pub limits: BuildLimits,
}

/// Bounds of a build.
#[derive(Debug, Clone, Copy)]
pub struct BuildLimits {
    /// Memory in MiB.
    pub memory_mb: u32,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
    /// From start to exit.
    pub wall: Duration,
    /// Largest bundle, in bytes.
    pub bundle_bytes: u64,
    /// Largest dependency cache kept, in bytes; a larger one is left behind.
    pub deps_bytes: u64,
}

/// How a build that ran to its end came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOutcome {
    /// Exit code of the build program; 0 is success.
    pub exit_code: i64,
    /// Whether the kernel ended it for using too much memory.
    pub out_of_memory: bool,
    /// Whether `deps_out` was written.
    pub deps_written: bool,
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The engine does not answer.
    #[error("container engine does not answer: {0}")]
    Unavailable(String),
    /// The image is not on this host.
    #[error("{}", no_image(.0))]
    NoImage(String),
    /// The operator's configuration names no such image of davit's.
    #[error("{}", not_configured(.0))]
    NotConfigured(String),
    /// The engine refused.
    #[error("container engine refused: {0}")]
    Refused(String),
    /// It took longer than allowed.
    #[error("{0} took too long")]
    Deadline(&'static str),
    /// Something on this host failed.
    #[error("{0}")]
    Host(String),
    /// A user's own image that cannot be had, or not be used here; the sentence is for the function's owner.
    #[error("{0}")]
    BadImage(String),
    /// A build left more than may be taken over, or nothing at all.
    #[error("{0}")]
    BadOutput(String),
}

/// What is missing, and how it comes here.
fn no_image(image: &str) -> String {
    let pinned = RuntimeName::split_pinned(image).map(|(name, _)| name);
    let name = pinned.as_deref().unwrap_or(image);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let runtime = ["davit/runtime-", "davit/build-"].iter().find_map(|prefix| name.strip_prefix(prefix));
    match runtime {
        Some(runtime) if RuntimeName::SHIPPED.contains(&runtime) => {
            format!(
                "the image {name} of the runtime {runtime} is not on this host; make it with `scripts/images.sh {runtime}` and deploy again"
            )
        }
        Some(runtime) => {
            let shipped = RuntimeName::SHIPPED.join(", ");
            format!(
                "runtime: there is no {runtime}, that is no image {name} on this host; davit comes with {shipped}"
            )
        }
        None => format!("the image {image} is not on this host"),
    }
}

/// The same for a cluster, where the operator says which images there are.
fn not_configured(image: &str) -> String {
    let name = image.split([':', '@']).next().unwrap_or(image);
    let runtime = ["davit/runtime-", "davit/build-"].iter().find_map(|prefix| name.strip_prefix(prefix));
    format!(
        "runtime: the configuration of this davit names no image of {} (runtimes and builders in DAVIT_KUBERNETES_CONFIG)",
        runtime.unwrap_or(image)
    )
}

fn no_own_images() -> BackendError {
    BackendError::Refused("functions with an image of their own are not for this engine".into())
}

/// What every verb answers.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, BackendError>>;

/// A container engine.
pub trait Backend: Send + Sync + 'static {
    /// Every container of this installation, dead ones included.
    fn observe(&self) -> Reply<'_, Vec<Observed>>;
    /// The content id behind an image's name, or of one certain image of a runtime; [`BackendError::NoImage`] when it is
    /// not here.
    fn resolve(&self, image: &str) -> Reply<'_, ImageId>;
    /// The value of an image's label; `None` when it has no such label.
    fn image_label(&self, _image: &ImageId, _label: &'static str) -> Reply<'_, Option<String>> {
        std::future::ready(Ok(None)).boxed()
    }
    /// The runtime images on this host that have their runtime's name.
    fn runtime_images(&self) -> Reply<'_, Vec<RuntimeImage>>;
    /// Creates and starts a container with its own empty directory.
    fn start(&self, request: StartRequest) -> Reply<'_, ContainerId>;
    /// Ends a container and removes all traces of it; one that is gone already is a success.
    fn stop(&self, container: &ContainerId, instance: Option<InstanceId>) -> Reply<'_, ()>;
    /// How a container is doing.
    fn life(&self, container: &ContainerId) -> Reply<'_, Life>;
    /// Where a container's agent takes its one gateway; `None` until its runtime is warm. What will run inside may write to nothing
    /// of this host's afterwards. Asked every few milliseconds, so it must cost little.
    fn ready(&self, instance: InstanceId, container: &ContainerId) -> Reply<'_, Option<Place>>;
    /// Whether this engine changes the sizes of containers that run, as far as it is known now.
    fn resizes(&self) -> bool {
        false
    }
    /// Gives a container that runs the memory and CPU of another key, and waits, for seconds at most, until it has them. An
    /// error leaves it open which it has.
    fn resize(&self, _container: &ContainerId, _key: &PoolKey) -> Reply<'_, Resized> {
        std::future::ready(Ok(Resized::Refused("this engine changes no sizes".into()))).boxed()
    }
    /// The last lines that a container's first process printed.
    fn last_words(&self, container: &ContainerId) -> Reply<'_, Vec<String>>;
    /// Runs a build; its lines go to `log` as they come. Removes the builder in every case.
    fn build(&self, request: BuildRequest, log: mpsc::Sender<String>) -> Reply<'_, BuildOutcome>;
    /// Has a user's image here, kept under a name of davit's; lines about its way go to `log`.
    fn fetch_image(&self, _request: FetchRequest, _log: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        std::future::ready(Err(no_own_images())).boxed()
    }
    /// Builds a user's image and keeps it; its lines go to `log` as they come.
    fn build_image(&self, _request: ImageBuildRequest, _log: mpsc::Sender<String>) -> Reply<'_, HadImage> {
        std::future::ready(Err(no_own_images())).boxed()
    }
    /// The processor that images have to be for, in the engine's words.
    fn architecture(&self) -> Reply<'_, String> {
        std::future::ready(Err(no_own_images())).boxed()
    }
    /// Gives an image a name of this installation's, by which it stays when its own goes to another one.
    fn keep_image(&self, _image: &ImageId) -> Reply<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }
    /// Names of this installation that keep images.
    fn kept_images(&self) -> Reply<'_, Vec<KeptImage>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
    /// Takes such a name away; the image goes with its last name. One that is in use stays, which is no error.
    fn drop_image(&self, _kept: KeptImage) -> Reply<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }
    /// Shows a container that runs the bundle as its code, read-only, where code is shared on this host. False when
    /// the container has to unpack the bundle itself. The caller has checked that `digest` is the bundle's.
    fn share_code(&self, _instance: InstanceId, _digest: Digest, _bundle: std::fs::File) -> Reply<'_, bool> {
        std::future::ready(Ok(false)).boxed()
    }
    /// Every instance that has had a directory on this host for longer than `age`.
    fn leftover_dirs(&self, _age: Duration) -> Result<Vec<InstanceId>, BackendError> {
        Ok(Vec::new())
    }
    /// Removes the directory of an instance that has no container.
    fn remove_dir(&self, _instance: InstanceId) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Eight hex digits that tell this installation's networks and names from another's. The tail of the id, since
/// the head is a time stamp that neighbours share.
pub fn short(installation: InstallationId) -> String {
    let text = installation.0.simple().to_string();
    text[text.len() - 8..].to_owned()
}
