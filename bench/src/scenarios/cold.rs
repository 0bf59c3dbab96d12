//! What the cold start scenarios share: a pooled cold start through the gateway, and the comparison of many of
//! them with the start of a plain process. No scenario by itself.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

use crate::bench::Bench;
use crate::docker::{Control, Docker};
use crate::figure::Figure;
use crate::load::{self, Request};
use crate::platform::{Platform, Setup};
use crate::programs::manifest;
use crate::starter::Starter;

/// Milliseconds of the first call of a function that has no instance, from a platform at rest.
pub(super) async fn start(platform: &Platform, runtime: &str, function: &str) -> crate::Result<f64> {
    platform.rested(runtime, 1).await?;
    first(platform, function).await
}

/// Milliseconds of the call of a function that has no instance.
pub(super) async fn first(platform: &Platform, function: &str) -> crate::Result<f64> {
    let before = platform.counter("davit_calls_cold_total").await?;
    let (ms, answer) =
        load::once(&Request::get(platform.gateway()?, &format!("/default/{function}"))).await?;
    if !answer.ends_with("hello\n") {
        return Err(format!("{function} answered {answer}").into());
    }
    if platform.counter("davit_calls_cold_total").await? < before + 1.0 {
        return Err(format!("the call of {function} was no cold start").into());
    }
    Ok(ms)
}

/// Milliseconds from nothing to the answer that a container's program sends to the socket at `/s/answer`, where the bench
/// listens: no server, no polling.
pub(super) async fn in_a_container(
    docker: &Docker,
    control: &Control<'_>,
    expected: &[u8],
) -> crate::Result<f64> {
    let folder = docker.prepare(control)?;
    let socket = folder.path().join("answer");
    let listener = UnixListener::bind(&socket)?;
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let start = Instant::now();
    let container = docker.launch(control, folder).await?;
    let answered = tokio::time::timeout(Duration::from_secs(30), async {
        let mut answer = Vec::new();
        listener.accept().await?.0.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    });
    match answered.await {
        Ok(Ok(answer)) if answer == expected => Ok(start.elapsed().as_secs_f64() * 1e3),
        _ => Err(format!("the control container did not answer:\n{}", docker.words(&container)).into()),
    }
}

/// A handler, and the command that does the same as a plain process.
pub(super) struct Handler<'a> {
    pub(super) figure: &'static Figure,
    pub(super) name: &'a str,
    pub(super) runtime: &'a str,
    pub(super) handler: &'a str,
    /// The function's files; the process finds them at `/s`.
    pub(super) files: &'a [(&'a str, &'a str)],
    /// The process; it prints what the handler's body would be.
    pub(super) command: &'a [&'a str],
}

/// Pooled cold starts of a handler, each followed by one start of the process inside a container that runs
/// already.
pub(super) async fn against_process(bench: &mut Bench, handler: &Handler<'_>) -> crate::Result<()> {
    let platform = bench.platform(Setup::default()).await?;
    let toml = manifest(handler.name, handler.runtime, &format!("handler = \"{}\"\n", handler.handler));
    let mut files = vec![("davit.toml", toml.as_str())];
    files.extend(handler.files);
    platform.deploy(&files)?;
    platform.copy(handler.name, bench.repeats).await?;
    let starter = Starter::up(&bench.docker, &bench.native, handler.runtime, handler.files).await?;
    // The first start of all reads the interpreter from the disk.
    starter.time(handler.command).await?;
    let mut pairs = Vec::new();
    for n in 1..=bench.repeats {
        let davit = start(&platform, handler.runtime, &format!("{}-{n}", handler.name)).await?;
        platform.rested(handler.runtime, 1).await?;
        pairs.push((davit, starter.time(handler.command).await?));
    }
    bench.report.pairs(handler.figure, &pairs);
    Ok(())
}
