//! A gate in front of a Unix socket: counts what davit asks of its Postgres or of the engine, and can be shut.
//!
//! What arrives at a shut gate is counted and waits there. So a story can say that something needs neither of the two
//! because it happened while both were behind shut gates, whatever the speed of the machine.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::Postgres;
use crate::process::state_dir;

/// A gate; open at first. Threads of its own carry it, so it works while a story blocks.
#[derive(Debug)]
pub struct Gate {
    dir: tempfile::TempDir,
    name: &'static str,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: AtomicU64,
    shut: Mutex<bool>,
    opened: Condvar,
}

/// What Postgres is asked for by the name of its port.
const POSTGRES: &str = ".s.PGSQL.5432";

/// No engine's own socket is called so.
const ENGINE: &str = "engine-gate.sock";

impl Gate {
    /// Whether a `DOCKER_HOST` leads through a gate to the machine's engine.
    pub(crate) fn is(host: &str) -> bool {
        host.ends_with(ENGINE)
    }

    /// A gate in front of a Postgres, which counts statements.
    pub fn of_postgres(postgres: &Postgres) -> Self {
        Self::of(postgres.socket().join(POSTGRES), POSTGRES, || Counter::Postgres(Statements::default()))
    }

    /// A gate in front of the machine's engine, which counts calls of its API.
    pub fn of_engine() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let path = host.strip_prefix("unix://").expect("the engine is at a Unix socket");
        Self::of(PathBuf::from(path), ENGINE, || Counter::Engine)
    }

    fn of(behind: PathBuf, name: &'static str, counter: fn() -> Counter) -> Self {
        let (dir, shared) = (state_dir(), Arc::new(Shared::default()));
        let listener = UnixListener::bind(dir.path().join(name)).expect("a socket");
        let its = shared.clone();
        thread::spawn(move || {
            // Ends with the process of the test: a thread that waits for nobody costs nothing.
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&behind) else { continue };
                carry(client, server, counter(), &its);
            }
        });
        Self { dir, name, shared }
    }

    /// The folder with the socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// For `DATABASE_URL`.
    pub fn database_url(&self) -> String {
        format!("postgres://davit@localhost/davit?host={}", self.dir().display())
    }

    /// For `DOCKER_HOST`.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.dir().join(self.name).display())
    }

    /// What was asked since the start.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Nothing passes from here on; answers to what has passed do.
    pub fn shut(&self) {
        *self.shared.shut.lock().expect("the lock") = true;
    }

    /// Everything passes again.
    pub fn open(&self) {
        *self.shared.shut.lock().expect("the lock") = false;
        self.shared.opened.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// Two threads for one connection.
fn carry(client: UnixStream, server: UnixStream, mut counter: Counter, shared: &Arc<Shared>) {
    let (Ok(mut to_client), Ok(mut from_server)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Write);
    });
    let (shared, mut client, mut server) = (shared.clone(), client, server);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n) = client.read(&mut buffer)
            && n > 0
        {
            shared.asked.fetch_add(counter.count(&buffer[..n]), Ordering::SeqCst);
            let shut = shared.shut.lock().expect("the lock");
            drop(shared.opened.wait_while(shut, |shut| *shut).expect("the lock"));
            if server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
    });
}

/// Tells requests from their bytes.
enum Counter {
    Engine,
    Postgres(Statements),
}

impl Counter {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        match self {
            // Its client sends a request when the one before was answered, and writes each head at once.
            Self::Engine => {
                let methods = ["GET /", "POST /", "PUT /", "DELETE /", "HEAD /"];
                u64::from(methods.iter().any(|method| bytes.starts_with(method.as_bytes())))
            }
            Self::Postgres(statements) => statements.count(bytes),
        }
    }
}

/// Statements in what a client of Postgres sends (its protocol, version 3): `Q` is a simple one, `E` carries out a
/// prepared one.
#[derive(Default)]
struct Statements {
    started: bool,
    head: Vec<u8>,
    skip: usize,
}

/// The code of a first message that only asks for encryption.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

impl Statements {
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut found = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            // A first message has a code where the others have a letter in front.
            let length = if self.started { 5 } else { 8 };
            let taken = (length - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() < length || self.skip > 0 {
                continue;
            }
            let number =
                |at: usize| u32::from_be_bytes(self.head[at..at + 4].try_into().expect("four bytes"));
            if self.started {
                found += u64::from(matches!(self.head[0], b'Q' | b'E'));
                self.skip = number(1) as usize - 4;
            } else {
                self.started = !ENCRYPTION.contains(&number(4));
                self.skip = number(0) as usize - 8;
            }
            self.head.clear();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_however_their_bytes_are_cut() {
        let mut wire = Vec::new();
        for code in [ENCRYPTION[0], 196_608] {
            let body: &[u8] = if code == 196_608 { b"user\0davit\0\0" } else { b"" };
            wire.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
            wire.extend_from_slice(&code.to_be_bytes());
            wire.extend_from_slice(body);
        }
        for (letter, body) in
            [(b'Q', &b"select 'EEEE'\0"[..]), (b'P', b"QQ"), (b'B', b"E"), (b'E', b"\0"), (b'S', b"")]
        {
            wire.push(letter);
            wire.extend_from_slice(&(4 + body.len() as u32).to_be_bytes());
            wire.extend_from_slice(body);
        }
        for size in 1..=wire.len() {
            let mut statements = Statements::default();
            let found: u64 = wire.chunks(size).map(|part| statements.count(part)).sum();
            assert_eq!(found, 2, "cut into pieces of {size}");
        }
    }
}
