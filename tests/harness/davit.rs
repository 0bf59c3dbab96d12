//! One davit of its own: `davit up`, started, killed, restarted and cleaned up by the story that holds it.

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde_json::Value;

use crate::cluster::{Cluster, Room};
use crate::process::{Process, binary, http_client, state_dir};
use crate::{Api, Cli, Gate, containers_of, docker, eventually, postgres};

/// `davit up` in a state directory of its own.
#[derive(Debug)]
pub struct Davit {
    // Dropped first: the process ends before its directory goes.
    process: Process,
    state: tempfile::TempDir,
    binary: PathBuf,
    /// A client for HTTP calls that a test makes itself.
    pub http: reqwest::Client,
    /// Where the engine listens, when it is not the machine's own.
    engine: Option<String>,
    /// Its place in the cluster, where one was chosen.
    room: Option<Room>,
}

impl Davit {
    /// Starts a davit and waits until it is ready.
    pub async fn up() -> Self {
        Self::up_with(&[]).await
    }

    /// Starts a davit with settings in its environment.
    pub async fn up_with(settings: &[(&str, &str)]) -> Self {
        Self::up_as(&[], settings, |_| {}).await
    }

    /// Starts a davit that is told more about its cluster, such as where pods go.
    pub async fn up_placed(more: Value) -> Self {
        Self::up_all(&[], &[], &more, |_| {}).await
    }

    /// Starts a davit through another program, such as `setpriv`, after `prepare` has seen its state directory.
    pub async fn up_as(wrapper: &[&str], settings: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        Self::up_all(wrapper, settings, &Value::Null, prepare).await
    }

    async fn up_all(
        wrapper: &[&str],
        settings: &[(&str, &str)],
        placed: &Value,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let (state, binary) = (state_dir(), binary());
        prepare(state.path());
        let mut line: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
        line.push(binary.display().to_string());
        let ports =
            ["up", "--public", "127.0.0.1:0", "--management", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        line.extend(ports.map(str::to_owned));
        let room = Cluster::chosen().map(|cluster| cluster.room_with(state.path(), placed));
        let mut all = vec![("DAVIT_STATE_DIR".to_owned(), state.path().display().to_string())];
        all.extend(room.iter().flat_map(|room| room.settings.clone()));
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let engine = settings.iter().find(|(k, v)| *k == "DOCKER_HOST" && !Gate::is(v));
        let engine = engine.map(|(_, v)| (*v).to_owned());
        let process = Process::new(line, all, state.path().join("up.log"));
        let mut davit = Self { process, state, binary, http: http_client(), engine, room };
        davit.start().await;
        davit
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// The client, with the token of the installation's first administrator.
    pub fn cli(&self) -> Cli {
        Cli {
            binary: self.binary.clone(),
            state: self.state.path().to_owned(),
            token: None,
            settings: Vec::new(),
        }
    }

    /// The HTTP APIs, with the same token.
    pub fn api(&self) -> Api {
        let url = |field| self.endpoint(field).trim_end_matches('/').to_owned();
        Api {
            http: self.http.clone(),
            management: url("management_url"),
            gateway: url("gateway_url"),
            token: self.token(),
        }
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

    /// Host and port of the gateway's public listener, for what is said byte by byte.
    pub fn address(&self) -> String {
        self.url("").trim_start_matches("http://").to_owned()
    }

    /// The first administrator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("token")).expect("the token file").trim().to_owned()
    }

    /// What the admin listener shows about the process.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.admin("/status").await).expect("the status is JSON")
    }

    /// One number of the admin listener's metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("there is no metric {name}: {text}"))
    }

    async fn admin(&self, path: &str) -> String {
        let url = format!("{}{path}", self.endpoint("admin_url").trim_end_matches('/'));
        let answer = self.http.get(url).send().await.expect("the admin listener answers");
        answer.text().await.expect("a whole answer")
    }

    /// Containers of this installation.
    pub fn containers(&self) -> Vec<String> {
        containers_of(&self.endpoint("installation"))
    }

    /// Everything the process has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process of the Postgres that this davit runs for itself.
    pub fn postgres_pid(&self) -> Option<Pid> {
        postgres::pid_in(&self.state().join("pg"))
    }

    /// Asks that Postgres, past davit, and gives the answer's lines.
    pub fn ask_postgres(&self, question: &str) -> Vec<String> {
        postgres::ask(&self.state().join("pgsock"), question)
    }

    /// Starts the process again on the same state and waits until it is ready.
    pub async fn start(&mut self) {
        let _ = std::fs::remove_file(self.state().join("endpoint.json"));
        self.process.start();
        eventually("davit to be ready", async || {
            self.process.must_run();
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
        self.process.pid()
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks the process to end and waits until it has.
    pub fn stop(&mut self) {
        self.process.stop();
    }
}

impl Drop for Davit {
    fn drop(&mut self) {
        let installation = std::fs::read_to_string(self.state().join("endpoint.json"))
            .ok()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .and_then(|value| value["installation"].as_str().map(str::to_owned));
        self.stop();
        // A story that failed between a kill and the next start leaves a Postgres that nobody would stop.
        postgres::end_orphan(&self.state().join("pg"));
        if std::thread::panicking() {
            eprintln!("--- log of davit ---\n{}", self.log());
        }
        // An engine of the story's own takes everything in it along when it goes.
        match (&self.room, installation) {
            (Some(room), Some(installation)) => room.must_be_empty(&installation),
            (None, Some(installation)) if self.engine.is_none() => docker::must_be_empty(&installation),
            _ => {}
        }
        let mounted = docker::unmount_below(self.state());
        if self.engine.is_none() && !std::thread::panicking() {
            assert!(mounted.is_empty(), "davit left mounts behind when it was stopped: {mounted:?}");
        }
    }
}
