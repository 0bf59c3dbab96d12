//! Counters of the data plane: plain atomics, rendered as Prometheus text for the admin listener.

mod sources;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use davit_api::{ColdPhases, ErrorCode, Published};

pub use sources::Sources;

/// A number that is only read for display.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Takes away.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }
    /// Becomes another.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of call durations, in milliseconds.
const BUCKETS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 5_000.0, 30_000.0];

/// Those of a cold start's phases, which are often shorter than any call.
const PHASE_BUCKETS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 100.0, 500.0, 2_000.0, 10_000.0];

/// A histogram of durations.
#[derive(Debug)]
pub struct Durations {
    bounds: &'static [f64; BUCKETS.len()],
    buckets: [Number; BUCKETS.len()],
    count: Number,
    sum_us: Number,
}

impl Default for Durations {
    fn default() -> Self {
        Self::within(&BUCKETS)
    }
}

impl Durations {
    fn within(bounds: &'static [f64; BUCKETS.len()]) -> Self {
        let buckets = std::array::from_fn(|_| Number::default());
        Self { bounds, buckets, count: Number::default(), sum_us: Number::default() }
    }
    /// Notes one duration.
    pub fn note(&self, ms: f64) {
        // Each bucket counts its own range; they are summed up when rendered, so a note touches three numbers.
        if let Some(at) = self.bounds.iter().position(|bound| ms <= *bound) {
            self.buckets[at].add(1);
        }
        self.count.add(1);
        self.sum_us.add((ms * 1_000.0) as u64);
    }
    fn render(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        self.render_series(out, name, "");
    }
    /// One series, with a label such as `phase="load"` or none.
    fn render_series(&self, out: &mut String, name: &str, label: &str) {
        let comma = if label.is_empty() { "" } else { "," };
        let mut so_far = 0;
        for (bound, number) in self.bounds.iter().zip(&self.buckets) {
            so_far += number.get();
            let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"{}\"}} {so_far}", bound / 1_000.0);
        }
        let count = self.count.get();
        let _ = writeln!(out, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}");
        let braced = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let _ = writeln!(out, "{name}_sum{braced} {}", self.sum_us.get() as f64 / 1e6);
        let _ = writeln!(out, "{name}_count{braced} {count}");
    }
}

/// A histogram for each phase of cold starts.
#[derive(Debug)]
pub struct ColdStarts([Durations; ColdPhases::NAMES.len()]);

impl Default for ColdStarts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Durations::within(&PHASE_BUCKETS)))
    }
}

impl ColdStarts {
    /// Notes one cold start.
    pub fn note(&self, phases: &ColdPhases) {
        self.0.iter().zip(phases.times()).for_each(|(durations, ms)| durations.note(ms));
    }
    fn render(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (phase, durations) in ColdPhases::NAMES.iter().zip(&self.0) {
            durations.render_series(out, name, &format!("phase=\"{phase}\""));
        }
    }
}

/// What became of the queue's jobs in this gateway.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Being carried out now.
    pub running: Number,
    /// Ended with a result.
    pub succeeded: Number,
    /// Put back for another attempt.
    pub retried: Number,
    /// Ended without one.
    pub dead: Number,
    /// Ended because somebody wished so.
    pub cancelled: Number,
    /// Attempts whose end no longer counted: their lease had lapsed.
    pub late: Number,
    /// From when a job was due until its first attempt began.
    pub wait_ms: Durations,
}

impl Jobs {
    fn render(&self, out: &mut String) {
        let running = self.running.get();
        let _ = writeln!(
            out,
            "# HELP davit_jobs_running Asynchronous jobs being carried out now.\n# TYPE davit_jobs_running gauge\ndavit_jobs_running {running}"
        );
        let _ = writeln!(
            out,
            "# HELP davit_jobs_attempts_total Ended attempts of asynchronous jobs.\n# TYPE davit_jobs_attempts_total counter"
        );
        for (outcome, number) in [
            ("succeeded", &self.succeeded),
            ("retried", &self.retried),
            ("dead", &self.dead),
            ("cancelled", &self.cancelled),
            ("late", &self.late),
        ] {
            let _ = writeln!(out, "davit_jobs_attempts_total{{outcome=\"{outcome}\"}} {}", number.get());
        }
        let help = "From when a job was due until its first attempt began.";
        self.wait_ms.render(out, "davit_jobs_wait_seconds", help);
    }
}

