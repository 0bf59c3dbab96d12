//! What image registries say about images (OCI distribution and image specifications): digests, and what an image says
//! about itself. No layer is ever fetched here; nodes do that.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::str::FromStr as _;
use std::task::{Context, Poll};
use std::time::Duration;

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use super::errors::chain;
use crate::registry_login::{Login, Logins};

/// One question to a registry, with all that it takes.
const ANSWER: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(5);
/// Largest configuration of an image that is read, in bytes.
const CONFIG_BYTES: usize = 4 << 20;

/// What an image says about itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Said {
    /// Digest of the image for this processor.
    pub digest: String,
    /// Bytes of its layers as they are sent.
    pub size: u64,
    /// The rest.
    pub config: Config,
}

/// The parts of an image's configuration that davit looks at.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub(super) struct Config {
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// What runs.
    #[serde(default, deserialize_with = "or_nothing")]
    pub config: Run,
}

/// What runs in an image.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Run {
    /// `ENTRYPOINT`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub cmd: Vec<String>,
    /// `WORKDIR`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub working_dir: String,
    /// `VOLUME`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub volumes: BTreeMap<String, serde::de::IgnoredAny>,
    /// `LABEL`.
    #[serde(default, deserialize_with = "or_nothing")]
    pub labels: HashMap<String, String>,
}

/// Images write `null` where they have nothing to say.
fn or_nothing<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Why a registry did not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsaid {
    /// There is no such image.
    #[error("there is no such image")]
    Absent,
    /// It is not for whoever asks.
    #[error("the registry does not give it")]
    Closed,
    /// Not for this processor.
    #[error("it is not there for this processor")]
    OtherProcessor,
    /// No answer, or none that could be understood.
    #[error("{0}")]
    Unreached(String),
}

/// Asks with one set of credentials. Never with another's: the library remembers what opened a repository, whoever asks.
pub(super) struct Asker {
    client: Client,
    logins: Logins,
}

impl Asker {
    /// For these credentials.
    pub(super) fn new(logins: Logins, plain_http: &[String]) -> Self {
        let protocol = match plain_http {
            [] => ClientProtocol::Https,
            plain => ClientProtocol::HttpsExcept(plain.to_vec()),
        };
        let client = Client::new(ClientConfig {
            protocol,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(ANSWER),
            user_agent: "davit",
            ..ClientConfig::default()
        });
        Self { client, logins }
    }

    /// The digest behind a reference, of the whole list where there is one for several processors.
    pub(super) async fn digest(&self, image: &str) -> Result<String, Unsaid> {
        let (image, auth) = self.whose(image)?;
        bounded(self.client.fetch_manifest_digest(&image, &auth)).await
    }

    /// What an image says about itself, of several that for this processor.
    pub(super) async fn about(&self, image: &str) -> Result<Said, Unsaid> {
        let (image, auth) = self.whose(image)?;
        // Once, and by name: the blob's request below takes what was remembered.
        bounded(self.client.auth(&image, &auth, RegistryOperation::Pull)).await?;
        let (manifest, digest) = bounded(self.client.pull_image_manifest(&image, &auth)).await?;
        let size = manifest.layers.iter().map(|layer| u64::try_from(layer.size).unwrap_or(0)).sum();
        let mut config = Bounded(Vec::new());
        bounded(self.client.pull_blob(&image, &manifest.config, &mut config)).await?;
        let config = serde_json::from_slice(&config.0)
            .map_err(|e| Unsaid::Unreached(format!("its configuration: {e}")))?;
        Ok(Said { digest, size, config })
    }

    fn whose(&self, image: &str) -> Result<(Reference, RegistryAuth), Unsaid> {
        let image: Reference = image.parse().map_err(|e| Unsaid::Unreached(format!("{image}: {e}")))?;
        // Logins of the default registry stand under no host.
        let default = Reference::from_str("app").ok();
        let is_default = default.is_some_and(|default| default.registry() == image.registry());
        let host = Some(image.registry()).filter(|_| !is_default);
        let auth = match self.logins.of(host) {
            None => RegistryAuth::Anonymous,
            // It would have to be traded for another one, which the library does not do.
            Some(Login { identity_token: Some(_), .. }) => {
                return Err(Unsaid::Unreached(
                    "identity tokens are not taken; use a user and a password".into(),
                ));
            }
            Some(Login { user, password, .. }) => RegistryAuth::Basic(user.clone(), password.clone()),
        };
        Ok((image, auth))
    }
}

