//! Where content lies when it is not in Postgres: a bucket of an S3-compatible store, or a folder that all processes share.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use davit_api::ArtifactUploadId;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use crate::{RegistryError, Result};

/// For one request, its body included; content is at most some hundred MiB.
const REQUEST: Duration = Duration::from_secs(120);
/// For a connection to the store.
const CONNECT: Duration = Duration::from_secs(5);
/// For one request and its repeats.
const PATIENCE: Duration = Duration::from_secs(30);
/// Repeats of one request.
const REPEATS: usize = 3;

/// An object store that keeps the content of artifacts. Clones are the same.
#[derive(Clone)]
pub struct ContentStore {
    pub(super) objects: Arc<dyn ObjectStore>,
    prefix: Path,
    url: Arc<str>,
}

/// Prints the address, which holds no secret: keys come from the environment.
impl std::fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// `s3://bucket/prefix`, with endpoint, region and keys from the `AWS_` variables that every client of S3 reads; or
/// `file:///folder`, which must be there.
impl FromStr for ContentStore {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must be s3://bucket/prefix or file:///folder")?;
        let (objects, prefix): (Arc<dyn ObjectStore>, &str) = match scheme {
            "s3" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                (Arc::new(bucket_of(bucket)?), prefix)
            }
            "file" if rest.starts_with('/') => {
                let folder = LocalFileSystem::new_with_prefix(rest).map_err(|e| e.to_string())?;
                (Arc::new(folder.with_fsync(true)), "")
            }
            _ => return Err("must be s3://bucket/prefix or file:///folder".into()),
        };
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|e| e.to_string())?;
        Ok(Self { objects, prefix, url: url.into() })
    }
}

fn bucket_of(name: &str) -> Result<impl ObjectStore, String> {
    if name.is_empty() || name.contains(['@', ':', '?', '#']) {
        return Err("s3:// is followed by the name of a bucket; keys are read from the environment".into());
    }
    let retry = RetryConfig {
        max_retries: REPEATS,
        retry_timeout: PATIENCE,
        backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
    };
    let options = ClientOptions::new().with_timeout(REQUEST).with_connect_timeout(CONNECT);
    // A store on the own machine or in the own network often has no certificate; whoever writes http:// means it.
    let plain = std::env::var("AWS_ENDPOINT_URL").is_ok_and(|endpoint| endpoint.starts_with("http://"));
    AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_client_options(options)
        .with_allow_http(plain)
        .with_retry(retry)
        .build()
        .map_err(|e| e.to_string())
}

impl ContentStore {
    /// Writes, reads and removes a small object: what is wrong with rights or address should be said at the start.
    pub async fn probe(&self) -> Result<()> {
        let path = self.path(&format!("probe-{}", ArtifactUploadId::new()));
        self.objects.put(&path, PutPayload::from_static(b"davit")).await.map_err(away)?;
        let read = self.objects.get(&path).await.map_err(away)?.bytes().await.map_err(away);
        self.remove(&path).await?;
        match read?.as_ref() {
            b"davit" => Ok(()),
            _ => Err(RegistryError::Unavailable(
                "the object store: gives other bytes than it was given".into(),
            )),
        }
    }

    /// Where the content of an upload lies, as it is kept in the registry: below the prefix, which may change.
    pub(super) fn name(upload: ArtifactUploadId) -> String {
        format!("artifacts/{upload}")
    }

    /// The whole path of a name.
    pub(super) fn path(&self, name: &str) -> Path {
        self.prefix.parts().chain(Path::from(name).parts()).collect()
    }

    /// Removes an object; one that is not there is removed.
    pub(super) async fn remove(&self, path: &Path) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(away(error)),
        }
    }
}

/// What went wrong at the store. It is for the log; a client is told that the registry is not available.
pub(super) fn away(error: object_store::Error) -> RegistryError {
    RegistryError::Unavailable(format!("the object store: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process has one; the binary installs it at its start.
    fn with_tls() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }

    #[test]
    fn addresses_are_checked_and_what_is_wrong_is_said() {
        with_tls();
        let folder = tempfile::tempdir().unwrap();
        let here = format!("file://{}", folder.path().display());
        assert!(here.parse::<ContentStore>().is_ok());
        assert!("s3://bucket/some/prefix".parse::<ContentStore>().is_ok());
        for wrong in [
            "bucket",
            "s3://",
            "s3://key:secret@bucket",
            "gs://bucket",
            "file://relative",
            "file:///no/such/folder",
            "s3://b/a//b",
        ] {
            assert!(wrong.parse::<ContentStore>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn objects_lie_below_the_prefix() {
        with_tls();
        let store: ContentStore = "s3://bucket/some/prefix/".parse().unwrap();
        assert_eq!(store.path("artifacts/x").as_ref(), "some/prefix/artifacts/x");
        assert_eq!(
            "s3://bucket".parse::<ContentStore>().unwrap().path("artifacts/x").as_ref(),
            "artifacts/x"
        );
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_written_to_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store: ContentStore = format!("file://{}", folder.path().display()).parse().unwrap();
        store.probe().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("artifacts")).map_or(0, Iterator::count), 0);
        folder.close().unwrap();
        std::fs::write(store.url.strip_prefix("file://").unwrap(), "a file, no folder").unwrap();
        let error = store.probe().await.unwrap_err().to_string();
        assert!(error.contains("object store"), "{error}");
        std::fs::remove_file(store.url.strip_prefix("file://").unwrap()).unwrap();
    }
}
