//! Users' own images: their registries are asked what they are, with the credentials of whoever deploys and no others, and
//! what they say is noted in the ConfigMap that owns the pods. Nodes fetch them, and a later controller starts them
//! without those credentials.

use std::collections::BTreeMap;
use std::time::Duration;

use davit_api::ImageName;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use oci_client::Reference;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::config::Config;
use super::distribution::{Asker, Said, Unsaid};
use super::errors::{Asked, failed};
use crate::backend::image::{FetchRequest, HadImage, ImageFacts, KeptImage};
use crate::backend::{BackendError, ImageId};

const ANSWER: Duration = Duration::from_secs(15);
/// What keys of notes begin with; others in the ConfigMap are somebody else's.
const NOTE: &str = "image-";
/// Longest note, in bytes: a ConfigMap has room for 1 MiB.
const NOTE_BYTES: usize = 16 * 1024;

/// A note about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    image: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    folder: String,
    volumes: Vec<String>,
}

/// Users' images as far as they are known.
pub(super) struct OwnImages {
    api: Api<ConfigMap>,
    config: Config,
    /// Notes by the image's id.
    noted: Mutex<BTreeMap<String, Note>>,
}

impl OwnImages {
    /// Notes are in the configuration's owner.
    pub(super) fn new(api: Api<ConfigMap>, config: Config) -> Self {
        Self { api, config, noted: Mutex::default() }
    }

    /// See [`crate::backend::Backend::fetch_image`].
    pub(super) async fn fetch(
        &self,
        request: FetchRequest,
        log: &mpsc::Sender<String>,
    ) -> Result<HadImage, BackendError> {
        let FetchRequest { image, logins, limits } = request;
        let opens = logins.of(image.host()).is_some();
        let name = whole(&image)?;
        let asker = Asker::new(logins, &self.config.plain_http_registries);
        let asked = tokio::time::timeout(limits.wall, asker.about(&name.whole())).await;
        let said = asked.map_err(|_| BackendError::Deadline("asking for the image"))?;
        let said = said.map_err(|why| refused(&image, name.registry(), opens, &why))?;
        let pinned = format!("{}/{}@{}", name.registry(), name.repository(), said.digest);
        let _ = log.send(format!("image: {pinned}")).await;
        let had = HadImage { facts: facts(pinned.clone(), said), repo_digest: Some(pinned) };
        self.keep(&had.facts).await?;
        Ok(had)
    }

    /// What is known of one, by its id.
    pub(super) async fn facts(&self, id: &ImageId) -> Result<ImageFacts, BackendError> {
        if !self.noted.lock().contains_key(&id.0) {
            self.read().await?;
        }
        let note = self.noted.lock().get(&id.0).cloned();
        let note = note.ok_or_else(|| {
            BackendError::BadImage(format!(
                "image: what {} starts is not on record any more; deploy the function again",
                id.0
            ))
        })?;
        Ok(ImageFacts {
            id: id.clone(),
            os: "linux".into(),
            architecture: architecture().into(),
            size: 0,
            entrypoint: note.entrypoint,
            cmd: note.cmd,
            folder: note.folder,
            volumes: note.volumes,
        })
    }

    /// All that are kept.
    pub(super) async fn kept(&self) -> Result<Vec<KeptImage>, BackendError> {
        self.read().await?;
        let noted = self.noted.lock();
        Ok(noted.keys().map(|image| KeptImage { name: key(image), id: ImageId(image.clone()) }).collect())
    }

    /// Forgets one.
    pub(super) async fn forget(&self, kept: &KeptImage) -> Result<(), BackendError> {
        self.patch(json!({ kept.name.as_str(): null })).await?;
        self.noted.lock().remove(&kept.id.0);
        Ok(())
    }

    async fn keep(&self, facts: &ImageFacts) -> Result<(), BackendError> {
        let note = Note {
            image: facts.id.0.clone(),
            entrypoint: facts.entrypoint.clone(),
            cmd: facts.cmd.clone(),
            folder: facts.folder.clone(),
            volumes: facts.volumes.clone(),
        };
        if self.noted.lock().get(&note.image) == Some(&note) {
            return Ok(());
        }
        let text = serde_json::to_string(&note).map_err(|e| BackendError::Host(e.to_string()))?;
        if text.len() > NOTE_BYTES {
            return Err(BackendError::BadImage(format!(
                "image: its ENTRYPOINT, CMD, WORKDIR and VOLUMEs have more than {} KiB",
                NOTE_BYTES >> 10
            )));
        }
        self.patch(json!({ key(&note.image): text })).await?;
        self.noted.lock().insert(note.image.clone(), note);
        Ok(())
    }

