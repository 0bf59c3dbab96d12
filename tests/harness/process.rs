//! One davit of its own: started, killed, restarted and cleaned up by the test that holds it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Cli, containers_of, eventually, networks_of};

/// `davit up` in a state directory of its own.
#[derive(Debug)]
pub struct Davit {
    state: tempfile::TempDir,
    binary: PathBuf,
    child: Option<Child>,
    /// A client for HTTP calls that a test makes itself.
    pub http: reqwest::Client,
    settings: Vec<(String, String)>,
}

/// The binary under test: `DAVIT_BIN`, else the debug build of this workspace.
fn binary() -> PathBuf {
    let path = std::env::var_os("DAVIT_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/davit"), PathBuf::from);
    assert!(path.exists(), "{path:?} does not exist: build it with `cargo build -p davit`");
    path
}

impl Davit {
    /// Starts a davit and waits until it is ready.
    pub async fn up() -> Self {
        Self::up_with(&[]).await
    }

    /// Starts a davit with settings in its environment.
    pub async fn up_with(settings: &[(&str, &str)]) -> Self {
        // Unix socket paths are limited to 107 bytes, so the directory lies directly under /tmp.
        let state =
            tempfile::Builder::new().prefix("davit-e2e-").tempdir_in("/tmp").expect("a state directory");
        // Only loopback is spoken to, but the HTTP client wants to know how it would do TLS; a second call is refused.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut davit = Self {
            state,
            binary: binary(),
            child: None,
            http: reqwest::Client::builder().build().expect("an HTTP client"),
            settings: settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        davit.start().await;
        davit
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The client, with the token of the installation's first administrator.
    pub fn cli(&self) -> Cli {
        Cli { binary: self.binary.clone(), state: self.state.path().to_owned(), token: None }
    }

    /// What davit wrote about where it listens and who it is.
    pub fn endpoint(&self, field: &str) -> String {
        let text = std::fs::read_to_string(self.state().join("endpoint.json")).expect("endpoint.json");
        let value: Value = serde_json::from_str(&text).expect("endpoint.json is JSON");
        value[field].as_str().unwrap_or_else(|| panic!("endpoint.json has no {field}: {text}")).to_owned()
    }

    /// A URL on the gateway's public listener.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint("gateway_url").trim_end_matches('/'))
    }

    /// The first administrator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("token")).expect("the token file").trim().to_owned()
    }

    /// Containers of this installation.
    pub fn containers(&self) -> Vec<String> {
        containers_of(&self.endpoint("installation"))
    }

    /// Everything the process has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.state().join("up.log")).unwrap_or_default()
    }

    /// Starts the process again on the same state and waits until it is ready.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let _ = std::fs::remove_file(self.state().join("endpoint.json"));
        let log =
            File::options().create(true).append(true).open(self.state().join("up.log")).expect("a log file");
        let mut command = Command::new(&self.binary);
        command
            .args(["up", "--public", "127.0.0.1:0", "--management", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .env("DAVIT_STATE_DIR", self.state())
            .envs(self.settings.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.child = Some(command.spawn().expect("davit starts"));
        eventually("davit to be ready", async || {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("davit up ended with {status}:\n{}", self.log());
            }
            if !self.state().join("endpoint.json").exists() {
                return Err(self.log());
            }
            let url = format!("{}/readyz", self.endpoint("admin_url").trim_end_matches('/'));
            match self.http.get(url).send().await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                other => Err(format!("{other:?}\n{}", self.log())),
            }
        })
        .await;
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the kill is delivered");
        child.wait().expect("the process is reaped");
    }

    /// Asks the process to end and waits until it has.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(45) {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Davit {
    fn drop(&mut self) {
        // A killed davit cleans up after its former self, so one that was left dead is started once more.
        let installation = std::fs::read_to_string(self.state().join("endpoint.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .and_then(|value| value["installation"].as_str().map(str::to_owned));
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- log of davit ---\n{}", self.log());
        }
        let Some(installation) = installation else { return };
        let left = containers_of(&installation);
        for id in &left {
            let _ = Command::new("docker").args(["rm", "-f", id]).output();
        }
        for name in networks_of(&installation) {
            let _ = Command::new("docker").args(["network", "rm", &name]).output();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "davit left {} containers behind when it was stopped", left.len());
        }
    }
}
