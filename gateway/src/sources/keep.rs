//! Which sources this gateway fetches: those that it holds in the registry, wants, and knows in their newest form.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use davit_api::{ApiError, ErrorCode, GatewayId, InvocationSource, SourceId, SourceSpec, SourceState};
use davit_daemon::Allowed;
use davit_registry::{Changes, Holding, NewInvocation, Registry, SourceBatch, SourceRow, Topic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{Fetch, Fetched, Ledger, Pace};
use super::postgres::TableChanges;
use crate::metrics::Metrics;
use crate::routes::Routes;

/// Without a hint it is looked this often: who died, what is new.
const LOOK: Duration = Duration::from_secs(2);
/// After a hint the snapshot of routes needs a moment to be as new.
const SETTLE: Duration = Duration::from_millis(150);
/// Sources that are taken in one look, so that several gateways share them.
const AT_ONCE: u32 = 4;
/// How long the registry may take over a delivery. Whatever it does afterwards is found by the next beginning.
const PATIENCE: Duration = Duration::from_secs(10);

/// What fetching works with.
pub(crate) struct Keeper {
    pub(crate) registry: Registry,
    pub(crate) gateway: GatewayId,
    pub(crate) routes: Routes,
    pub(crate) allowed: Arc<Allowed>,
    pub(crate) metrics: Arc<Metrics>,
    /// Wakes the dispatcher of this process.
    pub(crate) wake: Arc<Notify>,
}

/// A source that is being fetched, in the form in which it was when that began.
struct Running {
    row: SourceRow,
    task: AbortOnDropHandle<()>,
    label: String,
}

impl Keeper {
    /// Fetches until `stop`. What is under way then is dropped: the next holder finds out how far it was.
    pub(crate) async fn run(self, changes: Changes, stop: CancellationToken) {
        let mut hint = changes.subscribe(Topic::Routes);
        let mut running = HashMap::new();
        loop {
            hint.borrow_and_update();
            self.look(&mut running).await;
            tokio::select! {
                () = stop.cancelled() => break,
                Ok(()) = hint.changed() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self, running: &mut HashMap<SourceId, Running>) {
        let table = self.routes.current();
        let fetched = |row: &&SourceRow| row.spec.is_fetched() && !row.paused;
        let wanted: HashMap<SourceId, &SourceRow> =
            table.sources().filter(fetched).map(|row| (row.id, row)).collect();
        let ids: Vec<SourceId> = wanted.keys().copied().collect();
        let held = if ids.is_empty() {
            // Nobody asks for what nobody uses.
            HashSet::new()
        } else {
            match self.registry.hold_sources(self.gateway, &ids, AT_ONCE).await {
                Ok(held) => held.into_iter().collect(),
                Err(error) => {
                    tracing::debug!(%error, "sources cannot be looked at; those that are fetched go on");
                    running.keys().copied().collect()
                }
            }
        };
        running.retain(|id, one| {
            let stays = held.contains(id)
                && wanted.get(id).is_some_and(|row| **row == one.row)
                && !one.task.is_finished();
            if !stays {
                self.metrics.sources.left(&one.label);
            }
            stays
        });
        for row in wanted.into_values().filter(|row| held.contains(&row.id)) {
            if !running.contains_key(&row.id)
                && let Some(one) = self.start(row)
            {
                running.insert(row.id, one);
            }
        }
        self.metrics.sources.held(running.len());
    }

    fn start(&self, row: &SourceRow) -> Option<Running> {
        let SourceSpec::Postgres(spec) = &row.spec else { return None };
        let label = format!("namespace=\"{}\",source=\"{}\"", row.namespace, row.name);
        let ledger = Book {
            registry: self.registry.clone(),
            gateway: self.gateway,
            routes: self.routes.clone(),
            metrics: self.metrics.clone(),
            wake: self.wake.clone(),
            row: row.clone(),
            label: label.clone(),
        };
        let pace = Pace {
            batch: spec.batch,
            batch_wait: Duration::from_millis(spec.batch_wait_ms.into()),
            backlog: spec.backlog,
        };
        let source = TableChanges::new(row, spec, self.allowed.clone());
        let (metrics, name) = (self.metrics.clone(), format!("{}/{}", row.namespace, row.name));
        let trouble = move |error: &str| {
            metrics.sources.errors.add(1);
            tracing::debug!(source = %name, error, "a source is not fetched");
        };
        let fetch = Fetch::new(source, ledger, pace);
        let task = tokio::spawn(fetch.run(trouble));
        Some(Running { row: row.clone(), task: AbortOnDropHandle::new(task), label })
    }
}

/// The queue and the registry's note of one source.
struct Book {
    registry: Registry,
    gateway: GatewayId,
    routes: Routes,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
    row: SourceRow,
    /// How the source is called in metrics.
    label: String,
}

impl Book {
    fn invocation(&self, event: Fetched, version: &crate::version::LiveVersion) -> NewInvocation {
        NewInvocation {
            ordering_key: event.ordering_key,
            destinations: version.spec.destinations.clone(),
            ..NewInvocation::new(
                version.namespace.clone(),
                version.function_id,
                InvocationSource::EventSource,
                event.payload,
                version.spec.retry,
            )
        }
    }
}

impl Ledger for Book {
    type Holding = Holding;

    async fn begin(&self) -> Result<Option<(Holding, Vec<String>)>, ApiError> {
        let beginning = self.registry.begin_source(self.row.id, self.gateway);
        within(beginning).await
    }

    async fn deliver(&self, holding: Holding, events: Vec<Fetched>) -> Result<bool, ApiError> {
        let table = self.routes.current();
        let version = table.function_by_id(self.row.function_id).ok_or_else(|| {
            ApiError::new(ErrorCode::Unavailable, "the source's function has no live version at the moment")
        })?;
        let (count, oldest) = (events.len(), events.iter().map(|event| event.age).max().unwrap_or_default());
        self.metrics.sources.received.add(count as u64);
        self.metrics.sources.lag(&self.label, oldest);
        let positions = events.iter().map(|event| event.position.clone()).collect();
        let invocations = events.into_iter().map(|event| self.invocation(event, version)).collect();
        let batch = SourceBatch { invocations, positions, lag_seconds: oldest.as_secs_f64() };
        let delivered = within(self.registry.deliver_source(holding, batch)).await?;
        if delivered {
            self.metrics.sources.delivered.add(count as u64);
            self.wake.notify_one();
        }
        Ok(delivered)
    }

    async fn open(&self, most: u32) -> Result<u32, ApiError> {
        within(self.registry.open_invocations(self.row.function_id, most)).await
    }

    async fn report(&self, holding: Holding, state: SourceState, lag: Option<Duration>, error: Option<&str>) {
        if let Some(lag) = lag {
            self.metrics.sources.lag(&self.label, lag);
        }
        let lag = lag.map(|lag| lag.as_secs_f64());
        if let Err(error) = within(self.registry.report_source(holding, state, lag, error)).await {
            tracing::debug!(%error, "how a source is getting on was not noted");
        }
    }
}

async fn within<T>(
    work: impl Future<Output = Result<T, davit_registry::RegistryError>>,
) -> Result<T, ApiError> {
    let late = || ApiError::new(ErrorCode::Unavailable, "the registry does not answer in time");
    let done = tokio::time::timeout(PATIENCE, work).await.map_err(|_| late())?;
    done.map_err(|error| {
        tracing::debug!(%error, "the registry refuses a source's work");
        error.into_api()
    })
}

#[cfg(test)]
mod stories;
