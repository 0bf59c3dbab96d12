//! The agent for users' own images: taken out of a runtime image, in which it always is, and laid on this host, from
//! where it is mounted into containers. So it is the same one that every other function has, wherever davit's own
//! images came from.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use davit_api::InstallationId;

use super::{ANSWER, BackendError, Failed, short, spec, tarball, within};

/// Larger ones are something else.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const ITEM: Duration = Duration::from_secs(30);
/// The runtime image that is looked into first: the smallest.
const FIRST: &str = "davit/runtime-provided:latest";

pub(super) struct Agents {
    docker: Docker,
    folder: PathBuf,
    /// Of the container that is made, and never started, to copy from. It has no label, since whoever looks after
    /// containers would take it for a stray one; its name is this installation's alone.
    name: String,
    making: tokio::sync::Mutex<()>,
}

impl Agents {
    pub(super) fn new(docker: Docker, state: &Path, installation: InstallationId) -> Self {
        let name = format!("davit-{}-agent", short(installation));
        // The engine resolves paths from its own working directory.
        let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
        Self { docker, folder: state.join("agents"), name, making: tokio::sync::Mutex::new(()) }
    }

    /// The agent's path on this host.
    pub(super) async fn path(&self) -> Result<PathBuf, BackendError> {
        let image = self.image().await?;
        let path = self.folder.join(image.trim_start_matches("sha256:"));
        if path.is_file() {
            return Ok(path);
        }
        let _one = self.making.lock().await;
        if !path.is_file() {
            self.take(&image, &path).await?;
        }
        Ok(path)
    }

    /// The id of the runtime image to take it from.
    async fn image(&self) -> Result<String, BackendError> {
        match within(ANSWER, "looking at an image", self.docker.inspect_image(FIRST)).await {
            Ok(found) if found.id.is_some() => return Ok(found.id.unwrap_or_default()),
            Ok(_) | Err(Failed::Gone(_)) => {}
            Err(failed) => return Err(failed.into()),
        }
        let filters = std::collections::HashMap::from([("label", vec!["davit.runtime"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let listed = within(ANSWER, "listing images", self.docker.list_images(Some(options))).await?;
        let named = listed.into_iter().filter(|image| {
            image.repo_tags.iter().any(|tag| tag.starts_with("davit/runtime-") && tag.ends_with(":latest"))
        });
        named.map(|image| image.id).min().ok_or_else(|| {
            BackendError::BadImage(
                "an image of your own needs davit's agent, which comes from a runtime image, and there is none on this \
                 host; make one with `scripts/images.sh provided` and deploy again"
                    .into(),
            )
        })
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
        // Containers that run have theirs open.
        for old in std::fs::read_dir(&self.folder).map_err(host)?.flatten().filter(|old| old.path() != to) {
            let _ = std::fs::remove_file(old.path());
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
