//! One process of davit in a state directory: started, killed and stopped by the story that holds it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How to start a process, and the process while it runs. Ends, at the latest, when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    /// The program and its arguments; a wrapper such as `setpriv` comes first.
    pub(crate) line: Vec<String>,
    pub(crate) settings: Vec<(String, String)>,
    /// Where standard output and standard error go, each start after the other.
    pub(crate) log: PathBuf,
    child: Option<Child>,
}

/// The binary under test: `DAVIT_BIN`, else the debug build of this workspace.
pub(crate) fn binary() -> PathBuf {
    let path = std::env::var_os("DAVIT_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/davit"), PathBuf::from);
    assert!(path.exists(), "{path:?} does not exist: build it with `cargo build -p davit`");
    path
}

/// A state directory. Unix socket paths are limited to 107 bytes, so it lies directly under /tmp.
pub(crate) fn state_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("davit-e2e-").tempdir_in("/tmp").expect("a state directory")
}

/// A client for HTTP calls that a story makes itself.
pub(crate) fn http_client() -> reqwest::Client {
    // Only loopback is spoken to, but the client wants to know how it would do TLS; a second call is refused.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("an HTTP client")
}

impl Process {
    pub(crate) fn new(line: Vec<String>, settings: Vec<(String, String)>, log: PathBuf) -> Self {
        Self { line, settings, log, child: None }
    }

    /// Starts it; it must not run yet.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        let mut command = Command::new(&self.line[0]);
        command
            .args(&self.line[1..])
            .env_remove("DATABASE_URL")
            .envs(self.settings.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("{:?} does not start: {e}", self.line)));
    }

    /// Panics with the log if it has ended by itself.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
            panic!("{:?} ended with {status}:\n{}", self.line, self.log());
        }
    }

    /// Everything it has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Whether it was started and neither killed nor stopped since; it may have ended by itself.
    pub(crate) fn started(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it has by itself. It can be started again then.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the signal is delivered");
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the kill is delivered");
        child.wait().expect("the process is reaped");
    }

    /// Asks it to end and waits until it has; one that takes longer than its own bound is killed.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        // A story may have frozen it; then it would not hear.
        let _ = kill_process(Pid::from_child(&child), Signal::CONT);
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

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
