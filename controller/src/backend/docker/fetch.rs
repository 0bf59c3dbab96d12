//! A user's image, from the engine itself or from a registry. A name without a host is looked up in the engine first: it
//! is what `docker build` makes. A name with a host is always asked for there, with the credentials of whoever deploys it
//! and no others, so that a tag which has moved is followed, and nobody runs what somebody else has fetched.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use davit_api::ImageName;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{BackendError, DockerBackend};
use crate::backend::image::{FetchRequest, HadImage};
use crate::registry_login::{Login, Logins};

/// Between two signs of life of a transfer.
const SILENCE: Duration = Duration::from_secs(120);
/// Between two lines about it.
const TELL: Duration = Duration::from_secs(3);
const MB: u64 = 1_000_000;

impl DockerBackend {
    pub(super) async fn fetch(
        &self,
        request: &FetchRequest,
        log: &mpsc::Sender<String>,
    ) -> Result<HadImage, BackendError> {
        let fetching = self.fetch_unbounded(request, log);
        match tokio::time::timeout(request.limits.wall, fetching).await {
            Ok(had) => had,
            Err(_) => Err(BackendError::BadImage(format!(
                "image: {} was not here within {} s (DAVIT_BUILD_TIMEOUT)",
                request.image,
                request.limits.wall.as_secs()
            ))),
        }
    }

