//! A private Postgres: for `davit up`, which needs nothing but the server's programs on the machine, and for
//! tests. It listens on a Unix socket only, in a directory that nobody else may enter.
//!
//! A thread of its own watches the server and starts it again when it dies. A server that an earlier davit left
//! behind (it was killed, its child was not) is stopped in an orderly way before the new one starts: two servers
//! on one directory would destroy it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

/// How long a start may take: crash recovery after a power cut replays what was written since the checkpoint.
const START: Duration = Duration::from_secs(120);
/// How long an orderly stop may take before it is made a quick one.
const STOP: Duration = Duration::from_secs(20);

/// A running server. Stops with [`Postgres::stop`], or when dropped.
pub struct Postgres {
    shared: Arc<Shared>,
    watcher: Option<std::thread::JoinHandle<()>>,
    url: String,
    // Held for as long as the server may run: one davit a state directory.
    _lock: File,
}

struct Shared {
    place: Place,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    pid: Option<Pid>,
    ended: bool,
}

#[derive(Clone)]
struct Place {
    programs: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    user: Option<(u32, u32)>,
    durable: bool,
}

impl Postgres {
    /// Starts the server of a state directory, making its database at the first start; returns when it answers.
    pub async fn start(state_dir: &Path) -> io::Result<Self> {
        Self::launch(state_dir, true).await
    }

    /// As [`Postgres::start`], without waiting for the disk: a power cut loses everything. For tests.
    #[cfg(feature = "testing")]
    pub(crate) async fn start_careless(state_dir: &Path) -> io::Result<Self> {
        Self::launch(state_dir, false).await
    }

    async fn launch(state_dir: &Path, durable: bool) -> io::Result<Self> {
        let dir = state_dir.to_owned();
        let mut postgres = blocking(move || prepare(&dir, durable)).await?;
        match postgres.until_it_answers().await {
            Ok(()) => Ok(postgres),
            Err(error) => {
                postgres.halt();
                Err(error)
            }
        }
    }

    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process, while there is one.
    pub fn pid(&self) -> Option<i32> {
        lock(&self.shared).pid.map(|pid| pid.as_raw_nonzero().get())
    }

    /// Stops the server in an orderly way: connections are ended, everything is written.
    pub async fn stop(mut self) {
        let _ = blocking(move || {
            self.halt();
            Ok(())
        })
        .await;
    }

    async fn until_it_answers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START;
        let admin = self.url_of("postgres");
        loop {
            match PgConnection::connect(&admin).await {
                Ok(mut connection) => {
                    let made = connection.execute("create database davit").await;
                    let there = |e: &sqlx::Error| {
                        e.as_database_error()
                            .is_some_and(|d| matches!(d.code().as_deref(), Some("42P04" | "23505")))
                    };
                    return match made {
                        Err(error) if !there(&error) => Err(Error::other(error)),
                        _ => Ok(()),
                    };
                }
                Err(error) if Instant::now() > deadline || lock(&self.shared).ended => {
                    let log = tail(&self.shared.place.log);
                    return Err(Error::other(format!(
                        "Postgres does not start: {error}; its log ends:\n{log}"
                    )));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// The address of another database of this server.
    pub(crate) fn url_of(&self, database: &str) -> String {
        url(&self.shared.place.socket, database)
    }

    fn halt(&mut self) {
        let Some(watcher) = self.watcher.take() else { return };
        let mut state = lock(&self.shared);
        state.stopping = true;
        self.shared.changed.notify_all();
        for (signal, patience) in
            [(Signal::INT, STOP), (Signal::QUIT, Duration::from_secs(5)), (Signal::KILL, STOP)]
        {
            // The number is ours as long as it stands here: the watcher reaps under the same lock.
            if let Some(pid) = state.pid {
                let signal =
                    if self.shared.place.durable || signal == Signal::KILL { signal } else { Signal::QUIT };
                let _ = rustix::process::kill_process(pid, signal);
            }
            let waited = self.shared.changed.wait_timeout_while(state, patience, |s| !s.ended);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.ended {
                break;
            }
        }
        drop(state);
        let _ = watcher.join();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.halt();
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Error::other)?
}

fn url(socket: &Path, database: &str) -> String {
    let mut host = String::new();
    for byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                host.push(char::from(*byte))
            }
            other => host.push_str(&format!("%{other:02X}")),
        }
    }
    format!("postgres://davit@localhost/{database}?host={host}")
}

