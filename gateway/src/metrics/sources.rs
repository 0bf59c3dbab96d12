//! Counters of the sources whose events this gateway fetches.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;

use super::Number;

/// What became of fetched events in this gateway.
#[derive(Debug, Default)]
pub struct Sources {
    /// Fetched; those that had to be fetched again count again.
    pub received: Number,
    /// Accepted by the queue.
    pub delivered: Number,
    /// Steps that failed.
    pub errors: Number,
    held: Number,
    /// How old the oldest event of the last look was, by the source's labels.
    lags: Mutex<BTreeMap<String, Duration>>,
}

impl Sources {
    /// How many there are now.
    pub(crate) fn held(&self, now: usize) {
        self.held.set(now as u64);
    }
    /// How old the oldest event of a source was that a look found.
    pub(crate) fn lag(&self, labels: &str, lag: Duration) {
        let mut lags = self.lags.lock();
        match lags.get_mut(labels) {
            Some(known) => *known = lag,
            None => drop(lags.insert(labels.to_owned(), lag)),
        }
    }
    /// A source is fetched by somebody else now, or by nobody.
    pub(crate) fn left(&self, labels: &str) {
        self.lags.lock().remove(labels);
    }

    pub(super) fn render(&self, out: &mut String) {
        for (name, kind, help, number) in [
            ("davit_sources_held", "gauge", "Event sources that this gateway fetches from.", &self.held),
            ("davit_sources_received_total", "counter", "Events fetched from sources.", &self.received),
            (
                "davit_sources_delivered_total",
                "counter",
                "Fetched events that the queue accepted.",
                &self.delivered,
            ),
            ("davit_sources_errors_total", "counter", "Failed steps of fetching from sources.", &self.errors),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}", number.get());
        }
        let name = "davit_source_lag_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} Age of a source's oldest event at the last look.\n# TYPE {name} gauge"
        );
        for (labels, lag) in self.lags.lock().iter() {
            let _ = writeln!(out, "{name}{{{labels}}} {}", lag.as_secs_f64());
        }
    }
}