/// What this gateway took in for topics.
#[derive(Debug, Default)]
pub struct Topics {
    /// Messages kept.
    pub messages: Number,
    /// Messages that had been published before.
    pub duplicates: Number,
    /// Deliveries handed to the queue for them.
    pub deliveries: Number,
}

impl Topics {
    /// Notes what was published.
    pub fn note(&self, published: &[Published]) {
        let duplicates = published.iter().filter(|one| one.duplicate).count() as u64;
        self.duplicates.add(duplicates);
        self.messages.add(published.len() as u64 - duplicates);
        let fresh = published.iter().filter(|one| !one.duplicate);
        self.deliveries.add(fresh.map(|one| u64::from(one.deliveries)).sum());
    }
}

/// What functions asked this gateway for.
#[derive(Debug, Default)]
pub struct Asked {
    /// Calls for whose answer they waited.
    pub calls: Number,
    /// Calls that were handed to the queue.
    pub accepted: Number,
    /// Requests to publish.
    pub published: Number,
    /// What was refused, or could not be done.
    pub refused: Number,
}

impl Asked {
    fn render(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "# HELP davit_function_asks_total What functions asked for.\n# TYPE davit_function_asks_total counter"
        );
        for (kind, number) in [
            ("call", &self.calls),
            ("later", &self.accepted),
            ("publish", &self.published),
            ("refused", &self.refused),
        ] {
            let _ = writeln!(out, "davit_function_asks_total{{kind=\"{kind}\"}} {}", number.get());
        }
    }
}

/// Everything the data plane counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Public connections open now.
    pub connections_open: Number,
    /// Requests received.
    pub requests: Number,
    /// Calls in the corridor now.
    pub calls_open: Number,
    /// Calls that succeeded.
    pub calls_ok: Number,
    /// Calls for which an instance had to be started.
    pub calls_cold: Number,
    /// Calls given up because the client went away.
    pub calls_abandoned: Number,
    /// Connections ended because their clients took nothing of what was written to them.
    pub clients_stalled: Number,
    /// Pool instances claimed.
    pub claims: Number,
    /// Instances lost while they were held.
    pub instances_lost: Number,
    /// Instances stopped because they were idle.
    pub freezes: Number,
    /// The queue's jobs.
    pub jobs: Jobs,
    /// Messages of topics.
    pub topics: Topics,
    /// Event sources that are fetched from.
    pub sources: Sources,
    /// What functions asked for.
    pub asked: Asked,
    /// Idle instances let go because a waiting call needed their memory.
    pub given_up: Number,
    /// Calls that another gateway carried out.
    pub passed_on: Number,
    /// Calls that another gateway had no room for, or could not be reached with.
    pub passed_back: Number,
    /// Bytes of event bodies held now.
    pub parked_bytes: Number,
    /// Connections upgraded now.
    pub upgrades_open: Number,
    /// Duration of calls.
    pub call_ms: Durations,
    /// Duration from claim to loaded handler.
    pub init_ms: Durations,
    /// Phases of calls that had to start an instance.
    pub cold_starts: ColdStarts,
    failed: Failed,
}

#[derive(Debug)]
struct Failed([Number; ErrorCode::ALL.len()]);

impl Default for Failed {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Number::default()))
    }
}

impl Metrics {
    /// A call failed with this code.
    pub fn failed(&self, code: ErrorCode) {
        if let Some(at) = ErrorCode::ALL.iter().position(|c| *c == code) {
            self.failed.0[at].add(1);
        }
    }

