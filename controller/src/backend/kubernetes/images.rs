//! Names of images, references that nodes fetch by, and digests. davit's own images are those that the configuration
//! names; a user's own is known by `repository@sha256:…`, since there is no engine here that would know it by less.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{ImageName, RuntimeName};
use parking_lot::Mutex;

use super::config::Config;
use super::distribution::{Asker, Said, Unsaid};
use crate::backend::{BackendError, ImageId, RuntimeImage};
use crate::registry_login::Logins;

/// How long a tag is taken to lead where it led.
const TAG: Duration = Duration::from_secs(60);
/// How long an image is taken to be in its registry, or not.
const THERE: Duration = Duration::from_secs(600);
/// Images that are remembered.
const REMEMBERED: usize = 256;
/// The label that says that some instances shall always wait.
const ALWAYS_WARM: &str = "davit.runtime";

/// The images that the configuration names.
pub(super) struct Images {
    config: Config,
    asker: Asker,
    /// Where tags led, and when.
    tags: Mutex<HashMap<String, (String, Instant)>>,
    /// Whether `repository@digest` was there, and when that was so.
    there: Mutex<HashMap<String, (bool, Instant)>>,
    /// Labels, by digest: what has one digest is one image.
    labels: Mutex<HashMap<String, HashMap<String, String>>>,
    /// The repositories of digests that were asked for.
    repositories: Mutex<HashMap<String, String>>,
    /// The runtimes' images as of the last round.
    runtimes: Mutex<Vec<RuntimeImage>>,
}

