//! The davit under measurement: `davit up` in a state directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::load::Address;

/// A running davit; stopped when dropped.
pub(crate) struct Platform {
    binary: PathBuf,
    state: tempfile::TempDir,
    child: Child,
    endpoint: Value,
}

impl Platform {
    /// Starts it and waits for its endpoints.
    pub(crate) async fn up(binary: &Path) -> crate::Result<Self> {
        let state = tempfile::Builder::new().prefix("davit-bench-").tempdir_in("/tmp")?;
        let log = std::fs::File::create(state.path().join("up.log"))?;
        let child = Command::new(binary)
            .args(["up", "--public", "127.0.0.1:0", "--management", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .env("DAVIT_STATE_DIR", state.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut platform =
            Self { binary: std::fs::canonicalize(binary)?, state, child, endpoint: Value::Null };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if let Ok(text) = std::fs::read_to_string(platform.state.path().join("endpoint.json")) {
                platform.endpoint = serde_json::from_str(&text)?;
                return Ok(platform);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!(
            "davit did not start:\n{}",
            std::fs::read_to_string(platform.state.path().join("up.log"))?
        )
        .into())
    }

    /// The gateway's public port.
    pub(crate) fn gateway(&self) -> crate::Result<Address> {
        let url = self.endpoint["gateway_url"].as_str().ok_or("no gateway_url")?;
        Ok(Address::Port(url.trim_end_matches('/').rsplit(':').next().ok_or("no port")?.parse()?))
    }

    /// Deploys the files as a function.
    pub(crate) fn deploy(&self, files: &[(&str, &str)]) -> crate::Result<()> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        let output = Command::new(&self.binary)
            .arg("deploy")
            .current_dir(folder.path())
            .env("DAVIT_STATE_DIR", self.state.path())
            .output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("deploy: {}", String::from_utf8_lossy(&output.stderr)).into())
        }
    }

    /// Waits until at least one instance waits in the pool, so that a cold start is a pooled one.
    pub(crate) async fn pool_ready(&self) -> crate::Result<()> {
        let admin =
            self.endpoint["admin_url"].as_str().ok_or("no admin_url")?.trim_end_matches('/').to_owned();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let text = reqwest::get(format!("{admin}/metrics")).await?.text().await?;
            let pooled: f64 = text
                .lines()
                .filter(|l| l.starts_with("davit_pool_instances"))
                .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
                .sum();
            if pooled >= 1.0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("no instance came into the pool within a minute".into())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
