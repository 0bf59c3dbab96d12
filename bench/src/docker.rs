//! The control: plain containers through the engine's API, without a client program in between.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The engine behind its usual socket.
pub(crate) struct Docker {
    http: reqwest::Client,
}

/// A running control container; removed when dropped.
pub(crate) struct Container {
    id: String,
    /// The folder that is mounted at `/s` in it.
    folder: tempfile::TempDir,
}

impl Container {
    /// The socket that the program inside listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").args(["rm", "-f", &self.id]).output();
    }
}

impl Docker {
    pub(crate) fn connect() -> crate::Result<Self> {
        Ok(Self { http: reqwest::Client::builder().unix_socket(Path::new("/var/run/docker.sock")).build()? })
    }

    /// Engine, runc and kernel versions, to print with the figures.
    pub(crate) async fn versions(&self) -> crate::Result<Value> {
        let text = self.http.get("http://docker/version").send().await?.error_for_status()?.text().await?;
        let value: Value = serde_json::from_str(&text)?;
        let part = |name: &str| {
            value["Components"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["Name"] == name)
                .map(|c| c["Version"].clone())
        };
        Ok(
            json!({"engine": value["Version"], "kernel": value["KernelVersion"], "containerd": part("containerd"), "runc": part("runc")}),
        )
    }

    /// Creates and starts a container of the image with the files in a folder mounted at `/s`, under the same
    /// limits as a function's. Returns once the engine has answered the start.
    pub(crate) async fn start(
        &self,
        image: &str,
        command: &[&str],
        files: &[(&str, &str)],
    ) -> crate::Result<Container> {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        let body = json!({
            "Image": image, "Entrypoint": command, "Cmd": [], "User": "993:993",
            "HostConfig": {
                "Binds": [format!("{}:/s", folder.path().display())], "NetworkMode": "none", "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true, "Memory": 268_435_456, "MemorySwap": 268_435_456,
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
        let started =
            self.http.post(format!("http://docker/v1.41/containers/{}/start", container.id)).send().await?;
        if !started.status().is_success() {
            return Err(format!("start: {}", started.text().await?).into());
        }
        Ok(container)
    }
}