    /// Prometheus text.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(4096);
        let mut line = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        line("davit_connections_open", "gauge", "Public connections open now.", self.connections_open.get());
        line("davit_requests_total", "counter", "HTTP requests received.", self.requests.get());
        line("davit_calls_open", "gauge", "Calls being carried out now.", self.calls_open.get());
        line("davit_calls_ok_total", "counter", "Calls that succeeded.", self.calls_ok.get());
        line(
            "davit_calls_cold_total",
            "counter",
            "Calls that had to start an instance.",
            self.calls_cold.get(),
        );
        line(
            "davit_calls_abandoned_total",
            "counter",
            "Calls whose client went away.",
            self.calls_abandoned.get(),
        );
        line(
            "davit_clients_stalled_total",
            "counter",
            "Connections ended because the client took nothing of its answer.",
            self.clients_stalled.get(),
        );
        line("davit_pool_claims_total", "counter", "Pool instances claimed.", self.claims.get());
        line(
            "davit_instances_lost_total",
            "counter",
            "Instances lost while held.",
            self.instances_lost.get(),
        );
        line(
            "davit_given_up_total",
            "counter",
            "Idle instances let go because a waiting call needed their memory.",
            self.given_up.get(),
        );
        line(
            "davit_passed_on_total",
            "counter",
            "Calls that another gateway carried out.",
            self.passed_on.get(),
        );
        line(
            "davit_passed_back_total",
            "counter",
            "Calls that another gateway did not take.",
            self.passed_back.get(),
        );
        line("davit_freezes_total", "counter", "Instances frozen.", self.freezes.get());
        let topics = &self.topics;
        line("davit_topic_messages_total", "counter", "Messages published and kept.", topics.messages.get());
        line(
            "davit_topic_duplicates_total",
            "counter",
            "Messages that had been published before.",
            topics.duplicates.get(),
        );
        line(
            "davit_topic_deliveries_total",
            "counter",
            "Deliveries of messages handed to the queue.",
            topics.deliveries.get(),
        );
        line("davit_parked_bytes", "gauge", "Bytes of event bodies held now.", self.parked_bytes.get());
        line("davit_upgrades_open", "gauge", "Upgraded connections open now.", self.upgrades_open.get());
        let _ = writeln!(
            out,
            "# HELP davit_calls_failed_total Calls that failed.\n# TYPE davit_calls_failed_total counter"
        );
        for (code, number) in ErrorCode::ALL.iter().zip(&self.failed.0).filter(|(_, n)| n.get() > 0) {
            let _ = writeln!(out, "davit_calls_failed_total{{code=\"{}\"}} {}", code.as_str(), number.get());
        }
        self.jobs.render(&mut out);
        self.sources.render(&mut out);
        self.asked.render(&mut out);
        self.call_ms.render(&mut out, "davit_call_seconds", "Duration of calls, from arrival to outcome.");
        self.init_ms.render(&mut out, "davit_init_seconds", "Duration from claim to loaded handler.");
        self.cold_starts.render(
            &mut out,
            "davit_cold_start_seconds",
            "Cold calls by phase, which follow each other.",
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_when_rendered() {
        let metrics = Metrics::default();
        for ms in [0.5, 1.5, 1e9] {
            metrics.call_ms.note(ms);
        }
        metrics.failed(ErrorCode::FunctionError);
        let phases = ColdPhases { claim_ms: 0.2, load_ms: 3.0, ..ColdPhases::default() };
        (0..2).for_each(|_| metrics.cold_starts.note(&phases));
        let text = metrics.render();
        assert!(text.contains("davit_call_seconds_bucket{le=\"0.002\"} 2\n"), "{text}");
        assert!(text.contains("davit_call_seconds_bucket{le=\"+Inf\"} 3\n"));
        assert!(
            text.contains("davit_cold_start_seconds_bucket{phase=\"claim\",le=\"0.00025\"} 2\n"),
            "{text}"
        );
        assert!(text.contains("davit_cold_start_seconds_bucket{phase=\"load\",le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("davit_cold_start_seconds_sum{phase=\"load\"} 0.006\n"), "{text}");
        assert!(text.contains("davit_calls_failed_total{code=\"function_error\"} 1\n"));
    }
}
