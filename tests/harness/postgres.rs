//! A Postgres outside of davit: started, killed and kept down by the story that holds it. And a way to ask any
//! Postgres what it sees, past davit.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::state_dir;
use crate::roles::free_port;
use crate::{eventually, is_root};

/// A server that listens on a Unix socket only, or on a port of this machine, too.
#[derive(Debug)]
pub struct Postgres {
    dir: tempfile::TempDir,
    tcp: Option<u16>,
    /// Where it listens when it has a port.
    host: &'static str,
    user: Option<(u32, u32)>,
    child: Option<Child>,
}

impl Postgres {
    /// Makes a server with an empty database `davit` and waits until it answers.
    pub async fn start_new() -> Self {
        Self::make(None).await
    }

    /// The same with a port, as users' own databases have one.
    pub async fn start_new_with_port() -> Self {
        Self::make(Some(free_port())).await
    }

    /// Starts a standby that follows this one, at another address and the same port. From here on this one's commits wait
    /// until the standby has them, too.
    pub async fn start_standby(&self) -> Self {
        let mut standby = Self::prepare(self.tcp, "127.0.0.2");
        let copied = standby
            .command("pg_basebackup")
            .args(["--username=davit", "--no-sync", "--checkpoint=fast", "--write-recovery-conf"])
            .args(["--port", &self.port().to_string(), "--host"])
            .arg(self.socket())
            .arg("-D")
            .arg(standby.dir.path().join("data"))
            .output()
            .expect("pg_basebackup runs");
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        standby.start().await;
        self.ask("alter system set synchronous_standby_names = '*'");
        self.ask("select pg_reload_conf()");
        eventually("the standby to follow", async || {
            let state = self.ask("select sync_state from pg_stat_replication");
            if state == ["sync"] { Ok(()) } else { Err(state) }
        })
        .await;
        standby
    }

    /// Makes a standby the one that is written to.
    pub fn promote(&self) {
        assert_eq!(self.ask("select pg_promote()"), ["t"]);
    }

    /// From here on it takes connections at its port from those alone who speak TLS and show a certificate for davit.
    pub fn demand_certificates(&self) -> Keys {
        let keys = Keys::for_server(self.host);
        let data = self.dir.path().join("data");
        for name in ["server.crt", "server.key", "ca.crt"] {
            let path = data.join(name);
            fs::copy(keys.path(name), &path).expect("a copy");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
            if let Some((uid, gid)) = self.user {
                chown(&path, Some(uid), Some(gid)).expect("its owner is set");
            }
        }
        let who = "local all all trust\nhostssl all all all cert\n";
        fs::write(data.join("pg_hba.conf"), who).expect("the rules are written");
        for (name, value) in [
            ("ssl_cert_file", "server.crt"),
            ("ssl_key_file", "server.key"),
            ("ssl_ca_file", "ca.crt"),
            ("ssl", "on"),
        ] {
            self.ask(&format!("alter system set {name} = '{value}'"));
        }
        assert_eq!(self.ask("select pg_reload_conf()"), ["t"]);
        keys
    }

    async fn make(tcp: Option<u16>) -> Self {
        let mut postgres = Self::prepare(tcp, "127.0.0.1");
        let made = postgres
            .command("initdb")
            .args(["--username=davit", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(postgres.dir.path().join("data"))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.start().await;
        let made = postgres
            .command("createdb")
            .args(["--username=davit", "davit", "--port", &postgres.port().to_string(), "--host"])
            .arg(postgres.socket())
            .output()
            .expect("createdb runs");
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres
    }

    /// Directories for one, of the user that it runs as.
    fn prepare(tcp: Option<u16>, host: &'static str) -> Self {
        let dir = state_dir();
        // The server refuses to run as root.
        let user = is_root().then(|| user_ids("postgres").or_else(|| user_ids("nobody")).expect("a user"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("its mode is set");
        for name in ["data", "socket"] {
            let path = dir.path().join(name);
            fs::create_dir(&path).expect("a directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode is set");
            if let Some((uid, gid)) = user {
                chown(&path, Some(uid), Some(gid)).expect("its owner is set");
            }
        }
        Self { dir, tcp, host, user, child: None }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// The number in its sockets' names, and its port when it has one.
    fn port(&self) -> u16 {
        self.tcp.unwrap_or(5432)
    }

    /// The server's address.
    pub fn url(&self) -> String {
        match self.tcp {
            Some(port) => format!("postgres://davit:any@{}:{port}/davit", self.host),
            None => format!("postgres://davit@localhost/davit?host={}", self.socket().display()),
        }
    }

    /// Starts it again and waits until it answers. Right after a kill the old server's processes may still be there,
    /// which a new one refuses to work beside; then it is started once more.
    pub async fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let (socket, port) = (self.socket(), self.port());
        eventually("Postgres to answer", async || {
            let ended = self.child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|e| e.is_some()));
            if ended {
                self.child = Some(self.spawn());
            }
            let output = psql(&socket, port, "postgres", "select 1");
            if output.status.success() { Ok(()) } else { Err(output) }
        })
        .await;
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"));
        let log = log.expect("a log file");
        let socket = format!("unix_socket_directories={}", self.socket().display());
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.dir.path().join("data"));
        // Killed processes lose nothing without fsync; only a power cut would.
        let (listen, port) = (if self.tcp.is_some() { self.host } else { "" }, self.port());
        let (listen, port) = (format!("listen_addresses={listen}"), format!("port={port}"));
        for setting in [&listen, &port, &socket, "fsync=off", "max_connections=100"] {
            command.arg("-c").arg(setting);
        }
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.spawn().expect("postgres starts")
    }

    /// Kills the server's first process; its others notice and end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("the kill is delivered");
        child.wait().expect("the process is reaped");
    }