    async fn patch(&self, data: Value) -> Result<(), BackendError> {
        let patch = Patch::Merge(json!({ "data": data }));
        let params = PatchParams::default();
        let patching = self.api.patch(&self.config.owner, &params, &patch);
        let asked = Asked { verb: "patch", resource: "configmaps", namespace: &self.config.namespace };
        let patched = tokio::time::timeout(ANSWER, patching).await;
        patched
            .map_err(|_| BackendError::Deadline("noting an image"))?
            .map(drop)
            .map_err(|e| failed(asked, e))
    }

    async fn read(&self) -> Result<(), BackendError> {
        let asked = Asked { verb: "get", resource: "configmaps", namespace: &self.config.namespace };
        let read = tokio::time::timeout(ANSWER, self.api.get(&self.config.owner)).await;
        let map = read
            .map_err(|_| BackendError::Deadline("reading notes about images"))?
            .map_err(|e| failed(asked, e))?;
        let notes = map.data.unwrap_or_default();
        let notes = notes.iter().filter(|(key, _)| key.starts_with(NOTE));
        let notes = notes.filter_map(|(_, text)| serde_json::from_str::<Note>(text).ok());
        *self.noted.lock() = notes.map(|note| (note.image.clone(), note)).collect();
        Ok(())
    }
}

/// The key of the note about an image.
fn key(image: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(image.as_bytes()).into();
    hash[..20].iter().fold(NOTE.to_owned(), |key, byte| format!("{key}{byte:02x}"))
}

/// A name with its registry and tag. Here is no engine that would have it under less.
fn whole(image: &ImageName) -> Result<Reference, BackendError> {
    let full = image.full();
    full.parse().map_err(|e| BackendError::BadImage(format!("image: {full}: {e}")))
}

fn facts(id: String, said: Said) -> ImageFacts {
    let run = said.config.config;
    ImageFacts {
        id: ImageId(id),
        os: said.config.os,
        architecture: said.config.architecture,
        // Registries know what is sent, which is less than what is unpacked.
        size: said.size,
        entrypoint: run.entrypoint,
        cmd: run.cmd,
        folder: run.working_dir,
        volumes: run.volumes.into_keys().collect(),
    }
}

/// The processor that images have to be for: this process's own, since it runs in the cluster, too.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn refused(image: &ImageName, registry: &str, opens: bool, why: &Unsaid) -> BackendError {
    let sentence = match why {
        Unsaid::Absent => format!("image: there is no {image} in {registry}"),
        Unsaid::Closed if opens => {
            format!("image: {registry} does not give {image}; image_secret does not open it")
        }
        Unsaid::Closed => {
            format!("image: {registry} does not give {image}; name the secret that opens it: image_secret")
        }
        Unsaid::OtherProcessor => {
            format!("image: {image} is not there for this cluster's processor, linux/{}", architecture())
        }
        Unsaid::Unreached(why) => format!("image: {registry} is not reached: {why}"),
    };
    BackendError::BadImage(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_keys_that_a_config_map_takes() {
        let key = key("registry.test:5000/team/app@sha256:aa");
        assert!(key.starts_with("image-") && key.len() == 46, "{key}");
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    }

    #[test]
    fn a_name_without_a_host_means_the_default_registry() {
        let name = |text: &str| whole(&text.parse().unwrap()).unwrap();
        assert_eq!(name("app").repository(), "library/app");
        assert_ne!(name("app").registry(), "");
        assert_eq!(name("registry.test:5000/a/b:1").whole(), "registry.test:5000/a/b:1");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let image: ImageName = "registry.test/app:1".parse().unwrap();
        let said = |opens, why| refused(&image, "registry.test", opens, &why).to_string();
        assert!(said(false, Unsaid::Closed).contains("name the secret"));
        assert!(said(true, Unsaid::Closed).contains("does not open it"));
        assert!(said(false, Unsaid::Absent).contains("there is no registry.test/app:1"));
        assert!(said(false, Unsaid::Unreached("connection refused".into())).contains("is not reached"));
    }
}