async fn bounded<T>(asked: impl Future<Output = Result<T, OciDistributionError>>) -> Result<T, Unsaid> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(unsaid),
        Err(_) => Err(Unsaid::Unreached(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}

/// No more of an answer is repeated than what registries say about themselves: a name may lead anywhere.
fn unsaid(error: OciDistributionError) -> Unsaid {
    use OciDistributionError as Error;
    match error {
        Error::ImageManifestNotFoundError(why) if why.contains("latform") => Unsaid::OtherProcessor,
        Error::ImageManifestNotFoundError(_) => Unsaid::Absent,
        Error::UnauthorizedError { .. } | Error::AuthenticationFailure(_) => Unsaid::Closed,
        Error::ServerError { code: 401 | 403, .. } => Unsaid::Closed,
        Error::ServerError { code: 404, .. } => Unsaid::Absent,
        Error::ServerError { code, .. } => Unsaid::Unreached(format!("it answers {code}")),
        Error::RegistryError { envelope, .. } => match envelope.errors.into_iter().next() {
            Some(first) => match first.code {
                OciErrorCode::ManifestUnknown
                | OciErrorCode::NameUnknown
                | OciErrorCode::NotFound
                | OciErrorCode::NameInvalid => Unsaid::Absent,
                OciErrorCode::Unauthorized | OciErrorCode::Denied => Unsaid::Closed,
                _ => Unsaid::Unreached(first.message.chars().take(200).collect()),
            },
            None => Unsaid::Unreached("it refuses without a reason".into()),
        },
        Error::RequestError(error) => Unsaid::Unreached(chain(&error)),
        Error::JsonError(_) | Error::VersionedParsingError(_) | Error::ManifestParsingError(_) => {
            Unsaid::Unreached("what answers is no image registry".into())
        }
        other => Unsaid::Unreached(other.to_string().chars().take(200).collect()),
    }
}

/// Takes in what fits.
struct Bounded(Vec<u8>);

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.0.len() + bytes.len() > CONFIG_BYTES {
            return Poll::Ready(Err(std::io::Error::other("its configuration is too large")));
        }
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[test]
    fn what_an_image_leaves_out_is_nothing() {
        let bare: Config =
            serde_json::from_str(r#"{"os":"linux","architecture":"arm64","config":null}"#).unwrap();
        assert_eq!((bare.architecture.as_str(), &bare.config), ("arm64", &Run::default()));
        let said: Config = serde_json::from_str(
            r#"{"config":{"Entrypoint":null,"Cmd":["/app"],"WorkingDir":"/srv","Volumes":{"/data":{}},"Labels":{"a":"b"},"User":"1"}}"#,
        )
        .unwrap();
        assert_eq!((said.config.cmd, said.config.working_dir.as_str()), (vec!["/app".to_owned()], "/srv"));
        assert!(said.config.volumes.contains_key("/data") && said.config.labels["a"] == "b");
    }

    #[test]
    fn what_a_stranger_answers_is_not_repeated() {
        let answer = OciDistributionError::ServerError {
            code: 500,
            url: "https://10.0.0.1/".into(),
            message: "hush".into(),
        };
        assert_eq!(unsaid(answer), Unsaid::Unreached("it answers 500".into()));
    }

    #[tokio::test]
    async fn a_configuration_without_an_end_is_not_read_to_it() {
        let mut to = Bounded(Vec::new());
        let piece = vec![0; 1 << 20];
        for _ in 0..4 {
            to.write_all(&piece).await.unwrap();
        }
        assert!(to.write_all(&piece).await.is_err());
    }
}
