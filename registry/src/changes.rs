//! One listening connection, turned into a counter a topic. A counter says *that* something changed, never
//! what: whoever sees it move reads everything again, as at start-up and as on its timer.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::watch;

use crate::{Registry, Result};

/// A silent connection is asked for a sign of life this often, and given as long to answer.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Topic {
    /// Live versions, routes, secrets, tokens.
    Routes,
    /// Instances and gateways.
    Instances,
    /// Versions on their way to ready.
    Builds,
    /// Schedules.
    Schedules,
    /// Work for the dispatchers; poked, never triggered.
    Queue,
    /// What gateways are waiting for.
    Demand,
    /// Wishes that a running invocation end; poked, never triggered.
    Cancels,
    /// Gateways that are asked for memory; poked, never triggered.
    Memory,
    /// Gateways that come, go, or have something to tell the others; poked, never triggered.
    Gateways,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 9] = [
        Self::Routes,
        Self::Instances,
        Self::Builds,
        Self::Schedules,
        Self::Queue,
        Self::Demand,
        Self::Cancels,
        Self::Memory,
        Self::Gateways,
    ];
    /// The word in a notification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Routes => "routes",
            Self::Instances => "instances",
            Self::Builds => "builds",
            Self::Schedules => "schedules",
            Self::Queue => "queue",
            Self::Demand => "demand",
            Self::Cancels => "cancels",
            Self::Memory => "memory",
            Self::Gateways => "gateways",
        }
    }
}

/// The counters. Clones share one connection, which ends with the last of them.
#[derive(Clone)]
pub struct Changes {
    shared: Arc<Shared>,
}

struct Shared {
    counters: [watch::Sender<u64>; Topic::ALL.len()],
    task: std::sync::OnceLock<tokio::task::JoinHandle<()>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Changes {
    /// Starts to listen. When this returns, no later change is missed; a lost connection moves every counter.
    pub async fn listen(registry: &Registry) -> Result<Self> {
        let listener = connect(registry).await?;
        let counters: [watch::Sender<u64>; Topic::ALL.len()] = std::array::from_fn(|_| watch::Sender::new(0));
        let task = tokio::spawn(run(registry.clone(), listener, counters.clone()));
        let shared = Arc::new(Shared { counters, task: std::sync::OnceLock::from(task) });
        Ok(Self { shared })
    }

    /// A topic's counter. Subscribe first, read the tables second, then wait for `changed()`.
    pub fn subscribe(&self, topic: Topic) -> watch::Receiver<u64> {
        self.shared.counters[topic as usize].subscribe()
    }
}

async fn connect(registry: &Registry) -> Result<PgListener> {
    let mut listener = PgListener::connect_with(&registry.pool).await?;
    listener.eager_reconnect(false);
    listener.listen("davit").await?;
    Ok(listener)
}

fn bump(counter: &watch::Sender<u64>) {
    counter.send_modify(|n| *n = n.wrapping_add(1));
}

async fn run(registry: Registry, mut listener: PgListener, counters: [watch::Sender<u64>; Topic::ALL.len()]) {
    loop {
        let why = hear(&mut listener, &counters).await;
        drop(listener);
        // A registry that was closed is not missed.
        if registry.pool.is_closed() {
            return;
        }
        tracing::warn!(why, "lost the connection that listens for changes");
        listener = loop {
            if registry.pool.is_closed() {
                return;
            }
            match tokio::time::timeout(HEARTBEAT, connect(&registry)).await {
                Ok(Ok(listener)) => break listener,
                Ok(Err(error)) => tracing::debug!(%error, "cannot listen for changes yet"),
                Err(_) => tracing::debug!("cannot listen for changes yet: no answer"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        // Whatever was said in the meantime is lost: everybody reads again.
        counters.iter().for_each(bump);
    }
}

/// Returns when the connection is no longer to be trusted, and why.
async fn hear(listener: &mut PgListener, counters: &[watch::Sender<u64>]) -> String {
    loop {
        match tokio::time::timeout(HEARTBEAT, listener.try_recv()).await {
            Ok(Ok(Some(note))) => match Topic::ALL.iter().position(|t| t.as_str() == note.payload()) {
                Some(index) => bump(&counters[index]),
                // A newer davit's topic, or somebody else's: reading everything is always right.
                None => counters.iter().for_each(bump),
            },
            Ok(Ok(None)) => return "it was closed".into(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => {
                let alive =
                    tokio::time::timeout(HEARTBEAT, sqlx::query("select 1").execute(&mut *listener)).await;
                if !matches!(alive, Ok(Ok(_))) {
                    return "it fell silent".into();
                }
            }
        }
    }
}
