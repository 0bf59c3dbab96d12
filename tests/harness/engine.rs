//! A container engine of the story's own, so that it can be killed: the machine's engine belongs to everybody.
//!
//! It lives in namespaces of its own (network, mounts, processes), so its firewall rules and mounts touch
//! nothing, and the end of the namespaces' first process ends the engine and every container with it.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::state_dir;
use crate::{eventually, is_root};

/// A private dockerd.
#[derive(Debug)]
pub struct Engine {
    dir: tempfile::TempDir,
    /// First process of the namespaces.
    holder: Child,
    /// The way in; waits for the engine, which is its child.
    entry: Option<Child>,
}

/// Reaps what the engine's processes leave behind, as the first process of a namespace must.
const HOLDER: &str = "while :; do sleep 1; done";

impl Engine {
    /// Starts one that has the named images of the machine's engine. `None` when this needs rights that are
    /// missing: only root may.
    pub async fn start_with(images: &[&str]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let dir = state_dir();
        let holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "bash",
                "-c",
                HOLDER,
            ])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare runs");
        let mut engine = Self { dir, holder, entry: None };
        eventually("the namespaces", async || engine.inner().ok_or("no first process yet")).await;
        engine.start().await;
        for image in images {
            let mut save = Command::new("docker")
                .args(["save", image])
                .stdout(Stdio::piped())
                .spawn()
                .expect("docker save runs");
            let image = save.stdout.take().expect("its output");
            let loaded = engine.docker().arg("load").stdin(image).output().expect("docker load runs");
            assert!(loaded.status.success(), "docker load: {}", String::from_utf8_lossy(&loaded.stderr));
            assert!(save.wait().expect("docker save ends").success());
        }
        Some(engine)
    }

    /// The namespaces' first process, by its number outside; it is the only child of `unshare`.
    fn inner(&self) -> Option<String> {
        let pid = self.holder.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let child = children.split_whitespace().next()?.to_owned();
        // It is `unshare` itself until it has become the shell, and only then is /proc its own.
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim() == "bash").then_some(child)
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--pid", "--target", &self.inner().expect("the namespaces live")]);
        command.stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// The docker client, pointed at it.
    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]);
        command
    }

    /// A listener in the engine's own network, on all its addresses: what containers reach at their bridge's address.
    pub fn listen(&self, port: u16) -> TcpListener {
        let network = format!("/proc/{}/ns/net", self.inner().expect("the namespaces live"));
        // Only a thread enters the network, and it ends; a socket stays where it was made.
        let bound = std::thread::spawn(move || {
            let network = File::open(network)?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpListener::bind(("0.0.0.0", port))
        });
        bound.join().expect("the thread ends").expect("a listener in the engine's network")
    }

    /// Starts the engine, again or for the first time, and waits until it answers.
    pub async fn start(&mut self) {
        assert!(self.entry.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log file");
        let mut command = self.inside();
        command.args(["dockerd", "--bridge=none", "--host", &self.host()]);
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(self.path(name));
        }
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.entry = Some(command.spawn().expect("dockerd starts"));
        eventually("the engine to answer", async || {
            let output = self.docker().arg("info").output().expect("the docker client runs");
            if output.status.success() { Ok(()) } else { Err(self.log()) }
        })
        .await;
    }

    /// Kills the engine at once. Its containers go on without it, as they do on a machine whose engine crashed.
    pub fn kill(&mut self) {
        // The file holds the number inside, so the kill happens inside, too.
        let script = format!("kill -9 \"$(cat '{}')\"", self.path("pid").display());
        let status = self.inside().args(["bash", "-c", &script]).status().expect("nsenter runs");
        assert!(status.success(), "the kill is delivered");
        self.entry.take().expect("it runs").wait().expect("the engine's end is seen");
    }

    /// Kills every container's first process, as a crash of the whole machine would.
    pub fn kill_containers(&self) {
        let script = "for c in /proc/[0-9]*; do [ \"$(cat $c/comm 2> /dev/null)\" = agent ] && kill -9 ${c#/proc/}; done; true";
        let status = self.inside().args(["bash", "-c", script]).status().expect("nsenter runs");
        assert!(status.success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(60).collect::<Vec<_>>();
            eprintln!("--- last lines of the engine, newest first ---\n{}", tail.join("\n"));
        }
        // The kernel ends everything in the namespaces before their first process is gone; `unshare` waits for
        // it, and takes it along should it have to be killed itself.
        let first = self.inner().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        match first {
            Some(pid) => drop(kill_process(pid, Signal::KILL)),
            None => drop(self.holder.kill()),
        }
        let _ = self.holder.wait();
        if let Some(mut entry) = self.entry.take() {
            let _ = entry.kill();
            let _ = entry.wait();
        }
    }
}
