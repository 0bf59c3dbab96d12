//! The control: plain containers through the engine's API, without a client program in between.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The engine behind its usual socket.
pub(crate) struct Docker {
    http: reqwest::Client,
}

/// What to start as a control.
pub(crate) struct Control<'a> {
    /// The image, by name.
    pub(crate) image: &'a str,
    /// The program with its arguments; files are at `/s`.
    pub(crate) command: &'a [&'a str],
    /// Text files that it needs.
    pub(crate) files: &'a [(&'a str, &'a str)],
    /// Programs that it needs: name, and where a copy is taken from.
    pub(crate) programs: &'a [(&'a str, &'a Path)],
    /// Thousandths of a core, as of the function it is compared with.
    pub(crate) cpu_millis: u32,
    /// Whether it listens on the host's loopback; else it has no network, and speaks through a socket in `/s`.
    pub(crate) host_network: bool,
}

impl Default for Control<'_> {
    fn default() -> Self {
        Self { image: "", command: &[], files: &[], programs: &[], cpu_millis: 1_000, host_network: false }
    }
}

/// A control container; removed when dropped.
pub(crate) struct Container {
    id: String,
    /// The folder that is mounted at `/s` in it.
    folder: tempfile::TempDir,
}

impl Container {
    /// A file in its folder, as the host sees it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rm", "-f", &self.id]).output();
    }
}

/// The image of a runtime.
pub(crate) fn image(runtime: &str) -> String {
    format!("davit/runtime-{runtime}:latest")
}

impl Docker {
    pub(crate) fn connect() -> crate::Result<Self> {
        Ok(Self { http: reqwest::Client::builder().unix_socket(Path::new("/var/run/docker.sock")).build()? })
    }

    /// Versions of the engine and its parts.
    pub(crate) async fn version(&self) -> crate::Result<Value> {
        let text = self.http.get("http://docker/version").send().await?.error_for_status()?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Writes a control's files; nothing is known to the engine yet.
    pub(crate) fn prepare(&self, control: &Control<'_>) -> crate::Result<tempfile::TempDir> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
        for (name, text) in control.files {
            std::fs::write(folder.path().join(name), text)?;
        }
        for (name, from) in control.programs {
            let to = folder.path().join(name);
            std::fs::copy(from, &to)?;
            std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(folder)
    }

    /// Creates and starts a container over a prepared folder, under the same limits as a function's. Returns
    /// once the engine has answered the start.
    pub(crate) async fn launch(
        &self,
        control: &Control<'_>,
        folder: tempfile::TempDir,
    ) -> crate::Result<Container> {
        let body = json!({
            "Image": control.image, "Entrypoint": control.command, "Cmd": [], "User": "993:993",
            "HostConfig": {
                "Binds": [format!("{}:/s", folder.path().display())],
                "NetworkMode": if control.host_network { "host" } else { "none" }, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true, "Memory": 268_435_456, "MemorySwap": 268_435_456,
                "NanoCpus": u64::from(control.cpu_millis) * 1_000_000,
                "PidsLimit": 256, "Tmpfs": {"/tmp": "size=64m,mode=1777"},
            },
        });
        let answer = self
            .http
            .post("http://docker/v1.41/containers/create")
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await?;
        let text = answer.text().await?;
        let created: Value = serde_json::from_str(&text)?;
        let id = created["Id"].as_str().ok_or_else(|| format!("create: {text}"))?.to_owned();
        let container = Container { id, folder };
        self.act(&container, "start").await?;
        Ok(container)
    }

    /// Prepares and launches.
    pub(crate) async fn start(&self, control: &Control<'_>) -> crate::Result<Container> {
        let folder = self.prepare(control)?;
        self.launch(control, folder).await
    }

    /// `start`, `pause` or `unpause`.
    pub(crate) async fn act(&self, container: &Container, verb: &str) -> crate::Result<()> {
        let url = format!("http://docker/v1.41/containers/{}/{verb}", container.id);
        let answer = self.http.post(url).send().await?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(format!("{verb}: {}", answer.text().await?).into())
    }

    /// The last lines that a container printed, to explain why it does not answer.
    pub(crate) fn words(&self, container: &Container) -> String {
        let output =
            std::process::Command::new("docker").args(["logs", "--tail", "5", &container.id]).output();
        output
            .map(|o| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)))
            .unwrap_or_default()
    }
}

/// Waits until something on the way to a control is there.
pub(crate) async fn until_ok<T>(
    what: &str,
    mut attempt: impl AsyncFnMut() -> crate::Result<T>,
) -> crate::Result<T> {
    let start = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > Duration::from_secs(30) => {
                return Err(format!("{what} was not there within 30 s: {error}").into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A port on 127.0.0.1 that nobody uses at this moment.
pub(crate) fn free_port() -> crate::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
