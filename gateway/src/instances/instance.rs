//! One container as its gateway holds it: the link to its agent, and what it may serve.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use chrono::{DateTime, TimeZone as _, Utc};
use davit_api::{InstanceId, InvocationId, LogStream, PoolKey};
use davit_link::{Link, LogEntry, Stream};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::facts::{LogFact, Recorder};
use crate::instances::fleet::Fleet;
use crate::instances::ledger::Ledger;
use crate::instances::upstream::Upstreams;
use crate::version::LiveVersion;

/// A held instance. Generic until [`Instance::adopt`]; from then on it serves that version only (invariant 3).
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// What it was started as.
    made: PoolKey,
    /// What it has become, if its size was changed.
    became: OnceLock<PoolKey>,
    /// Whether its size may be changed, which is tried once at most.
    resizable: bool,
    tried: AtomicBool,
    /// The connection to its agent; the instance ends when it closes.
    pub link: Link,
    /// When it came into the pool.
    pub since: Instant,
    /// Calls handed to it.
    pub calls: AtomicU64,
    /// Open connections to a server function.
    pub upstreams: Upstreams,
    /// Held while the instance is frozen or thawed, so that the two never overtake each other on the link.
    pub ice: Arc<tokio::sync::Mutex<()>>,
    /// Which calls it has.
    pub ledger: Ledger,
    /// Rings when this gateway is done with it.
    pub ended: CancellationToken,
    owner: OnceLock<Owner>,
    taps: Mutex<HashMap<String, Arc<LogTail>>>,
}

struct Owner {
    version: Arc<LiveVersion>,
    fleet: Weak<Fleet>,
}

impl Instance {
    /// A generic instance whose agent answered.
    pub fn new(id: InstanceId, key: PoolKey, link: Link) -> Self {
        Self {
            id,
            made: key,
            became: OnceLock::new(),
            resizable: false,
            tried: AtomicBool::new(false),
            link,
            since: Instant::now(),
            calls: AtomicU64::new(0),
            upstreams: Upstreams::default(),
            ice: Arc::default(),
            ledger: Ledger::default(),
            ended: CancellationToken::new(),
            owner: OnceLock::new(),
            taps: Mutex::default(),
        }
    }

    /// The same, of which it is known whether its size may be changed.
    pub fn with_resizable(self, resizable: bool) -> Self {
        Self { resizable, ..self }
    }

    /// What it may be used for.
    pub fn key(&self) -> &PoolKey {
        self.became.get().unwrap_or(&self.made)
    }

    /// Whether its size may be changed now; the pool that it is in asks once.
    pub(super) fn is_resizable(&self) -> bool {
        self.resizable && !self.tried.load(Ordering::Relaxed) && !self.link.is_closed()
    }

    /// Its size is about to be changed.
    pub(super) fn set_tried(&self) {
        self.tried.store(true, Ordering::Relaxed);
    }

    /// Its size was changed: it is of another kind from now on.
    pub(super) fn become_of(&self, key: PoolKey) {
        let _ = self.became.set(key);
    }

    /// Gives it its one version. False when it had one already.
    pub fn adopt(&self, version: Arc<LiveVersion>, fleet: Weak<Fleet>) -> bool {
        self.owner.set(Owner { version, fleet }).is_ok()
    }

    /// The set it belongs to, once it has a version.
    pub fn fleet(&self) -> Option<Arc<Fleet>> {
        self.owner.get()?.fleet.upgrade()
    }

    /// The version it serves, once it has one.
    pub fn version(&self) -> Option<&Arc<LiveVersion>> {
        self.owner.get().map(|o| &o.version)
    }

    /// Counts a call.
    pub fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Copies the lines of one invocation into `tail` until the returned guard is dropped.
    pub fn tap(self: &Arc<Self>, request_id: InvocationId, tail: Arc<LogTail>) -> Tap {
        let key = request_id.to_string();
        self.taps.lock().insert(key.clone(), tail);
        Tap { instance: self.clone(), key }
    }

    /// Passes lines on to the registry and to whoever listens to their invocation.
    pub fn log(&self, entries: Vec<LogEntry>, recorder: &Recorder) {
        let taps = self.taps.lock();
        for entry in &entries {
            match &entry.request_id {
                Some(id) => {
                    if let Some(tail) = taps.get(id) {
                        tail.push(&entry.line);
                    }
                }
                // A line that no invocation owns (while loading, or from a thread) is shown to everyone who asks.
                None => taps.values().for_each(|tail| tail.push(&entry.line)),
            }
        }
        drop(taps);
        let Some(owner) = self.owner.get() else { return };
        for entry in entries {
            recorder.log(self.fact(owner, entry));
        }
    }

    fn fact(&self, owner: &Owner, entry: LogEntry) -> LogFact {
        let mut line = entry.line;
        if entry.truncated {
            line.push_str(" … (cut)");
        }
        LogFact {
            namespace: owner.version.namespace.clone(),
            function: owner.version.function.clone(),
            function_id: owner.version.function_id,
            version: owner.version.number,
            instance: self.id,
            invocation: entry.request_id.and_then(|id| id.parse().ok()),
            stream: stream_of(entry.stream),
            at: time_of(entry.at_unix_us),
            line,
        }
    }
}

fn stream_of(stream: Stream) -> LogStream {
    match stream {
        Stream::Stdout => LogStream::Stdout,
        Stream::Stderr => LogStream::Stderr,
    }
}

/// The agent's clock is the host's; a value out of range can only come from a broken agent.
fn time_of(unix_us: u64) -> DateTime<Utc> {
    Utc.timestamp_micros(i64::try_from(unix_us).unwrap_or(i64::MAX)).single().unwrap_or_else(Utc::now)
}

/// Listening to one invocation's lines; ends when dropped.
pub struct Tap {
    instance: Arc<Instance>,
    key: String,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.instance.taps.lock().remove(&self.key);
    }
}

/// The last lines of one invocation.
#[derive(Default)]
pub struct LogTail {
    text: Mutex<String>,
}

/// As much as AWS returns with `X-Amz-Log-Result`.
const TAIL_BYTES: usize = 4096;

impl LogTail {
    /// Adds a line, or several.
    pub(crate) fn push(&self, line: &str) {
        let mut text = self.text.lock();
        text.push_str(line);
        text.push('\n');
        // Cut now and then, not on each line, and never inside a character.
        if text.len() > 4 * TAIL_BYTES {
            let cut = cut_at(&text);
            text.drain(..cut);
        }
    }
    /// Whether no line has come.
    pub fn is_empty(&self) -> bool {
        self.text.lock().is_empty()
    }
    /// The last 4 KiB.
    pub fn text(&self) -> String {
        let text = self.text.lock();
        text[cut_at(&text)..].to_owned()
    }
}

fn cut_at(text: &str) -> usize {
    let from = text.len().saturating_sub(TAIL_BYTES);
    (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tail_is_short_and_is_the_end(lines in proptest::collection::vec("\\PC{0,200}", 0..200)) {
            let tail = LogTail::default();
            let mut all = String::new();
            for line in &lines {
                tail.push(line);
                all.push_str(line);
                all.push('\n');
            }
            let text = tail.text();
            prop_assert!(text.len() <= TAIL_BYTES);
            prop_assert!(all.ends_with(&text));
            prop_assert!(text.len() + 4 > all.len().min(TAIL_BYTES));
        }
    }
}
