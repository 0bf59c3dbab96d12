//! Where functions record their runs: a listener in the network of the campaign's engine, past davit and its database.
//!
//! A function says that it starts and goes on only when it was answered, so no run is missed. A run whose end is not on
//! record was cut short, or was killed between its last step and its word.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

use crate::history::{Moment, Ms, Run, Work};

/// The port that functions know.
pub(crate) const PORT: u16 = 9090;

/// The order of everything that is seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Arc<AtomicU64>);

impl Order {
    pub(crate) fn now(&self) -> Moment {
        Moment { seq: self.0.fetch_add(1, Ordering::SeqCst), at: now() }
    }
}

/// This machine's time.
pub(crate) fn now() -> Ms {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Ms)
}

/// Runs as they are recorded; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    order: Order,
    book: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    runs: Vec<Run>,
    failures: HashMap<String, u64>,
    done: u64,
}

impl Recorder {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, book: Arc::default() }
    }

    /// Listens until the task is aborted.
    pub(crate) fn listen(&self, listener: TcpListener) -> JoinHandle<()> {
        listener.set_nonblocking(true).expect("a socket may be made so");
        let listener = tokio::net::TcpListener::from_std(listener).expect("within the runtime");
        let recorder = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(recorder.clone().connection(stream));
            }
        })
    }

    async fn connection(self, stream: tokio::net::TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        while let Some(line) = lines.next_line().await? {
            let Some(answer) = serde_json::from_str(&line).ok().and_then(|said| self.note(&said)) else {
                return Ok(());
            };
            write.write_all(format!("{answer}\n").as_bytes()).await?;
        }
        Ok(())
    }

    fn note(&self, said: &Value) -> Option<Value> {
        let mut book = self.book.lock().ok()?;
        // Within the lock, so that the order of the numbers is that of the book.
        let when = self.order.now();
        match said[0].as_str()? {
            "start" => {
                let id = said[1].as_str()?.to_owned();
                let failures = book.failures.get(&id).copied().unwrap_or(0);
                book.runs.push(Run { id, work: work(&said[2])?, start: when, end: None, done: None });
                Some(json!([book.runs.len() - 1, failures]))
            }
            word => {
                let done = word == "done";
                let run = book.runs.get_mut(usize::try_from(said[1].as_u64()?).ok()?)?;
                (run.end, run.done) = (Some(when), Some(done));
                let id = run.id.clone();
                if done {
                    book.done += 1
                } else {
                    *book.failures.entry(id).or_default() += 1
                }
                Some(json!(true))
            }
        }
    }

    /// Runs that have ended well so far.
    pub(crate) fn done(&self) -> u64 {
        self.book.lock().expect("no holder panics").done
    }

    /// All runs so far.
    pub(crate) fn runs(&self) -> Vec<Run> {
        self.book.lock().expect("no holder panics").runs.clone()
    }
}

fn work(what: &Value) -> Option<Work> {
    if let Some(n) = what.as_u64() {
        return Some(Work::Job(n));
    }
    Some(Work::Instant { schedule: what[0].as_str()?.to_owned(), due: instant(what[1].as_str()?)? })
}

/// An instant as davit writes it.
pub(crate) fn instant(text: &str) -> Option<Ms> {
    Some(text.parse::<chrono::DateTime<chrono::Utc>>().ok()?.timestamp_millis())
}
