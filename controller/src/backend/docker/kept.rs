//! Names of davit's own for users' images. One leads to each image that a version runs in, so that neither the engine's
//! clean-up nor a user's `docker rmi` takes it away, and so that it goes when no version needs it any more.

use std::collections::HashMap;

use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use davit_api::OWN_REPOSITORY;

use super::{ANSWER, BackendError, DockerBackend, Failed, ImageId, short, within};
use crate::backend::image::{ImageFacts, KeptImage};

/// Hex digits of an id or digest in such a name: more than anybody can guess.
const DIGITS: usize = 40;

impl DockerBackend {
    /// The name that keeps an image, by what it is known by: its id, or a digest of what it is built from.
    pub(super) fn kept_name(&self, kind: &str, hex: &str) -> String {
        let hex = hex.trim_start_matches("sha256:");
        let tag = format!("{}-{kind}-{}", short(self.common.installation), hex.get(..DIGITS).unwrap_or(hex));
        format!("{OWN_REPOSITORY}:{tag}")
    }

    /// Gives an image the name that keeps it.
    pub(super) async fn keep(&self, id: &ImageId) -> Result<(), BackendError> {
        let name = self.kept_name("id", &id.0);
        let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
        let options = TagImageOptionsBuilder::default().repo(OWN_REPOSITORY).tag(tag).build();
        Ok(within(ANSWER, "naming an image", self.docker.tag_image(&id.0, Some(options))).await?)
    }

    /// Takes a name away; the image goes with its last one, unless a container still runs from it.
    pub(super) async fn untag(&self, name: &str) -> Result<(), BackendError> {
        let options = RemoveImageOptionsBuilder::default().build();
        match within(ANSWER, "removing an image", self.docker.remove_image(name, Some(options), None)).await {
            Ok(_) | Err(Failed::Gone(_) | Failed::Conflict(_)) => Ok(()),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Every name of this installation's.
    pub(super) async fn list_kept(&self) -> Result<Vec<KeptImage>, BackendError> {
        let own = format!("{OWN_REPOSITORY}:{}-", short(self.common.installation));
        let filters = HashMap::from([("reference", vec![format!("{own}*")])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let listed = within(ANSWER, "listing images", self.docker.list_images(Some(options))).await?;
        let kept = listed.into_iter().flat_map(|image| {
            let id = ImageId(image.id);
            let names = image.repo_tags.into_iter().filter(|name| name.starts_with(&own));
            names.map(move |name| KeptImage { name, id: id.clone() }).collect::<Vec<_>>()
        });
        Ok(kept.collect())
    }

    /// What an image says about itself; [`BackendError::NoImage`] when it is not here.
    pub(super) async fn image_facts(&self, name: &str) -> Result<ImageFacts, BackendError> {
        self.look(name).await.map(|(facts, _)| facts)
    }

    /// The same, with the names under which registries have it.
    pub(super) async fn look(&self, name: &str) -> Result<(ImageFacts, Vec<String>), BackendError> {
        let found = match within(ANSWER, "looking at an image", self.docker.inspect_image(name)).await {
            Ok(found) => found,
            Err(Failed::Gone(_)) => return Err(BackendError::NoImage(name.to_owned())),
            Err(failed) => return Err(failed.into()),
        };
        let config = found.config.unwrap_or_default();
        let facts = ImageFacts {
            id: ImageId(found.id.ok_or_else(|| BackendError::NoImage(name.to_owned()))?),
            os: found.os.unwrap_or_default(),
            architecture: found.architecture.unwrap_or_default(),
            size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            folder: config.working_dir.unwrap_or_default(),
            volumes: config.volumes.unwrap_or_default(),
        };
        Ok((facts, found.repo_digests.unwrap_or_default()))
    }

    /// The processor of the engine's machine, as images say it.
    pub(super) async fn engine_architecture(&self) -> Result<String, BackendError> {
        let version = within(ANSWER, "asking the engine", self.docker.version()).await?;
        Ok(version.arch.unwrap_or_default())
    }
}