fn prepare(state_dir: &Path, durable: bool) -> io::Result<Postgres> {
    fs::create_dir_all(state_dir)?;
    let state_dir = &fs::canonicalize(state_dir)?;
    let user = if rustix::process::geteuid().is_root() { Some(unprivileged_user()?) } else { None };
    if user.is_some() {
        // The server runs as somebody else, who must be able to walk to its own directories, and no more.
        let mode = fs::metadata(state_dir)?.mode();
        fs::set_permissions(state_dir, fs::Permissions::from_mode(mode & 0o7777 | 0o711))?;
    }
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(state_dir.join("pg.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(
            ErrorKind::AddrInUse,
            format!("another davit uses the state directory {}", state_dir.display()),
        )
    })?;
    let place = Place {
        programs: programs()?,
        data: state_dir.join("pg"),
        socket: state_dir.join("pgsock"),
        log: state_dir.join("pg.log"),
        user,
        durable,
    };
    if place.socket.as_os_str().len() > 90 {
        let message = format!(
            "{} is too long for a Unix socket; choose a shorter state directory",
            place.socket.display()
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    stop_orphan(&place.data)?;
    own_dir(&place.socket, user)?;
    if !place.data.join("PG_VERSION").exists() {
        initialise(&place)?;
    }
    let url = url(&place.socket, "davit");
    let shared = Arc::new(Shared { place, state: Mutex::default(), changed: Condvar::new() });
    // The first start happens here, so that a missing program is an error and not a log line.
    let child = spawn(&shared)?;
    let watched = shared.clone();
    let watcher =
        std::thread::Builder::new().name("postgres-watch".into()).spawn(move || watch(&watched, child))?;
    Ok(Postgres { shared, watcher: Some(watcher), url, _lock: lock })
}

/// The directory that holds `initdb` and `postgres`: from PATH, else the newest of Debian's places.
fn programs() -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut installed: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().parse().unwrap_or(0), e.path().join("bin")))
        .collect();
    installed.sort();
    dirs.extend(installed.into_iter().rev().map(|(_, dir)| dir));
    let found = dirs.into_iter().find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file());
    found.ok_or_else(|| {
        let message = "no Postgres server on this machine: initdb and postgres are neither in PATH nor under \
                       /usr/lib/postgresql; install one (Debian: apt-get install postgresql), or set DATABASE_URL";
        Error::new(ErrorKind::NotFound, message)
    })
}

/// Postgres refuses to run as root: it gets `postgres` if that user exists, else `nobody`.
fn unprivileged_user() -> io::Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| -> Option<(u32, u32)> {
        let fields = users.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .ok_or_else(|| Error::other("there is no user postgres or nobody"))
}

