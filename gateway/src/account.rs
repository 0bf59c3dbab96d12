//! A call's account: what the corridor counts of every call, whichever way its bytes take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use davit_api::{ColdPhases, ErrorCode, PhaseTimings};

use crate::instances::{Fleet, Slot, Underway};
use crate::invoke::{CallError, unreachable_instances};
use crate::metrics::Metrics;

/// Fresh instances tried when one was lost before a byte of the call was sent.
pub(crate) const TRIES: usize = 3;

/// Opened when a call enters the corridor, closed with its outcome. One that is dropped open was given up.
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    fleet: Arc<Fleet>,
    arrived: Instant,
    /// What functions in its instance are told apart by when they ask for something.
    call: Underway,
    /// How its instance started, if that was for this call.
    cold: Option<ColdPhases>,
    wait_ms: f64,
    run_from: Option<Instant>,
    /// Time to the first byte of an answer that goes on.
    first_byte_ms: Option<f64>,
    closed: bool,
}

impl Account {
    /// A call that arrived for the version that this fleet serves.
    pub(crate) fn open(metrics: Arc<Metrics>, fleet: Arc<Fleet>, arrived: Instant, call: Underway) -> Self {
        metrics.calls_open.add(1);
        Self {
            metrics,
            fleet,
            arrived,
            call,
            cold: None,
            wait_ms: 0.0,
            run_from: None,
            first_byte_ms: None,
            closed: false,
        }
    }

    /// The instances that may serve it.
    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// A running instance for the call, by its deadline.
    pub(crate) async fn slot(&mut self) -> Result<Slot, CallError> {
        let from = Instant::now();
        for _ in 0..TRIES {
            let mut slot = self.fleet.acquire(self.call.deadline).await?;
            let thawed = slot.thaw().await;
            if thawed.is_ok() && !slot.instance().link.is_closed() {
                self.cold = slot.cold();
                let start_ms = self.cold.map_or(0.0, |start| start.start_ms());
                self.wait_ms = (ms(from.elapsed()) - start_ms).max(0.0);
                self.run_from = Some(Instant::now());
                slot.enter(self.call.clone());
                return Ok(slot);
            }
            // Nothing of the call was sent yet: another instance may have it.
            slot.set_spoiled(true);
        }
        unreachable_instances()
    }

    /// The answer has begun and is still coming. Says what [`Account::close`] would say now.
    pub(crate) fn begun(&mut self) -> (bool, PhaseTimings) {
        self.first_byte_ms = self.run_from.map(|from| ms(from.elapsed()));
        self.facts(Instant::now())
    }

    fn facts(&self, now: Instant) -> (bool, PhaseTimings) {
        let run_ms = self.run_from.map_or(0.0, |from| ms(now - from));
        let first_byte_ms = self.first_byte_ms.unwrap_or(run_ms);
        let cold = self.cold.map(|start| ColdPhases { wait_ms: self.wait_ms, first_byte_ms, ..start });
        let init_ms = cold.map_or(0.0, |cold| cold.start_ms());
        (cold.is_some(), PhaseTimings { wait_ms: self.wait_ms, init_ms, run_ms, cold })
    }

    /// The function answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        if status >= 500 {
            self.fleet.measure.fault();
        }
    }

    /// Closes it. Whether an instance was started for it, and where the time went.
    pub(crate) fn close(mut self, failed: Option<ErrorCode>) -> (bool, PhaseTimings) {
        self.closed = true;
        let now = Instant::now();
        self.metrics.call_ms.note(ms(now - self.arrived));
        match failed {
            None => self.metrics.calls_ok.add(1),
            Some(code) => self.metrics.failed(code),
        }
        let (is_cold, timings) = self.facts(now);
        let cold = timings.cold;
        if let Some(cold) = &cold {
            self.metrics.calls_cold.add(1);
            self.metrics.cold_starts.note(cold);
        }
        self.fleet.usage.note(failed.is_some(), cold, Utc::now());
        let ran = self.run_from.map(|_| self.first_byte_ms.unwrap_or(timings.run_ms));
        self.fleet.measure.note(failed, ran);
        (is_cold, timings)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.calls_open.sub(1);
        if !self.closed {
            self.metrics.calls_abandoned.add(1);
        }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
