//! When to stop: SIGTERM, as a service manager sends it, or SIGINT, as Ctrl-C does.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, subscribed. Create it early: from then on neither kills the process by itself.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Subscribes.
    pub fn subscribe() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