/// A directory for the server alone.
fn own_dir(dir: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    match user {
        Some((uid, gid)) => chown(dir, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn command(place: &Place, program: &str) -> Command {
    let mut command = Command::new(place.programs.join(program));
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null()).current_dir("/");
    if let Some((uid, gid)) = place.user {
        command.uid(uid).gid(gid);
    }
    // Ctrl-C in a terminal goes to the whole group; the server must outlive what drains through it.
    command.process_group(0);
    command
}

/// Makes the data directory beside its place and moves it there when it is whole.
fn initialise(place: &Place) -> io::Result<()> {
    let draft = place.data.with_extension("new");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    own_dir(&draft, place.user)?;
    let mut command = command(place, "initdb");
    command.args(["--username=davit", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    if !place.durable {
        command.arg("--no-sync");
    }
    let output = command.arg("-D").arg(&draft).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::other(format!("initdb failed: {}", text.trim())));
    }
    fs::rename(&draft, &place.data)?;
    File::open(place.data.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Stops what still runs on this directory. A server is known by working in it (Postgres changes into its data
/// directory), never by a number alone: a stranger who got the same number is left alone.
pub(crate) fn stop_orphan(data: &Path) -> io::Result<()> {
    let lock_file = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&lock_file) else { return Ok(()) };
    let noted: Option<i32> = text.lines().next().and_then(|l| l.trim().parse().ok());
    for (signal, patience) in [(Signal::INT, STOP), (Signal::QUIT, Duration::from_secs(10))] {
        let server = noted.filter(|pid| working_in(data).contains(pid)).and_then(Pid::from_raw);
        if let Some(pid) = server {
            tracing::warn!(pid = %pid.as_raw_nonzero(), "stopping a Postgres that an earlier davit left behind");
            let _ = rustix::process::kill_process(pid, signal);
        }
        // Workers of a killed server leave a moment after it, and hold the directory until then.
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if working_in(data).is_empty() {
                // Postgres takes any living process of that number for a server. This one is a stranger.
                let stranger = noted.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
                return if stranger && lock_file.exists() { fs::remove_file(&lock_file) } else { Ok(()) };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Err(Error::other(format!(
        "processes {:?} of a Postgres on {} do not stop",
        working_in(data),
        data.display()
    )))
}

fn working_in(data: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|e| fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd == data))
        .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
        .collect()
}

/// Starts the server unless it is being stopped; then it answers `Interrupted`.
fn spawn(shared: &Shared) -> io::Result<Child> {
    let place = &shared.place;
    let mut state = lock(shared);
    if state.stopping {
        return Err(ErrorKind::Interrupted.into());
    }
    // A bound on the log: it starts anew when it has grown.
    let grown = fs::metadata(&place.log).is_ok_and(|m| m.len() > 8 << 20);
    let log = OpenOptions::new()
        .create(true)
        .append(!grown)
        .write(true)
        .truncate(grown)
        .mode(0o600)
        .open(&place.log)?;
    let (fsync, commit) = if place.durable {
        ("fsync=on", "synchronous_commit=on")
    } else {
        ("fsync=off", "synchronous_commit=off")
    };
    let mut command = command(place, "postgres");
    command.arg("-D").arg(&place.data);
    let socket = format!("unix_socket_directories=\"{}\"", place.socket.display());
    for setting in [
        "listen_addresses=",
        &socket,
        "unix_socket_permissions=0700",
        fsync,
        commit,
        if place.durable { "full_page_writes=on" } else { "full_page_writes=off" },
        "max_connections=100",
        "shared_buffers=64MB",
        "max_wal_size=512MB",
        "idle_in_transaction_session_timeout=60s",
        "log_min_messages=warning",
        "logging_collector=off",
        "timezone=UTC",
        "jit=off",
    ] {
        command.arg("-c").arg(setting);
    }
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    state.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(child)
}

/// Waits for the server to end, and starts it again unless that was wanted.
fn watch(shared: &Shared, mut child: Child) {
    let mut quick_ends = 0_u32;
    loop {
        let started = Instant::now();
        // See that it ended without reaping it: until `wait` the number cannot become somebody else's.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while rustix::process::waitid(WaitId::Pid(pid), options)
                .is_err_and(|e| e == rustix::io::Errno::INTR)
            {}
        }
        let mut state = lock(shared);
        state.pid = None;
        let status = child.wait();
        if state.stopping {
            break;
        }
        drop(state);
        tracing::error!(?status, "Postgres ended; starting it again");
        quick_ends = if started.elapsed() < Duration::from_secs(5) { quick_ends + 1 } else { 0 };
        let mut pause = Duration::from_millis(200) * 2_u32.pow(quick_ends.min(6));
        child = loop {
            let state = lock(shared);
            let waited = shared.changed.wait_timeout_while(state, pause, |s| !s.stopping);
            drop(waited);
            match stop_orphan(&shared.place.data).and_then(|()| spawn(shared)) {
                Ok(child) => break child,
                Err(error) if error.kind() == ErrorKind::Interrupted => return ended(shared),
                Err(error) => tracing::error!(%error, "cannot start Postgres"),
            }
            pause = (pause * 2).min(Duration::from_secs(15));
        };
    }
    ended(shared);
}

fn ended(shared: &Shared) {
    lock(shared).ended = true;
    shared.changed.notify_all();
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
    text.trim().to_owned()
}
