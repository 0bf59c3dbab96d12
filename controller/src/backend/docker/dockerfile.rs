//! A user's image from a source's Dockerfile, by the engine's own builder: the classic one, which every engine has.
//!
//! Its steps run as the Dockerfile says, as root unless it says otherwise, and with the engine's usual capabilities: they
//! could not install anything otherwise. Bounded are memory, processors, time and output, and the network is the one that
//! functions have. Dropping the future closes the connection, at which the engine ends the build.

use std::collections::HashMap;

use bollard::errors::Error as EngineError;
use bollard::models::BuildInfo;
use bollard::query_parameters::{BuildImageOptions, BuildImageOptionsBuilder};
use bollard::{auth::DockerCredentials, body_try_stream};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::fetch::of_login;
use super::lines::{LINE_CHARS, Lines};
use super::{BackendError, DockerBackend, spec};
use crate::backend::image::{HadImage, ImageBuildRequest};
use crate::registry_login::Logins;

const CHUNK: usize = 256 * 1024;
/// The engine divides processors by periods of so many microseconds.
const PERIOD: i32 = 100_000;

impl DockerBackend {
    pub(super) async fn build_dockerfile(
        &self,
        request: &ImageBuildRequest,
        log: &mpsc::Sender<String>,
    ) -> Result<HadImage, BackendError> {
        let name = self.kept_name("src", &request.content.hex());
        match self.image_facts(&name).await {
            Ok(facts) => {
                self.keep(&facts.id).await?;
                let _ = log.send("image: unchanged, not built again".into()).await;
                return Ok(HadImage { facts, repo_digest: None });
            }
            Err(BackendError::NoImage(_)) => {}
            Err(error) => return Err(error),
        }
        self.network.ensure().await?;
        let deadline = Instant::now() + request.limits.wall;
        match tokio::time::timeout_at(deadline, self.steps(request, &name, log)).await {
            Ok(done) => done?,
            Err(_) => return Err(BackendError::Deadline("the build")),
        }
        let facts = self.image_facts(&name).await?;
        self.keep(&facts.id).await?;
        Ok(HadImage { facts, repo_digest: None })
    }

    async fn steps(
        &self,
        request: &ImageBuildRequest,
        name: &str,
        log: &mpsc::Sender<String>,
    ) -> Result<(), BackendError> {
        let host = |e: std::io::Error| BackendError::Host(format!("{}: {e}", request.context.display()));
        let context = tokio::fs::File::open(&request.context).await.map_err(host)?;
        let body = body_try_stream(ReaderStream::with_capacity(context, CHUNK));
        let options = options(request, name, &spec::network_mode(&self.common, request.network));
        let logins = logins(&request.logins)?;
        let mut stream = std::pin::pin!(self.docker.build_image(options, logins, Some(body)));
        let mut lines = Lines::default();
        while let Some(item) = stream.next().await {
            let said = item.map_err(refused)?;
            if let Some(detail) = &said.error_detail {
                let message = detail.message.clone().unwrap_or_default();
                return Err(failed(&message));
            }
            for line in clean(lines.take(&text(&said))) {
                let _ = log.send(line).await;
            }
        }
        Ok(())
    }
}

/// What the engine is asked for. Nothing of it but the Dockerfile's path is the user's.
fn options(request: &ImageBuildRequest, name: &str, network: &str) -> BuildImageOptions {
    // The engine's interface has more room here than the client has: at most 2 GiB can be said.
    let memory = i32::try_from(u64::from(request.limits.memory_mb) << 20).unwrap_or(i32::MAX);
    let cpu = u64::from(request.limits.cpu_millis) * PERIOD.unsigned_abs() as u64 / 1_000;
    BuildImageOptionsBuilder::default()
        .dockerfile(&request.dockerfile)
        .t(name)
        .rm(true)
        .forcerm(true)
        .memory(memory)
        .memswap(memory)
        .cpuperiod(PERIOD)
        .cpuquota(i32::try_from(cpu).unwrap_or(i32::MAX))
        .networkmode(network)
        .buildargs(&request.arguments)
        .build()
}

/// Credentials for `FROM`, by registry: which one a Dockerfile asks is for the engine to find out.
fn logins(logins: &Logins) -> Result<Option<HashMap<String, DockerCredentials>>, BackendError> {
    match logins {
        Logins::None => Ok(None),
        Logins::Hosts(hosts) => {
            Ok(Some(hosts.iter().map(|(host, login)| (host.clone(), of_login(login, Some(host)))).collect()))
        }
        Logins::Any(_) => Err(BackendError::BadImage(
            "image_secret: for a Dockerfile it has to say which registry it opens: make it a Docker config in JSON".into(),
        )),
    }
}

/// What one message of the engine shows: steps and output, and of base images being fetched not every step.
fn text(said: &BuildInfo) -> String {
    match (&said.stream, &said.status) {
        (Some(stream), _) => stream.clone(),
        (None, Some(status)) if said.progress_detail.is_none() && said.id.is_none() => format!("{status}\n"),
        _ => String::new(),
    }
}

/// Whole lines as they are shown; those without anything on them are left out.
fn clean(lines: Vec<String>) -> Vec<String> {
    let clean = |line: String| -> String {
        line.trim_end().chars().filter(|c| *c != '\0' && *c != '\u{1b}').take(LINE_CHARS).collect()
    };
    lines.into_iter().map(clean).filter(|line| !line.is_empty()).collect()
}

/// A refusal before the first step, such as a Dockerfile that cannot be read, is its author's to mend.
fn refused(error: EngineError) -> BackendError {
    match error {
        EngineError::DockerResponseServerError { message, .. } => failed(&message),
        EngineError::DockerStreamError { error } => failed(&error),
        other => super::classify(other).into(),
    }
}

fn failed(message: &str) -> BackendError {
    let message = message.trim();
    let advice = if message.contains("non-zero code: 137") {
        "; a step that is killed most often needs more memory than builds may use (DAVIT_BUILD_MEMORY_MB)"
    } else {
        ""
    };
    BackendError::BadImage(format!("the Dockerfile was not built: {message}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::docker::lines::OUTPUT_BYTES;

    #[test]
    fn pieces_of_output_become_whole_lines_and_do_not_grow_for_ever() {
        let mut lines = Lines::default();
        let mut take = |piece: &str| clean(lines.take(piece));
        assert_eq!(take("Step 1/2 : FROM a\n ---> 12"), ["Step 1/2 : FROM a"]);
        assert_eq!(take("34\n\n"), [" ---> 1234"]);
        assert_eq!(take(&"x".repeat(LINE_CHARS + 5)), ["x".repeat(LINE_CHARS)]);
        assert!(take(&"y\n".repeat(OUTPUT_BYTES)).is_empty());
        assert!(take("z\n").is_empty());
    }

    #[test]
    fn credentials_without_a_registry_are_no_use_to_a_dockerfile() {
        assert!(matches!(logins(&Logins::None), Ok(None)));
        let text = r#"{"auths": {"r.test:5000": {"username": "ada", "password": "p"}}}"#;
        let sent = logins(&Logins::parse(text).unwrap()).unwrap().unwrap();
        assert_eq!(sent["r.test:5000"].username.as_deref(), Some("ada"));
        let BackendError::BadImage(said) = logins(&Logins::parse("ada:hush").unwrap()).unwrap_err() else {
            panic!("another error");
        };
        assert!(said.starts_with("image_secret: ") && !said.contains("hush"));
    }
}