    async fn fetch_unbounded(
        &self,
        request: &FetchRequest,
        log: &mpsc::Sender<String>,
    ) -> Result<HadImage, BackendError> {
        let image = &request.image;
        if image.host().is_none() {
            match self.look(&image.full()).await {
                Ok((facts, digests)) => {
                    self.keep(&facts.id).await?;
                    let own = format!("{}@", image.repository());
                    let repo_digest = digests.into_iter().find(|digest| digest.starts_with(&own));
                    let _ = log.send(format!("image: {} of this host's engine", image.full())).await;
                    return Ok(HadImage { facts, repo_digest });
                }
                Err(BackendError::NoImage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let login = credentials(&request.logins, image);
        let asked = self.docker.inspect_registry_image(&image.full(), login.clone()).await;
        let found = asked.map_err(|error| refused(image, &request.logins, error))?;
        let digest = found.descriptor.digest.unwrap_or_default();
        let pinned = image.at(&digest);
        if pinned.parse::<ImageName>().is_err() {
            return Err(BackendError::BadImage(format!("image: the registry has no digest for {image}")));
        }
        let _ = log.send(format!("image: {pinned}")).await;
        // Whoever else fetches the same now finds and leaves the same name.
        let had = match self.look(&pinned).await {
            Ok(had) => Some(had),
            Err(BackendError::NoImage(_)) => None,
            Err(error) => return Err(error),
        };
        let fetched = had.is_none();
        let (facts, _) = match had {
            Some(had) => had,
            None => {
                self.pull(request, &digest, login, log).await?;
                self.look(&pinned).await?
            }
        };
        self.keep(&facts.id).await?;
        if fetched {
            // Under its public name it would be there for whoever writes that into a Dockerfile.
            self.untag(&pinned).await?;
        }
        Ok(HadImage { facts, repo_digest: Some(pinned) })
    }

    async fn pull(
        &self,
        request: &FetchRequest,
        digest: &str,
        login: Option<DockerCredentials>,
        log: &mpsc::Sender<String>,
    ) -> Result<(), BackendError> {
        let image = &request.image;
        let options = CreateImageOptionsBuilder::default().from_image(image.repository()).tag(digest).build();
        let mut stream = std::pin::pin!(self.docker.create_image(Some(options), None, login));
        let (mut transfer, mut told) = (Transfer::default(), Instant::now());
        loop {
            let next = tokio::time::timeout(SILENCE, stream.next()).await;
            let Some(item) = next.map_err(|_| BackendError::Deadline("fetching the image"))? else {
                let _ = log.send(format!("image: {} MB fetched", transfer.done() / MB)).await;
                return Ok(());
            };
            transfer.note(&item.map_err(|error| refused(image, &request.logins, error))?);
            // Leaving the stream is what ends it in the engine.
            if transfer.total() > request.limits.bytes {
                return Err(too_large(image, request.limits.bytes));
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                let (done, total) = (transfer.done() / MB, transfer.total() / MB);
                let _ = log.send(format!("image: {done} of {total} MB fetched")).await;
            }
        }
    }
}

/// What a build says about an image over its bound.
pub(super) fn too_large(image: &ImageName, bytes: u64) -> BackendError {
    BackendError::BadImage(format!("image: {image} is larger than {} MB (DAVIT_IMAGE_MB)", bytes >> 20))
}

/// Bytes of each layer: here, and in all.
#[derive(Default)]
struct Transfer(HashMap<String, (u64, u64)>);

impl Transfer {
    fn note(&mut self, said: &CreateImageInfo) {
        let (Some(layer), Some(detail)) = (&said.id, &said.progress_detail) else { return };
        let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let (current, total) = (number(detail.current), number(detail.total));
        match said.status.as_deref() {
            Some("Downloading") if total > 0 => drop(self.0.insert(layer.clone(), (current, total))),
            // Told of the same layer again, in unpacked bytes.
            Some("Extracting" | "Download complete" | "Pull complete" | "Verifying Checksum") => {
                if let Some(known) = self.0.get_mut(layer) {
                    known.0 = known.1;
                }
            }
            _ => {}
        }
    }
    fn done(&self) -> u64 {
        self.0.values().map(|(done, _)| done).sum()
    }
    fn total(&self) -> u64 {
        self.0.values().map(|(_, total)| total).sum()
    }
}

/// What is shown to the registry of an image.
fn credentials(logins: &Logins, image: &ImageName) -> Option<DockerCredentials> {
    logins.of(image.host()).map(|login| of_login(login, image.host()))
}

/// A login as the engine takes it.
pub(super) fn of_login(login: &Login, host: Option<&str>) -> DockerCredentials {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    DockerCredentials {
        username: some(&login.user),
        password: some(&login.password),
        identitytoken: login.identity_token.clone(),
        serveraddress: host.map(str::to_owned),
        ..DockerCredentials::default()
    }
}

/// Parts of what an engine says when a registry does not answer, or not as one.
const UNREACHED: &[&str] = &[
    "no such host",
    "connection refused",
    "no route to host",
    "network is unreachable",
    "timeout",
    "deadline exceeded",
    "server misbehaving",
    "connection reset",
    "eof",
    "server gave http response",
    "x509",
    "proxyconnect",
    "failed to resolve",
];

/// What a registry's refusal means for the function's owner. What may pass by itself stays an engine's error.
fn refused(image: &ImageName, logins: &Logins, error: EngineError) -> BackendError {
    let (status, message) = match error {
        EngineError::DockerResponseServerError { status_code, message } => (status_code, message),
        EngineError::DockerStreamError { error } => (0, error),
        other => return super::classify(other).into(),
    };
    let lower = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let host = image.host().unwrap_or("the engine's default registry");
    let sentence = if matches!(status, 401 | 403)
        || says(&["unauthorized", "authentication required", "no basic auth", "denied", "incorrect username"])
    {
        let advice = match logins.of(image.host()) {
            Some(_) => "image_secret does not open it",
            None => "name the secret that opens it: image_secret",
        };
        format!("image: {host} does not give {image} ({}); {advice}", message.trim())
    } else if status == 404 || says(&["not found", "manifest unknown", "no such image", "name unknown"]) {
        format!(
            "image: there is no {image}: neither in this host's engine, if it is named without a host, nor in {host}"
        )
    } else if says(&["no matching manifest"]) {
        format!("image: {image} is not there for this host's processor")
    } else if says(UNREACHED) {
        let here = image
            .host()
            .map_or(format!("there is no {image} in this host's engine, and "), |_| String::new());
        format!("image: {here}{host} is not reached: {}", message.trim())
    } else {
        return BackendError::Refused(format!("fetching {image}: {}", message.trim()));
    };
    BackendError::BadImage(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn said(layer: &str, status: &str, current: i64, total: i64) -> CreateImageInfo {
        CreateImageInfo {
            id: Some(layer.into()),
            status: Some(status.into()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..Default::default()
        }
    }

    #[test]
    fn a_transfer_is_the_sum_of_its_layers_as_they_are_sent() {
        let mut transfer = Transfer::default();
        for one in [
            said("a", "Pulling fs layer", 0, 0),
            said("a", "Downloading", 10, 100),
            said("b", "Downloading", 5, 50),
            said("a", "Extracting", 400, 900),
            said("c", "Already exists", 0, 0),
        ] {
            transfer.note(&one);
        }
        assert_eq!((transfer.done(), transfer.total()), (105, 150));
    }

    #[test]
    fn a_refusal_names_what_to_do_and_no_credentials() {
        let image: ImageName = "registry.test/app:1".parse().unwrap();
        let said = |status_code, message: &str, logins: &str| {
            let error = EngineError::DockerResponseServerError { status_code, message: message.into() };
            refused(&image, &Logins::parse(logins).unwrap_or_default(), error)
        };
        for (status, message, logins, wanted) in [
            (401, "unauthorized: authentication required", "", "name the secret"),
            (500, "Get https://registry.test/v2/: no basic auth credentials", "", "name the secret"),
            (401, "unauthorized", "ada:hush", "does not open it"),
            (404, "manifest unknown", "", "there is no registry.test/app:1"),
            (500, "dial tcp: connection refused", "", "is not reached"),
        ] {
            let BackendError::BadImage(text) = said(status, message, logins) else { panic!("{message}") };
            assert!(text.starts_with("image: ") && text.contains(wanted) && !text.contains("hush"), "{text}");
        }
        assert!(matches!(said(500, "disk is full", ""), BackendError::Refused(_)));
    }
}
