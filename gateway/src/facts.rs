//! Facts about what happened, on their way from the hot path to the registry.
//!
//! The corridor only ever adds to counters, takes a lock for an insertion, or does a non-blocking send here. Each
//! feed has its own bound; when the registry is away and a feed is full, the newest facts are dropped and
//! counted, and calls go on (invariant 4).
//! `record.rs` owns the other end: it batches the feeds into the registry.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use davit_api::{
    Digest, FunctionId, FunctionName, InstanceId, InstanceState, InvocationId, LogStream, NamespaceName,
    TokenId, VersionId,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::measure::{Measure, Measures};
use crate::usage::{Usage, Usages};

/// An instance that changed its state.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceFact {
    /// Which one.
    pub instance: InstanceId,
    /// The state it is in now.
    pub state: InstanceState,
    /// The version it serves, once it has one.
    pub version_id: Option<VersionId>,
    /// Digest of the configuration it was given with the version.
    pub config: Option<Digest>,
    /// Calls it has served so far.
    pub calls: u64,
    /// Why it was let go, for `released`.
    pub reason: Option<String>,
    /// When it changed.
    pub at: DateTime<Utc>,
}

/// One line that a function's process wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFact {
    /// Namespace of the function.
    pub namespace: NamespaceName,
    /// Its name.
    pub function: FunctionName,
    /// Its id.
    pub function_id: FunctionId,
    /// Number of the version that wrote it.
    pub version: u32,
    /// In which instance.
    pub instance: InstanceId,
    /// During which invocation, when that is known.
    pub invocation: Option<InvocationId>,
    /// To which output.
    pub stream: LogStream,
    /// When.
    pub at: DateTime<Utc>,
    /// The text, without its line end.
    pub line: String,
}

/// Where facts are sent; cheap to clone, never blocks.
#[derive(Clone)]
pub struct Recorder {
    usages: Usages,
    measures: Measures,
    instances: mpsc::UnboundedSender<InstanceFact>,
    logs: mpsc::Sender<LogFact>,
    tokens: TokensUsed,
    dropped: Arc<Dropped>,
}

/// When tokens were last used, since this was last looked at. Bounded by the number of tokens, however many
/// calls they are used for.
pub type TokensUsed = Arc<Mutex<HashMap<TokenId, DateTime<Utc>>>>;

/// What had to be thrown away because a feed was full.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Log lines.
    pub logs: AtomicU64,
}

/// The receiving end of a [`Recorder`].
pub struct Feeds {
    /// Calls that ended, added up.
    pub usages: Usages,
    /// The same of the versions of canaries.
    pub measures: Measures,
    /// Instances that changed state. Not bounded by count: each instance makes a handful in its life, and the
    /// number of instances is bounded.
    pub instances: mpsc::UnboundedReceiver<InstanceFact>,
    /// Lines that functions wrote.
    pub logs: mpsc::Receiver<LogFact>,
    /// Tokens that were used.
    pub tokens: TokensUsed,
    /// Counters of what did not fit.
    pub dropped: Arc<Dropped>,
}

/// Bound of the feed of log lines.
const LOGS: usize = 16_384;

impl Recorder {
    /// A recorder and its receiving end.
    pub fn channel() -> (Self, Feeds) {
        let (usages, measures) = (Usages::default(), Measures::default());
        let (instances, instances_out) = mpsc::unbounded_channel();
        let (logs, logs_out) = mpsc::channel(LOGS);
        let dropped = Arc::new(Dropped::default());
        let tokens = TokensUsed::default();
        let feeds = Feeds {
            usages: usages.clone(),
            measures: measures.clone(),
            instances: instances_out,
            logs: logs_out,
            tokens: tokens.clone(),
            dropped: dropped.clone(),
        };
        (Self { usages, measures, instances, logs, tokens, dropped }, feeds)
    }

    /// Where calls of a function are counted.
    pub fn usage(&self, function: FunctionId) -> Arc<Usage> {
        self.usages.of(function)
    }

    /// Where calls of a version are counted while a canary is about it.
    pub fn measure(&self, version: VersionId) -> Arc<Measure> {
        self.measures.of(version)
    }

    /// Where calls of the versions of canaries are counted.
    pub fn measures(&self) -> &Measures {
        &self.measures
    }

    /// An instance changed state.
    pub fn instance(&self, fact: InstanceFact) {
        // Nobody listens only while the process ends; the controller then reads the truth from the engine.
        let _ = self.instances.send(fact);
    }

    /// A token let somebody in.
    pub fn token(&self, token: TokenId) {
        self.tokens.lock().insert(token, Utc::now());
    }

    /// A function wrote a line.
    pub fn log(&self, fact: LogFact) {
        if self.logs.try_send(fact).is_err() {
            self.dropped.logs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What did not fit so far.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }
}
