//! The agent for images that have none, or an old one: users' own, and runtime images that only versions from before the
//! last change still run in. It is taken out of a runtime image of now and laid on this host, from where it is mounted
//! into containers. So every function has an agent of this davit, wherever davit's images came from.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use davit_api::{InstallationId, RuntimeName};
use parking_lot::Mutex;

use super::{ANSWER, BackendError, Failed, StartRequest, image_id, short, spec, tarball, within};

/// Larger ones are something else.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const ITEM: Duration = Duration::from_secs(30);
/// How long it is remembered which image has a runtime's name.
const REMEMBERED: Duration = Duration::from_secs(3);
/// Agents on this host, most of them of images that are gone.
const KEPT: usize = 16;
/// The runtime image that is looked into first: the smallest.
const FIRST: &str = "davit/runtime-provided:latest";

pub(super) struct Agents {
    docker: Docker,
    folder: PathBuf,
    /// Of the container that is made, and never started, to copy from. It has no label, since whoever looks after
    /// containers would take it for a stray one; its name is this installation's alone.
    name: String,
    making: tokio::sync::Mutex<()>,
    /// The ids of the images that have runtimes' names, none where there is no such image, and when that was so.
    named: Mutex<HashMap<String, (Option<String>, Instant)>>,
}

impl Agents {
    pub(super) fn new(docker: Docker, state: &Path, installation: InstallationId) -> Self {
        let name = format!("davit-{}-agent", short(installation));
        // The engine resolves paths from its own working directory.
        let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
        Self {
            docker,
            folder: state.join("agents"),
            name,
            making: tokio::sync::Mutex::new(()),
            named: Mutex::default(),
        }
    }

    /// The agent's path on this host, for an image that has none.
    pub(super) async fn path(&self) -> Result<PathBuf, BackendError> {
        let image = self.image().await?;
        self.of_image(&image).await
    }

    /// The same, for a runtime's image that does not have the runtime's name any more; none for one that has.
    pub(super) async fn beside(&self, request: &StartRequest) -> Result<Option<PathBuf>, BackendError> {
        let Some((current, _)) = RuntimeName::split_pinned(&request.key.image) else { return Ok(None) };
        match self.named(&current).await? {
            Some(image) if image != request.image.0 => self.of_image(&image).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn of_image(&self, image: &str) -> Result<PathBuf, BackendError> {
        let path = self.folder.join(image.trim_start_matches("sha256:"));
        if path.is_file() {
            return Ok(path);
        }
        let _one = self.making.lock().await;
        if !path.is_file() {
            self.take(image, &path).await?;
        }
        Ok(path)
    }

    /// The id of the runtime image to take it from.
    async fn image(&self) -> Result<String, BackendError> {
        if let Some(first) = self.named(FIRST).await? {
            return Ok(first);
        }
        let filters = HashMap::from([("label", vec!["davit.runtime"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let listed = within(ANSWER, "listing images", self.docker.list_images(Some(options))).await?;
        let named = listed
            .into_iter()
            .filter(|image| image.repo_tags.iter().any(|tag| RuntimeName::of_image(tag).is_some()));
        named.map(|image| image.id).min().ok_or_else(|| {
            BackendError::BadImage(
                "an image of your own needs davit's agent, which comes from a runtime image, and there is none on this \
                 host; make one with `scripts/images.sh provided` and deploy again"
                    .into(),
            )
        })
    }

    /// The id of the image that has a name now.
    async fn named(&self, name: &str) -> Result<Option<String>, BackendError> {
        if let Some((id, at)) = self.named.lock().get(name)
            && at.elapsed() < REMEMBERED
        {
            return Ok(id.clone());
        }
        let id = image_id(&self.docker, name).await?;
        self.named.lock().insert(name.to_owned(), (id.clone(), Instant::now()));
        Ok(id)
    }

    async fn take(&self, image: &str, to: &Path) -> Result<(), BackendError> {
        let host = |e: std::io::Error| BackendError::Host(format!("{}: {e}", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(host)?;
        self.tidy().await?;
        let options = CreateContainerOptionsBuilder::default().name(&self.name).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            network_disabled: Some(true),
            ..Default::default()
        };
        let making = self.docker.create_container(Some(options), body);
        within(ANSWER, "creating a container", making).await?;
        let part = to.with_extension("part");
        let options = DownloadFromContainerOptionsBuilder::default().path(spec::AGENT).build();
        let stream = self.docker.download_from_container(&self.name, Some(options));
        let taken = tarball::unwrap_file(stream, &part, MOST_BYTES, ITEM).await;
        self.tidy().await?;
        taken.map_err(|error| BackendError::Host(format!("taking the agent out of {image}: {error}")))?;
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).map_err(host)?;
        std::fs::rename(&part, to).map_err(host)?;
        self.keep_few().map_err(host)
    }

    /// Removes the oldest ones. Containers that run have theirs open.
    fn keep_few(&self) -> std::io::Result<()> {
        let mut there = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            there.push((entry.metadata()?.modified()?, entry.path()));
        }
        there.sort();
        for (_, old) in there.iter().rev().skip(KEPT) {
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }

    /// Removes the container to copy from, should one have been left.
    pub(super) async fn tidy(&self) -> Result<(), BackendError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match within(ANSWER, "removing a container", self.docker.remove_container(&self.name, Some(options)))
            .await
        {
            Ok(()) | Err(Failed::Gone(_) | Failed::Conflict(_)) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }
}