/// What a name in davit's words stands for here.
#[derive(Debug, PartialEq, Eq)]
enum Meant<'a> {
    /// What the configuration names for a runtime, or its builder.
    Current(&'a ImageName),
    /// A certain image of a runtime.
    Pinned(&'a ImageName, &'a str),
    /// A user's own.
    Own(&'a str),
    /// The configuration has nothing of that name.
    Nothing,
}

fn meant<'a>(config: &'a Config, name: &'a str) -> Meant<'a> {
    let of_runtime =
        |name: &str| RuntimeName::of_image(name).and_then(|runtime| config.runtimes.get(&runtime));
    if let Some((current, digest)) = RuntimeName::split_pinned(name) {
        return of_runtime(&current).map_or(Meant::Nothing, |image| Meant::Pinned(image, digest));
    }
    let builder = || {
        let runtime = name.strip_prefix("davit/build-")?.strip_suffix(":latest")?.parse().ok()?;
        config.builders.get(&runtime)
    };
    match of_runtime(name).or_else(builder) {
        Some(image) => Meant::Current(image),
        None if name.contains("@sha256:") => Meant::Own(name),
        None => Meant::Nothing,
    }
}

impl Images {
    /// With what opens the registries of davit's own images.
    pub(super) fn new(config: Config, logins: Logins) -> Self {
        let asker = Asker::new(logins, &config.plain_http_registries);
        Self {
            config,
            asker,
            tags: Mutex::default(),
            there: Mutex::default(),
            labels: Mutex::default(),
            repositories: Mutex::default(),
            runtimes: Mutex::default(),
        }
    }

    /// See [`crate::backend::Backend::resolve`].
    pub(super) async fn resolve(&self, name: &str) -> Result<ImageId, BackendError> {
        match meant(&self.config, name) {
            Meant::Current(image) => {
                let digest = self.current(image).await.map_err(|why| unreached(image, &why))?;
                Ok(ImageId(digest))
            }
            Meant::Pinned(image, digest) => {
                self.note(image, digest);
                // The configured one is taken to be there; what was before may have been cleared away.
                if image.digest() == Some(digest) || self.is_there(&image.at(digest)).await {
                    Ok(ImageId(digest.to_owned()))
                } else {
                    Err(BackendError::NoImage(name.to_owned()))
                }
            }
            Meant::Own(reference) => Ok(ImageId(reference.to_owned())),
            Meant::Nothing => Err(BackendError::NotConfigured(name.to_owned())),
        }
    }

    /// What a node fetches for a pool key's image: by digest, so that a pod runs what was judged.
    pub(super) fn reference(&self, name: &str, id: &ImageId) -> Result<String, BackendError> {
        match meant(&self.config, name) {
            Meant::Current(image) | Meant::Pinned(image, _) => Ok(image.at(&id.0)),
            Meant::Own(_) => Ok(id.0.clone()),
            Meant::Nothing => Err(BackendError::NotConfigured(name.to_owned())),
        }
    }

    /// What a node fetches for a digest that was resolved before.
    pub(super) fn of_digest(&self, id: &ImageId) -> Result<String, BackendError> {
        let repository = self.repositories.lock().get(&id.0).cloned();
        let repository = repository.ok_or_else(|| BackendError::NotConfigured(id.0.clone()))?;
        Ok(format!("{repository}@{}", id.0))
    }

    /// Whether an image is the one that its runtime has now.
    pub(super) async fn is_current(&self, name: &str, id: &ImageId) -> bool {
        match meant(&self.config, name) {
            Meant::Current(_) => true,
            Meant::Pinned(image, _) => self.current(image).await.is_ok_and(|digest| digest == id.0),
            Meant::Own(_) | Meant::Nothing => false,
        }
    }

    /// See [`crate::backend::Backend::runtime_images`]: as of the last round, for whoever asks has no time for registries.
    pub(super) fn runtimes(&self) -> Vec<RuntimeImage> {
        self.runtimes.lock().clone()
    }

    /// Asks the registries about the runtimes' images, again and again.
    pub(super) async fn keep_asking(self: Arc<Self>) {
        loop {
            self.ask_about_runtimes().await;
            tokio::time::sleep(TAG).await;
        }
    }

    /// One round. An image whose registry does not say is left out, and the others go on.
    async fn ask_about_runtimes(&self) {
        let asked = self.config.runtimes.iter().map(|(runtime, image)| async move {
            match self.current(image).await {
                Ok(digest) => {
                    let (name, id) = (runtime.image(), ImageId(digest));
                    let always_warm = matches!(self.label(&id, ALWAYS_WARM).await, Ok(Some(_)));
                    Some(RuntimeImage { name, id, always_warm })
                }
                Err(why) => {
                    tracing::warn!(%runtime, %image, %why, "cannot tell which image a runtime has");
                    None
                }
            }
        });
        let images = futures_util::future::join_all(asked).await;
        *self.runtimes.lock() = images.into_iter().flatten().collect();
    }

    /// See [`crate::backend::Backend::image_label`].
    pub(super) async fn label(&self, id: &ImageId, label: &str) -> Result<Option<String>, BackendError> {
        if let Some(labels) = self.labels.lock().get(&id.0) {
            return Ok(labels.get(label).cloned());
        }
        let Ok(reference) = self.of_digest(id) else { return Ok(None) };
        let said: Said = self.asker.about(&reference).await.map_err(|why| {
            BackendError::Unavailable(format!("the image registry does not say what {reference} is: {why}"))
        })?;
        let labels = said.config.config.labels;
        let found = labels.get(label).cloned();
        remember(&self.labels, id.0.clone(), labels);
        Ok(found)
    }

    /// The digest that a configured image has now: its own, or the one that its tag leads to.
    async fn current(&self, image: &ImageName) -> Result<String, Unsaid> {
        if let Some(digest) = image.digest() {
            self.note(image, digest);
            return Ok(digest.to_owned());
        }
        let name = image.full();
        let known = self.tags.lock().get(&name).cloned();
        if let Some((digest, at)) = &known
            && at.elapsed() < TAG
        {
            return Ok(digest.clone());
        }
        let digest = match self.asker.digest(&name).await {
            Ok(digest) => digest,
            // A registry that is away does not stop what is known.
            Err(Unsaid::Unreached(why)) => match known {
                Some((digest, _)) => digest,
                None => return Err(Unsaid::Unreached(why)),
            },
            Err(why) => return Err(why),
        };
        self.note(image, &digest);
        remember(&self.tags, name, (digest.clone(), Instant::now()));
        Ok(digest)
    }

    /// Whether an image is in its registry. One that does not answer is taken to have it: its nodes may.
    async fn is_there(&self, reference: &str) -> bool {
        if let Some((there, at)) = self.there.lock().get(reference)
            && at.elapsed() < THERE
        {
            return *there;
        }
        let there = !matches!(self.asker.digest(reference).await, Err(Unsaid::Absent));
        remember(&self.there, reference.to_owned(), (there, Instant::now()));
        there
    }

    fn note(&self, image: &ImageName, digest: &str) {
        remember(&self.repositories, digest.to_owned(), image.repository().to_owned());
    }
}

fn remember<T>(map: &Mutex<HashMap<String, T>>, key: String, value: T) {
    let mut map = map.lock();
    if map.len() >= REMEMBERED {
        map.clear();
    }
    map.insert(key, value);
}

fn unreached(image: &ImageName, why: &Unsaid) -> BackendError {
    match why {
        Unsaid::Unreached(why) => {
            BackendError::Unavailable(format!("the registry of {image} is not reached: {why}"))
        }
        why => BackendError::Refused(format!(
            "of {image} its registry says: {why}; push it, or name another in DAVIT_KUBERNETES_CONFIG"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::SMALL;
    use super::*;

    const DIGEST: &str = "sha256:84008a41e51615a49fc9966191ff91509e3c40b939176e643fd50a5c2196b8f8";
    const REPOSITORY: &str = "registry.test:5000/davit/runtime-python3.13";

    fn images() -> Images {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Images::new(Config::parse(SMALL).unwrap(), Logins::None)
    }

    #[tokio::test]
    async fn names_of_davits_own_lead_to_what_the_configuration_says() {
        let images = images();
        let id = images.resolve("davit/runtime-python3.13:latest").await.unwrap();
        assert_eq!(id.0, DIGEST);
        let pinned = format!("davit/runtime-python3.13@{DIGEST}");
        assert_eq!(images.resolve(&pinned).await, Ok(id.clone()));
        assert_eq!(images.reference(&pinned, &id), Ok(format!("{REPOSITORY}@{DIGEST}")));
        assert!(images.is_current(&pinned, &id).await);
        let before = ImageId(format!("sha256:{}", "0".repeat(64)));
        assert!(!images.is_current(&pinned, &before).await);
        assert_eq!(images.reference(&pinned, &before), Ok(format!("{REPOSITORY}@{}", before.0)));
    }

    #[tokio::test]
    async fn what_it_does_not_name_is_said_to_be_missing_there() {
        for name in ["davit/runtime-node20:latest", "davit/build-go:latest", "davit/runtime-node20@sha256:aa"]
        {
            let error = images().resolve(name).await.unwrap_err();
            assert!(error.to_string().contains("configuration"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_users_image_is_its_repository_and_digest() {
        let (images, name) = (images(), format!("registry.test/team/app@{DIGEST}"));
        let id = images.resolve(&name).await.unwrap();
        assert_eq!(images.reference(&name, &id), Ok(name.clone()));
        assert!(!images.is_current(&name, &id).await, "it has no agent of its own");
    }
}
