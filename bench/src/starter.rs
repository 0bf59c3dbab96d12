//! Starts a process inside a long-running container of a runtime's image: the control for cold starts that is no
//! container start. The interpreter is the one that functions get; only its start, imports and answer are timed.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::docker::{Container, Control, Docker, image, until_ok};

/// A container with the resident starter of `bench/native/` in it.
pub(crate) struct Starter {
    container: Container,
}

impl Starter {
    /// Starts the container; `files` are at `/s` in it.
    pub(crate) async fn up(
        docker: &Docker,
        native: &Path,
        runtime: &str,
        files: &[(&str, &str)],
    ) -> crate::Result<Self> {
        let control = Control {
            image: &image(runtime),
            command: &["/s/native", "starter", "/s/starter"],
            files,
            programs: &[("native", native)],
            ..Control::default()
        };
        let starter = Self { container: docker.start(&control).await? };
        until_ok("the starter", async || Ok(UnixStream::connect(starter.container.path("starter")).await?))
            .await?;
        Ok(starter)
    }

    /// Milliseconds from the request to fork until the process has answered with a line that ends in `hello`.
    /// Returns when the process has ended.
    pub(crate) async fn time(&self, command: &[&str]) -> crate::Result<f64> {
        let work = async {
            let mut stream = UnixStream::connect(self.container.path("starter")).await?;
            let line = command.join("\t") + "\n";
            let mut answer = Vec::with_capacity(256);
            let start = Instant::now();
            stream.write_all(line.as_bytes()).await?;
            while !answer.ends_with(b"hello\n") {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(format!("{command:?} answered {:?}", String::from_utf8_lossy(&answer)).into());
                }
            }
            let ms = start.elapsed().as_secs_f64() * 1e3;
            while stream.read_buf(&mut answer).await? > 0 {}
            Ok(ms)
        };
        tokio::time::timeout(Duration::from_secs(60), work).await?
    }
}
