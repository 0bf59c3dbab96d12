//! `davit doctor`: looks at everything davit needs on this machine, and says what to do about what is missing.

#[cfg(feature = "server")]
mod cluster;

use std::io::{IsTerminal, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use davit_api::RuntimeName;
use serde::Serialize;
use serde_json::Value;

use crate::context::{Globals, read_endpoint};
use crate::failure::{Failure, Result};
use crate::output::{Colour, json, line, paint};

/// Oldest engine API that has what davit asks for: 1.41 came with engine 20.10.
const ENGINE_API: (u32, u32) = (1, 41);
/// Less free space than this is a warning: images and bundles need it.
const DISK_MIB: u64 = 2_048;
const PORTS: [u16; 3] = [7480, 7481, 7482];

/// Check whether this machine is ready for davit, and say what to do
#[derive(Args)]
#[command(after_help = "\
Examples:
  davit doctor
  kubectl exec deploy/davit-controller -- davit doctor      of a cluster, as its controller sees it

The exit code is 1 if something is missing.")]
pub(crate) struct Doctor {
    #[cfg(feature = "server")]
    #[command(flatten)]
    backend: crate::roles::engine::BackendArgs,
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Serialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Warning,
    Missing,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Good, found: found.into(), advice: None }
    }
    fn warning(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }
    fn missing(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Missing, ..Self::warning(what, found, advice) }
    }
}

impl Doctor {
    pub(crate) async fn run(self, globals: &Globals) -> Result<()> {
        let state_dir = globals.state_dir();
        let mut findings = match self.of_cluster().await? {
            Some(findings) => findings,
            None => of_machine(&state_dir),
        };
        findings.push(running(globals, &state_dir).await);
        if globals.json() {
            json(&findings)
        } else {
            print(&findings)
        }
        match findings.iter().filter(|f| f.verdict == Verdict::Missing).count() {
            0 => Ok(()),
            n => Err(Failure::Failed(format!("{n} of {} checks failed", findings.len()))),
        }
    }
}

impl Doctor {
    /// What a cluster has, where one is what runs functions.
    #[cfg(feature = "server")]
    async fn of_cluster(&self) -> Result<Option<Vec<Finding>>> {
        match self.backend.which()? {
            crate::roles::engine::Which::Docker => Ok(None),
            crate::roles::engine::Which::Kubernetes(config, logins) => {
                Ok(Some(cluster::findings(&config, logins).await))
            }
        }
    }
    #[cfg(not(feature = "server"))]
    async fn of_cluster(&self) -> Result<Option<Vec<Finding>>> {
        Ok(None)
    }
}

/// What a machine has on which functions run, too.
fn of_machine(state_dir: &Path) -> Vec<Finding> {
    let socket = engine_socket();
    let mut findings = vec![engine(&socket)];
    if findings[0].verdict != Verdict::Missing {
        findings.push(images(&socket));
    }
    findings.extend([postgres(), disk(state_dir), socket_path(state_dir)]);
    findings
}

fn print(findings: &[Finding]) {
    let terminal = std::io::stdout().is_terminal();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => paint(Colour::Green, "ok     ", terminal),
            Verdict::Warning => paint(Colour::Dim, "note   ", terminal),
            Verdict::Missing => paint(Colour::Red, "missing", terminal),
        };
        line(format!("{mark}  {:<16} {}", finding.what, finding.found));
        if let Some(advice) = &finding.advice {
            line(format!("         {:<16} → {advice}", ""));
        }
    }
}

/// The engine's socket: from DOCKER_HOST if that names one, else the usual place.
fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").ok();
    host.as_deref().and_then(|h| h.strip_prefix("unix://")).unwrap_or("/var/run/docker.sock").into()
}

/// Asks the engine. HTTP/1.0, so that the answer ends with the connection and comes in one piece.
fn ask(socket: &Path, path: &str) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(4 << 20).read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).map_err(std::io::Error::other)
}

fn engine(socket: &Path) -> Finding {
    const WHAT: &str = "container engine";
    let version = match ask(socket, "/version") {
        Ok(version) => version,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Finding::missing(
                WHAT,
                format!("{}: {error}", socket.display()),
                "run as root, or join the group docker",
            );
        }
        Err(error) => {
            let advice =
                "install Docker (Debian: apt-get install docker.io) and start it: systemctl start docker";
            return Finding::missing(WHAT, format!("{}: {error}", socket.display()), advice);
        }
    };
    let text = |field: &str| version[field].as_str().unwrap_or("?").to_owned();
    let found = format!("Docker {}, API {}", text("Version"), text("ApiVersion"));
    if parse_api(&text("ApiVersion")).is_some_and(|v| v >= ENGINE_API) {
        Finding::good(WHAT, found)
    } else {
        Finding::missing(WHAT, found, "davit needs engine 20.10 or newer: upgrade it")
    }
}

fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn images(socket: &Path) -> Finding {
    const WHAT: &str = "runtime images";
    let listed = ask(socket, "/images/json").unwrap_or_default();
    let tags: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|image| image["RepoTags"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let is_there = |name: &&str| {
        let runtime: Result<RuntimeName, _> = name.parse();
        runtime.is_ok_and(|r| [r.image(), r.build_image()].iter().all(|image| tags.contains(&image.as_str())))
    };
    let (there, others): (Vec<&str>, Vec<&str>) = RuntimeName::SHIPPED.iter().copied().partition(is_there);
    match (there.is_empty(), others.is_empty()) {
        (true, _) => Finding::missing(WHAT, "none", "build them in davit's source folder: make images"),
        (false, true) => Finding::good(WHAT, there.join(", ")),
        // An image takes minutes and up to 800 MB, so each is made when somebody wants it.
        (false, false) => {
            let wanted = others.join(", ");
            Finding::good(WHAT, format!("{}; scripts/images.sh makes others: {wanted}", there.join(", ")))
        }
    }
}

fn postgres() -> Finding {
    const WHAT: &str = "Postgres";
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(installed);
    match places.find(|dir| dir.join("postgres").exists() && dir.join("initdb").exists()) {
        Some(dir) => Finding::good(WHAT, format!("server binaries in {}", dir.display())),
        None => Finding::missing(
            WHAT,
            "no server binaries",
            "install them (Debian: apt-get install postgresql); `davit up` starts its own private server from them",
        ),
    }
}

fn disk(state_dir: &Path) -> Finding {
    const WHAT: &str = "disk";
    let place = state_dir.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(place) {
        Ok(stat) => (stat.f_bavail * stat.f_frsize) >> 20,
        Err(error) => {
            return Finding::warning(WHAT, format!("{}: {error}", place.display()), "look at it by hand");
        }
    };
    let found = format!("{:.1} GiB free at {}", free as f64 / 1024.0, state_dir.display());
    if free >= DISK_MIB {
        Finding::good(WHAT, found)
    } else {
        Finding::warning(WHAT, found, "make room, or put the state elsewhere with --state-dir")
    }
}

/// Unix sockets have paths of 107 bytes at most, and Postgres and every instance have theirs in the state
/// directory.
fn socket_path(state_dir: &Path) -> Finding {
    const WHAT: &str = "state directory";
    let longest = state_dir.join("instances/00000000-0000-0000-0000-000000000000/agent.sock");
    let length = longest.as_os_str().len();
    if length <= 107 {
        Finding::good(WHAT, state_dir.display().to_string())
    } else {
        Finding::missing(
            WHAT,
            format!("{}: too long by {} bytes", state_dir.display(), length - 107),
            "choose a shorter one with --state-dir",
        )
    }
}

/// A davit that runs answers; where none runs, its ports must be free.
async fn running(globals: &Globals, state_dir: &Path) -> Finding {
    const WHAT: &str = "davit";
    if globals.url.is_some() || read_endpoint(state_dir).is_some() {
        let answered = async { globals.api()?.info().await }.await;
        return match answered {
            Ok(info) => Finding::good(
                WHAT,
                format!("version {} answers; functions at {}", info.version, info.gateway_url),
            ),
            Err(failure) => Finding::warning(WHAT, failure.to_string(), "start it: davit up"),
        };
    }
    let taken: Vec<String> = PORTS
        .iter()
        .filter(|port| TcpListener::bind(("127.0.0.1", **port)).is_err())
        .map(ToString::to_string)
        .collect();
    if taken.is_empty() {
        Finding::good(WHAT, "does not run yet; its ports 7480 to 7482 are free")
    } else {
        let advice = "stop what holds them, or choose others: davit up --public 127.0.0.1:8080 ...";
        Finding::warning(WHAT, format!("does not run, and ports are taken: {}", taken.join(", ")), advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_versions_compare_as_numbers() {
        assert!(parse_api("1.41").is_some_and(|v| v >= ENGINE_API));
        assert!(parse_api("1.100").is_some_and(|v| v >= ENGINE_API));
        assert!(parse_api("1.40").is_some_and(|v| v < ENGINE_API));
        assert_eq!(parse_api("?"), None);
    }
}
