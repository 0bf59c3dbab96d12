//! The other end of the [`Recorder`](crate::facts::Recorder): batches facts into the registry.
//!
//! While the registry is away, counters and instance states go on being folded together, which takes no more
//! room however long it lasts; log lines are kept up to a bound and counted beyond it.

mod tokens;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use davit_api::{FunctionId, GatewayId, InstanceId};
use davit_registry::{CanaryDelta, InstanceUpdate, LogRow, Registry, RegistryError, UsageDelta};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::facts::{Feeds, InstanceFact, LogFact};
use tokens::Tokens;

/// How often facts are written.
const EVERY: Duration = Duration::from_millis(500);
/// How long the last write may take when the process ends.
const LAST_WRITE: Duration = Duration::from_secs(3);
/// Log lines kept while the registry is away.
const KEPT_LINES: usize = 20_000;
/// Bytes of log lines kept.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Log lines in one statement.
const LINES_AT_ONCE: usize = 2_000;

/// Writes facts until `stop`, then what is left once more.
pub async fn run(registry: Registry, gateway: GatewayId, mut feeds: Feeds, stop: CancellationToken) {
    let mut batch = Batch::default();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopping = tokio::select! {
            _ = tick.tick() => false,
            () = stop.cancelled() => true,
        };
        batch.take(&mut feeds);
        if stopping {
            if tokio::time::timeout(LAST_WRITE, batch.write(&registry, gateway)).await.is_err() {
                tracing::warn!("the last facts were not written in time");
            }
            return;
        }
        batch.write(&registry, gateway).await;
    }
}

/// What waits to be written.
#[derive(Default)]
struct Batch {
    usage: HashMap<FunctionId, UsageDelta>,
    canaries: Vec<CanaryDelta>,
    instances: HashMap<InstanceId, InstanceUpdate>,
    logs: Vec<LogRow>,
    log_bytes: usize,
    tokens: Tokens,
    lost_reported: u64,
}

impl Batch {
    fn take(&mut self, feeds: &mut Feeds) {
        feeds.usages.take(&mut self.usage);
        // While the registry is away no step ends, so that what comes for one folds into one.
        for delta in feeds.measures.take() {
            match self.canaries.iter_mut().find(|known| known.is_of(&delta)) {
                Some(known) => known.counts.add(&delta.counts),
                None => self.canaries.push(delta),
            }
        }
        while let Ok(fact) = feeds.instances.try_recv() {
            self.instance(fact);
        }
        while let Ok(fact) = feeds.logs.try_recv() {
            if !self.log(fact) {
                feeds.dropped.logs.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.tokens.take(std::mem::take(&mut *feeds.tokens.lock()));
        let lost = feeds.dropped.logs.load(Ordering::Relaxed);
        if lost > self.lost_reported {
            tracing::warn!(
                lines = lost - self.lost_reported,
                "log lines dropped: functions write faster than they can be stored"
            );
            self.lost_reported = lost;
        }
    }

    /// The last state counts, and what was once known about an instance stays known.
    fn instance(&mut self, fact: InstanceFact) {
        let before = self.instances.remove(&fact.instance);
        let known = before.as_ref();
        let update = InstanceUpdate {
            id: fact.instance,
            state: fact.state,
            version_id: fact.version_id.or(known.and_then(|k| k.version_id)),
            config_digest: fact.config.or(known.and_then(|k| k.config_digest)),
            calls: fact.calls.max(known.map_or(0, |k| k.calls)),
            errors: known.map_or(0, |k| k.errors),
        };
        self.instances.insert(fact.instance, update);
    }

    fn log(&mut self, fact: LogFact) -> bool {
        if self.logs.len() >= KEPT_LINES || self.log_bytes + fact.line.len() > KEPT_BYTES {
            return false;
        }
        self.log_bytes += fact.line.len();
        self.logs.push(LogRow {
            function_id: fact.function_id,
            version: fact.version,
            invocation_id: fact.invocation,
            stream: fact.stream,
            at: fact.at,
            line: fact.line,
        });
        true
    }

    async fn write(&mut self, registry: &Registry, gateway: GatewayId) {
        // Before the calls: who reads that a call was counted reads of the instance that it made, too.
        let updates: Vec<_> = self.instances.values().cloned().collect();
        if keep(registry.record_instances(gateway, &updates).await, "instance states") {
            return;
        }
        self.instances.clear();
        let usage: Vec<_> = self.usage.values().cloned().collect();
        if keep(registry.record_usage(&usage).await, "usage") {
            return;
        }
        self.usage.clear();
        while let Some(delta) = self.canaries.pop() {
            if keep(registry.record_canaries(std::slice::from_ref(&delta)).await, "what a canary did") {
                self.canaries.push(delta);
                return;
            }
        }
        while !self.logs.is_empty() {
            let count = self.logs.len().min(LINES_AT_ONCE);
            if keep(registry.append_logs(&self.logs[..count]).await, "log lines") {
                return;
            }
            self.log_bytes -= self.logs.drain(..count).map(|row| row.line.len()).sum::<usize>();
        }
        let used = self.tokens.due(Instant::now());
        if !used.is_empty() && !keep(registry.token_seen(&used).await, "tokens' last use") {
            self.tokens.written(&used, Instant::now());
        }
    }
}

/// Whether a batch must be tried again. Only an absent registry is waited for: a batch that it refuses would
/// be refused for ever, and everything behind it would wait.
fn keep(outcome: Result<(), RegistryError>, what: &str) -> bool {
    match outcome {
        Ok(()) => false,
        Err(RegistryError::Unavailable(error)) => {
            tracing::debug!(%error, what, "facts wait for the registry");
            true
        }
        Err(error) => {
            tracing::error!(%error, what, "facts were refused and are lost");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use davit_api::{InstanceState, LogStream, VersionId};

    use super::*;
    use crate::facts::Recorder;

    #[test]
    fn facts_of_one_thing_fold_into_one_row() {
        let (recorder, mut feeds) = Recorder::channel();
        let (instance, version) = (InstanceId::new(), VersionId::new());
        for (state, version_id) in [
            (InstanceState::Active, Some(version)),
            (InstanceState::Frozen, None),
            (InstanceState::Released, None),
        ] {
            let at = Utc::now();
            recorder.instance(InstanceFact {
                instance,
                state,
                version_id,
                config: None,
                calls: 3,
                reason: None,
                at,
            });
        }
        let mut batch = Batch::default();
        batch.take(&mut feeds);
        let update = &batch.instances[&instance];
        assert_eq!(
            (update.state, update.version_id, update.calls),
            (InstanceState::Released, Some(version), 3)
        );
    }

    #[test]
    fn lines_beyond_the_bound_are_counted_not_kept() {
        let (recorder, mut feeds) = Recorder::channel();
        let mut batch = Batch::default();
        for _ in 0..5 {
            for _ in 0..10_000 {
                recorder.log(LogFact {
                    namespace: "a".parse().unwrap(),
                    function: "b".parse().unwrap(),
                    function_id: FunctionId::new(),
                    version: 1,
                    instance: InstanceId::new(),
                    invocation: None,
                    stream: LogStream::Stdout,
                    at: Utc::now(),
                    line: "x".into(),
                });
            }
            batch.take(&mut feeds);
        }
        assert_eq!(batch.logs.len(), KEPT_LINES);
        assert_eq!(recorder.dropped().logs.load(Ordering::Relaxed), 30_000);
    }
}
