//! Running the command-line client as a user would, against one davit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The client, pointed at one davit's state directory.
#[derive(Clone, Debug)]
pub struct Cli {
    pub(crate) binary: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) token: Option<String>,
    /// More of its environment, such as addresses that no `endpoint.json` names.
    pub(crate) settings: Vec<(String, String)>,
}

/// What a run of the client printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Exit code; 128 and the signal's number when it was killed.
    pub code: i32,
    /// Standard output as text.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
}

/// A run of the client that is under way.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// What Ctrl-C sends.
    pub fn interrupt(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::INT).expect("it runs");
    }

    /// Waits for its end.
    pub async fn ended(self) -> Output {
        let output = tokio::task::spawn_blocking(move || self.0.wait_with_output())
            .await
            .expect("the blocking task ends")
            .expect("its output can be read");
        Output {
            code: output.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Output {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

impl Cli {
    /// The program, for what runs beside a story.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The same client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client with one more variable in its environment.
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the client in a folder and returns whatever happened.
    pub async fn try_in(&self, folder: &Path, args: &[&str]) -> Output {
        self.start_in(folder, args).ended().await
    }

    /// Starts the client in a folder.
    pub fn start_in(&self, folder: &Path, args: &[&str]) -> Running {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(folder).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("DAVIT_STATE_DIR", &self.state).env_remove("DAVIT_URL").env_remove("DAVIT_TOKEN");
        command.envs(self.settings.iter().map(|(k, v)| (k, v)));
        if let Some(token) = &self.token {
            command.env("DAVIT_TOKEN", token);
        }
        Running(command.spawn().expect("the davit binary runs"))
    }

    /// Runs the client anywhere and returns whatever happened.
    pub async fn attempt(&self, args: &[&str]) -> Output {
        self.try_in(&self.state, args).await
    }

    /// Runs the client and expects success.
    pub async fn run(&self, args: &[&str]) -> Output {
        let output = self.attempt(args).await;
        assert_eq!(output.code, 0, "davit {args:?}: {output:?}");
        output
    }

    /// Calls a function and expects an answer; tries again when davit says that it had no room and that
    /// trying again is safe, which on a busy machine is no error.
    pub async fn invoke(&self, function: &str, event: &str) -> Output {
        let output = crate::eventually("room for the call", async || {
            let output = self.attempt(&["invoke", function, event]).await;
            if output.code == 6 { Err(output) } else { Ok(output) }
        })
        .await;
        assert_eq!(output.code, 0, "davit invoke {function} {event}: {output:?}");
        output
    }

    /// Runs the client with JSON output and expects success.
    pub async fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
        self.run(&args).await.json()
    }

    /// Deploys a folder and expects that it becomes live.
    pub async fn deploy(&self, folder: &Path) -> Output {
        let output = self.try_in(folder, &["deploy"]).await;
        assert_eq!(output.code, 0, "davit deploy in {folder:?}: {output:?}");
        output
    }

    /// Deploys one of the repository's examples.
    pub async fn deploy_example(&self, name: &str) -> Output {
        self.deploy(&crate::examples().join(name)).await
    }

    /// Deploys a function written in the test: file names and their texts.
    pub async fn deploy_files(&self, files: &[(&str, &str)]) -> Output {
        self.deploy(folder_of(files).path()).await
    }

    /// Deploys a Python function: more of its settings, one a line, and the file with `handler`.
    pub async fn deploy_python(&self, name: &str, settings: &str, code: &str) -> Output {
        self.deploy(python_folder(name, settings, code).path()).await
    }
}

/// A folder with these files: their names and texts.
pub fn folder_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("the file is written");
    }
    folder
}

/// A folder with a Python function: more of its settings, one a line, and the file with `handler`.
pub fn python_folder(name: &str, settings: &str, code: &str) -> tempfile::TempDir {
    let toml =
        format!("name = \"{name}\"\nruntime = \"python3.13\"\nhandler = \"app.handler\"\n{settings}\n");
    folder_of(&[("davit.toml", &toml), ("app.py", code)])
}
