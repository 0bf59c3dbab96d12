//! A real image registry on this machine, which asks for a password: Debian's `docker-registry`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use davit_e2e::eventually;

/// One registry; gone with everything in it when dropped.
pub(super) struct ImageRegistry {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    user: String,
    password: String,
}

/// What `docker-registry` reads: on loopback alone, in a folder of its own.
fn config(folder: &std::path::Path, port: u16) -> String {
    format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\nhttp:\n  addr: 127.0.0.1:{port}\n\
         auth:\n  htpasswd:\n    realm: stories\n    path: {root}/htpasswd\n",
        root = folder.display()
    )
}

fn program(name: &str) -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&places).map(|place| place.join(name)).find(|path| path.is_file())
}

impl ImageRegistry {
    /// Starts one; none where the programs for it are not installed.
    pub(super) async fn start(user: &str, password: &str) -> Option<Self> {
        let (registry, htpasswd) = (program("docker-registry")?, program("htpasswd")?);
        let folder = tempfile::tempdir().unwrap();
        // Given up again for the registry: it cannot choose one by itself and say which.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let made = Command::new(htpasswd).args(["-Bbn", user, password]).output().unwrap();
        std::fs::write(folder.path().join("htpasswd"), made.stdout).unwrap();
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config(folder.path(), port)).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(registry)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let this = Self { process, folder, port, user: user.into(), password: password.into() };
        std::fs::create_dir(this.folder.path().join("docker")).unwrap();
        std::fs::write(this.folder.path().join("docker/config.json"), this.docker_config()).unwrap();
        eventually("the registry to listen", async || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|_| this.log())
        })
        .await;
        Some(this)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The name of an image in this registry.
    pub(super) fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    /// A Docker config that opens it.
    pub(super) fn docker_config(&self) -> String {
        let host = format!("127.0.0.1:{}", self.port);
        serde_json::json!({ "auths": { host: { "username": self.user, "password": self.password } } })
            .to_string()
    }

    /// Puts an image of the engine into it, and leaves no name of the registry in the engine.
    pub(super) fn push(&self, image: &str, name: &str) {
        let (name, config) = (self.name(name), self.folder.path().join("docker"));
        for args in [vec!["tag", image, &name], vec!["push", "-q", &name], vec!["image", "rm", &name]] {
            let output = Command::new("docker").arg("--config").arg(&config).args(&args).output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?} {}", self.log());
        }
    }
}

impl Drop for ImageRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
