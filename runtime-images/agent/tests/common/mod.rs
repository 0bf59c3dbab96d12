//! A real agent as the first process of namespaces of its own, so it runs exactly as in a container: it is
//! PID 1, we are outside its PID namespace, and its loopback, `/run` and `/var` are its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is the report")]
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use davit_link::{
    Failure, InitDone, InitRequest, InvokeHead, InvokeResult, Kind, Link, LinkError, LinkEvent, Place,
};
use tokio::sync::mpsc;

const SET_UP: &str = "set -e
mount -t tmpfs -o mode=1777 t /var && mkdir /var/task
mount -t tmpfs -o mode=1777 t /run && mkdir /run/davit && mount --bind \"$1\" /run/davit
ip link set lo up
exec \"$2\"";

/// One agent, and the link to it.
pub struct Instance {
    process: Child,
    folder: tempfile::TempDir,
    pub link: Option<Link>,
    pub events: Option<mpsc::Receiver<LinkEvent>>,
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub fn unix_ms(after: Duration) -> u64 {
    (SystemTime::now() + after).duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Instance {
    /// Starts an agent and connects to it.
    pub async fn start(runtime_command: Option<&[&str]>) -> Self {
        let mut instance = Self::start_unlinked(runtime_command);
        let (link, events) = Link::connect(&Place::Socket(instance.socket()), soon()).await.unwrap();
        instance.link = Some(link);
        instance.events = Some(events);
        instance
    }

    /// Starts an agent that nobody connects to yet.
    pub fn start_unlinked(runtime_command: Option<&[&str]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--pid", "--fork", "--net", "--mount", "--kill-child"]);
        // A /proc of the new namespace, or the agent would look at its parent's.
        command.args(["--mount-proc", "sh", "-c", SET_UP, "sh"]).arg(folder.path());
        command.arg(env!("CARGO_BIN_EXE_davit-agent")).stdin(Stdio::null());
        command.env_remove("DAVIT_RUNTIME_COMMAND");
        if let Some(words) = runtime_command {
            command.env("DAVIT_RUNTIME_COMMAND", serde_json::to_string(words).unwrap());
        }
        let process = command.spawn().expect("unshare is needed for this test");
        Self { process, folder, link: None, events: None }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub fn link(&self) -> &Link {
        self.link.as_ref().unwrap()
    }

    pub async fn init(&self, request: InitRequest, files: &[(&str, &str)]) -> Result<InitDone, LinkError> {
        let (bundle, size) = bundle(files);
        self.link().init(InitRequest { bundle_size: size, ..request }, bundle, soon()).await
    }

    pub async fn invoke(&self, id: &str, event: &str, limit: Duration) -> Result<InvokeResult, LinkError> {
        self.link().invoke(head(id, limit), Bytes::copy_from_slice(event.as_bytes()), soon()).await
    }

    /// Waits until the agent's process has ended.
    pub async fn gone(&mut self) {
        let until = soon();
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the agent is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts a function container as davit does: no capabilities, no new privileges, read-only, small.
    pub async fn container(runtime: &str, memory_mb: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let agent = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/agent/davit-agent");
        let mut command = Command::new("docker");
        command.args([
            "run",
            "--rm",
            "--network",
            "none",
            "--cap-drop",
            "ALL",
            "--read-only",
            "--user",
            "993:993",
        ]);
        command.args(["--security-opt", "no-new-privileges", "--pids-limit", "256"]);
        command.args(["--tmpfs", "/tmp:mode=1777", "--tmpfs", "/var/task:uid=993,gid=993,mode=0755,exec"]);
        command.args(["--memory", &format!("{memory_mb}m"), "--memory-swap", &format!("{memory_mb}m")]);
        command.args(["-v", &format!("{}:/run/davit", folder.path().display())]);
        command.args(["-v", &format!("{agent}:/opt/davit/agent:ro")]);
        command.arg(format!("davit/runtime-{runtime}:latest")).stdin(Stdio::null());
        let process = command.spawn().expect("docker is needed for this test");
        let mut instance = Self { process, folder, link: None, events: None };
        let (link, events) = Link::connect(&Place::Socket(instance.socket()), soon()).await.unwrap();
        instance.link = Some(link);
        instance.events = Some(events);
        instance
    }

    /// The lines until the link closes, and how the instance ended.
    pub async fn rest(&mut self) -> (Vec<davit_link::LogEntry>, Option<Failure>) {
        let mut lines = Vec::new();
        let mut failure = None;
        let events = self.events.as_mut().unwrap();
        loop {
            match tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap() {
                Some(LinkEvent::Log(more)) => lines.extend(more),
                Some(LinkEvent::Asked(_) | LinkEvent::Leaving) => {}
                Some(LinkEvent::Exited(why)) => failure = Some(why),
                Some(LinkEvent::Closed) | None => return (lines, failure),
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn head(id: &str, limit: Duration) -> InvokeHead {
    InvokeHead {
        request_id: id.into(),
        deadline_unix_ms: unix_ms(limit),
        arn: "arn:aws:lambda:us-east-1:000000000000:function:test".into(),
        trace_id: "Root=1-5759e988-bd862e3fe1be46a994272793".into(),
        client_context: Some("{\"x\":\"y\"}".into()),
        timeout_seconds: None,
        result_window: 0,
    }
}

pub fn request(kind: Kind) -> InitRequest {
    InitRequest {
        function_name: "test".into(),
        version: "1".into(),
        namespace: "default".into(),
        kind,
        handler: "app.handler".into(),
        command: Vec::new(),
        env: BTreeMap::from([("COLOUR".into(), "blue".into())]),
        memory_mb: 128,
        timeout_seconds: 1,
        concurrency: 1,
        init_timeout_ms: 10_000,
        arn: "arn:aws:lambda:us-east-1:000000000000:function:test".into(),
        log_group: "/davit/default/test".into(),
        log_stream: "s".into(),
        bundle_digest: "sha256:0".into(),
        bundle_size: 0,
        code_mounted: false,
        answers_asks: true,
        debugger: None,
    }
}

pub fn bundle(files: &[(&str, &str)]) -> (File, u64) {
    let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let file = builder.into_inner().unwrap();
    let size = file.metadata().unwrap().len();
    (file, size)
}
