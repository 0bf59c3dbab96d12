//! For tests: a Postgres that stands for a user's own, with a TCP port and passwords. One server a test process, a
//! fresh database a test; the server stops with the last of them.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{fs, net};

use davit_daemon::Allowed;
use tokio::sync::Mutex;
use tokio_postgres::SimpleQueryMessage;

use crate::{Address, Session};

/// What every user's password is. An odd one, so that it is found when it leaks.
pub const PASSWORD: &str = "pass/wörd-7b1e";

static SERVER: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());
static NUMBER: AtomicU32 = AtomicU32::new(0);

struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        let _ = self.child.wait();
    }
}

/// A database of somebody's own.
pub struct UserDatabase {
    name: String,
    server: Arc<Server>,
}

/// A connection to it, for what the user does.
pub struct Client(Session);

impl UserDatabase {
    /// Makes one; panics when it cannot, as a test would.
    pub async fn new() -> Self {
        let mut slot = SERVER.lock().await;
        let server = match slot.upgrade() {
            Some(server) => server,
            None => {
                let server = Arc::new(start().await);
                *slot = Arc::downgrade(&server);
                server
            }
        };
        let name = format!("user_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let database = Self { name: "postgres".into(), server };
        database.client().await.run(&format!("create database {name}")).await;
        Self { name, ..database }
    }

    /// The address of a user; `owner` may do everything, others are made by the test.
    pub fn url(&self, user: &str) -> String {
        let password: String = PASSWORD.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("postgres://{user}:{password}@localhost:{}/{}", self.server.port, self.name)
    }

    /// What lets connect to it.
    pub fn allowed() -> Allowed {
        "127.0.0.1, ::1".parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A connection of its owner.
    pub async fn client(&self) -> Client {
        self.client_of("owner").await
    }

    /// A connection of another.
    pub async fn client_of(&self, user: &str) -> Client {
        let address = Address::parse(&self.url(user)).unwrap_or_else(|error| panic!("{error}"));
        let session = Session::connect(&address, &Self::allowed()).await;
        Client(session.unwrap_or_else(|error| panic!("{error}")))
    }

    /// Makes a user who may connect, and nothing more.
    pub async fn add_user(&self, user: &str) {
        self.client().await.run(&format!("create user {user} password '{PASSWORD}'")).await;
    }

    /// Lets nobody in and ends every connection, as if the database were down.
    pub async fn close(&self) {
        let admin = Self { name: "postgres".into(), server: self.server.clone() }.client().await;
        admin.run(&format!("alter database {} allow_connections false", self.name)).await;
        let end =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'", self.name);
        admin.ask(&end).await;
    }

    /// Lets everybody in again.
    pub async fn open(&self) {
        let admin = Self { name: "postgres".into(), server: self.server.clone() }.client().await;
        admin.run(&format!("alter database {} allow_connections true", self.name)).await;
    }
}

impl Client {
    /// Runs statements.
    pub async fn run(&self, statements: &str) {
        self.attempt(statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Runs statements that may fail.
    pub async fn attempt(&self, statements: &str) -> Result<(), String> {
        self.0.client.batch_execute(statements).await.map_err(|e| match e.as_db_error() {
            Some(db) => db.message().to_owned(),
            None => e.to_string(),
        })
    }

    /// The first column of what a question answers.
    pub async fn ask(&self, question: &str) -> Vec<String> {
        let messages = self.0.client.simple_query(question).await;
        let messages = messages.unwrap_or_else(|error| panic!("{question}: {error}"));
        let value = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        };
        messages.iter().filter_map(value).collect()
    }
}

async fn start() -> Server {
    let dir = tempfile::Builder::new().prefix("davit-user-pg-").tempdir();
    let dir = dir.unwrap_or_else(|error| panic!("a directory: {error}"));
    let made = prepare(dir.path());
    let (programs, user) = made.unwrap_or_else(|error| panic!("no user's database: {error}"));
    let port = free_port();
    let log = fs::File::create(dir.path().join("log")).unwrap_or_else(|error| panic!("a log: {error}"));
    let mut command = command(&programs.join("postgres"), user);
    command.arg("-D").arg(dir.path().join("data"));
    let (port_setting, sockets) =
        (format!("port={port}"), format!("unix_socket_directories={}", dir.path().join("data").display()));
    for setting in [
        "listen_addresses=127.0.0.1",
        &port_setting,
        &sockets,
        "fsync=off",
        "synchronous_commit=off",
        "max_connections=100",
        "shared_buffers=32MB",
        "ssl=on",
    ] {
        command.arg("-c").arg(setting);
    }
    let child = command.stderr(log).spawn().unwrap_or_else(|error| panic!("postgres: {error}"));
    let server = Server { child, port, dir };
    let until = Instant::now() + Duration::from_secs(60);
    let address = format!(
        "postgres://owner:{}@localhost:{port}/postgres",
        PASSWORD.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
    );
    let address = Address::parse(&address).unwrap_or_else(|error| panic!("{error}"));
    while let Err(error) = Session::connect(&address, &UserDatabase::allowed()).await {
        let log = || fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
        assert!(Instant::now() < until, "the user's database does not answer: {error}; {}", log());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    server
}

fn prepare(dir: &Path) -> std::io::Result<(PathBuf, Option<(u32, u32)>)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(installed.map(|entry| entry.path().join("bin")));
    let programs = places.into_iter().find(|place| place.join("initdb").is_file());
    let programs = programs.ok_or_else(|| std::io::Error::other("no Postgres server is installed"))?;
    // The server refuses to run as root.
    let user = rustix::process::geteuid().is_root().then(unprivileged).flatten();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
    let (data, password) = (dir.join("data"), dir.join("password"));
    fs::create_dir(&data)?;
    fs::write(&password, PASSWORD)?;
    if let Some((uid, gid)) = user {
        chown(&data, Some(uid), Some(gid))?;
        chown(&password, Some(uid), Some(gid))?;
    }
    let mut initdb = command(&programs.join("initdb"), user);
    initdb.args(["--username=owner", "--auth-local=trust", "--auth-host=scram-sha-256"]);
    initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "-D"]).arg(&data);
    initdb.arg("--pwfile").arg(&password);
    let output = initdb.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    certificate(&data, user)?;
    Ok((programs, user))
}

/// A certificate that nobody signed.
fn certificate(data: &Path, user: Option<(u32, u32)>) -> std::io::Result<()> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(std::io::Error::other)?;
    for (name, text) in [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())] {
        let path = data.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some((uid, gid)) = user {
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    command.process_group(0);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn unprivileged() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map_while(|field| field.parse().ok());
        Some((ids.next()?, ids.next()?))
    };
    find("postgres").or_else(|| find("nobody"))
}

/// One that nobody listens on now.
fn free_port() -> u16 {
    let bound = net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.unwrap_or_else(|error| panic!("a port: {error}")).port()
}