    /// Whether it was started and not killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Ends every session of davit's database but the one that asks. Answers how many there were.
    pub fn cut_sessions(&self) -> usize {
        let all = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'davit' and pid <> pg_backend_pid()";
        self.ask(all).len()
    }

    /// What it answers, line by line.
    pub fn ask(&self, question: &str) -> Vec<String> {
        answered(psql(&self.socket(), self.port(), "davit", question), question)
    }

    /// Asks without waiting for the answer here, and whatever becomes of it.
    pub fn ask_aside(&self, question: String) -> tokio::task::JoinHandle<bool> {
        let (socket, port) = (self.socket(), self.port());
        tokio::task::spawn_blocking(move || psql(&socket, port, "davit", &question).status.success())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).current_dir("/").process_group(0);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The quick way: it ends its own processes and leaves what is on disk, which goes anyway.
        let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
        let _ = child.wait();
    }
}

/// Certificates of one authority, as files: `ca.crt`, and `.crt` and `.key` of `server` and `davit`.
#[derive(Debug)]
pub struct Keys(tempfile::TempDir);

impl Keys {
    /// For a server at this address.
    pub fn for_server(address: &str) -> Self {
        let keys = Self(state_dir());
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        keys.write("ca.crt", &authority.pem());
        for (who, name) in [("server", address), ("davit", "davit")] {
            let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
            params.distinguished_name.push(DnType::CommonName, who);
            let key = KeyPair::generate().expect("a key");
            let signed = params.signed_by(&key, &authority).expect("a certificate");
            keys.write(&format!("{who}.crt"), &signed.pem());
            keys.write(&format!("{who}.key"), &key.serialize_pem());
        }
        keys
    }

    /// Where one of them is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, pem: &str) {
        fs::write(self.path(name), pem).expect("the directory takes a file");
    }
}

/// The directory of the newest installed server's programs.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    found.sort();
    found.reverse();
    found.extend(std::env::split_paths(&path));
    found.into_iter().find(|dir| dir.join("initdb").is_file()).expect("a Postgres server is installed")
}

fn user_ids(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2).map_while(|field| field.parse().ok());
    Some((fields.next()?, fields.next()?))
}

/// The first process of the server whose data is there, if one is on record.
pub(crate) fn pid_in(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

/// Ends the server whose data is there, if one still runs. It is known by working in that directory.
pub(crate) fn end_orphan(data: &Path) {
    let Some(pid) = pid_in(data) else { return };
    let works_there = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).is_ok_and(|at| at == data);
    if works_there {
        let _ = kill_process(pid, Signal::QUIT);
    }
}

/// Asks the server behind a socket's directory; the answer's lines.
pub(crate) fn ask(socket: &Path, question: &str) -> Vec<String> {
    answered(psql(socket, 5432, "davit", question), question)
}

fn answered(output: std::process::Output, question: &str) -> Vec<String> {
    assert!(output.status.success(), "psql {question:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn psql(socket: &Path, port: u16, database: &str, question: &str) -> std::process::Output {
    let mut command = Command::new(programs().join("psql"));
    command.args(["-XAtq", "-U", "davit", "-d", database, "-p", &port.to_string(), "-c", question, "-h"]);
    command.arg(socket).env_clear().stdin(Stdio::null()).output().expect("psql runs")
}
