//! Runtime images as files: for machines that cannot build them.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use davit_api::RuntimeName;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::io::ReaderStream;

use super::{ANSWER, within};
use crate::backend::BackendError;

/// The runtime images of an engine.
pub struct RuntimeImages(Docker);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RuntimeImage {
    /// Which runtime it holds.
    pub runtime: RuntimeName,
    /// Its digest.
    pub id: String,
    /// Bytes, those that it shares with others included.
    pub size: u64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl RuntimeImages {
    /// Connects to the engine at `DOCKER_HOST` or the usual socket.
    pub async fn connect() -> Result<Self, BackendError> {
        let docker = Docker::connect_with_defaults().map_err(|e| BackendError::Unavailable(e.to_string()))?;
        Ok(Self(within(ANSWER, "connecting to the engine", docker.negotiate_version()).await?))
    }

    /// All of them, by name.
    pub async fn list(&self) -> Result<Vec<RuntimeImage>, BackendError> {
        let filters = HashMap::from([("reference", vec!["davit/runtime-*:latest", "davit/build-*:latest"])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let found = within(ANSWER, "listing images", self.0.list_images(Some(options))).await?;
        let mut images = Vec::new();
        for image in found {
            for runtime in image.repo_tags.iter().filter_map(|tag| runtime_of(tag)) {
                images.push(RuntimeImage {
                    runtime,
                    id: image.id.clone(),
                    size: u64::try_from(image.size).unwrap_or(0),
                    created_at: DateTime::from_timestamp(image.created, 0).unwrap_or_default(),
                });
            }
        }
        images.sort_by(|a, b| a.runtime.as_str().cmp(b.runtime.as_str()));
        Ok(images)
    }

    /// The images of these runtimes as one archive, piece by piece: what builds them, and what they run in.
    pub fn save(&self, runtimes: &[RuntimeName]) -> impl Stream<Item = Result<Bytes, BackendError>> {
        let tags: BTreeSet<String> = runtimes.iter().flat_map(|r| [r.image(), r.build_image()]).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        self.0.export_images(&tags).map_err(|e| BackendError::Unavailable(e.to_string()))
    }

    /// Loads an archive that [`names_in`] was content with. The tags that it holds move to the new images.
    pub async fn load(&self, archive: &Path) -> Result<(), BackendError> {
        let file = tokio::fs::File::open(archive).await.map_err(|e| BackendError::Host(e.to_string()))?;
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let pieces = ReaderStream::with_capacity(file, 256 * 1024);
        let mut said = std::pin::pin!(self.0.import_image_stream(options, pieces, None));
        while let Some(line) = said.next().await {
            let line = line.map_err(|e| BackendError::Unavailable(e.to_string()))?;
            if let Some(detail) = line.error_detail {
                return Err(BackendError::Refused(detail.message.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

fn runtime_of(tag: &str) -> Option<RuntimeName> {
    let builds = || tag.strip_prefix("davit/build-")?.strip_suffix(":latest")?.parse().ok();
    RuntimeName::of_image(tag).or_else(builds)
}

/// Which runtimes an archive of images holds, read from its `manifest.json`; plain or gzip-compressed. An error says
/// what is wrong with it: an archive that would put other images under other names is not for davit to load.
pub fn names_in<'a>(archive: impl Read + 'a) -> Result<Vec<RuntimeName>, String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        repo_tags: Option<Vec<String>>,
    }
    let mut archive = BufReader::new(archive);
    let start = archive.fill_buf().map_err(|e| e.to_string())?;
    let compressed = start.starts_with(&[0x1f, 0x8b]);
    let archive: Box<dyn Read + 'a> =
        if compressed { Box::new(flate2::bufread::MultiGzDecoder::new(archive)) } else { Box::new(archive) };
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries().map_err(|e| e.to_string())? {
        let entry = entry.map_err(|e| format!("it is no archive of images: {e}"))?;
        if entry.path_bytes().as_ref() != b"manifest.json" {
            continue;
        }
        let images: Vec<Image> = serde_json::from_reader(entry.take(1 << 20))
            .map_err(|e| format!("its manifest.json is not readable: {e}"))?;
        let mut names = Vec::new();
        for tag in images.into_iter().flat_map(|image| image.repo_tags.unwrap_or_default()) {
            let name = runtime_of(&tag).ok_or_else(|| {
                format!("it holds {tag}, which is no runtime image; load it with the engine's own tools")
            })?;
            names.push(name);
        }
        if names.is_empty() {
            return Err("it holds no image with a name".into());
        }
        return Ok(names);
    }
    Err("it has no manifest.json, so it is no archive of images".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn only_archives_of_runtime_images_are_let_through() {
        let manifest = |tags: &str| archive(&[("layer.tar", "x"), ("manifest.json", tags)]);
        let good = manifest(
            r#"[{"Config":"c","RepoTags":["davit/runtime-node20:latest"]},{"RepoTags":["davit/runtime-provided:latest"]}]"#,
        );
        let mut small = flate2::read::GzEncoder::new(&good[..], flate2::Compression::fast());
        let mut compressed = Vec::new();
        small.read_to_end(&mut compressed).unwrap();
        for good in [good, compressed] {
            let names: Vec<String> = names_in(&good[..]).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(names, ["node20", "provided"]);
        }
        for (wrong, why) in [
            (
                manifest(r#"[{"RepoTags":["davit/runtime-node20:latest"]},{"RepoTags":["postgres:15"]}]"#),
                "postgres:15",
            ),
            (manifest(r#"[{"RepoTags":null}]"#), "no image"),
            (manifest("{"), "not readable"),
            (archive(&[("a", "b")]), "no manifest.json"),
            (b"not a tar at all".to_vec(), "no"),
        ] {
            let said = names_in(&wrong[..]).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = names_in(&bytes[..]);
        }
    }
}
