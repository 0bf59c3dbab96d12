//! Keeps the snapshot as new as the registry: wakes on a hint or every few seconds, reads what has changed, swaps.
//! Everything is read at the start, when too much has changed, and now and then to be sure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::FunctionId;
use davit_registry::{
    Changes, MasterKey, Registry, RegistryError, RoutingChanges, RoutingNews, RoutingPosition,
    RoutingSnapshot, TokenHash, Topic,
};
use tokio_util::sync::CancellationToken;

use crate::instances::Instances;
use crate::routes::keep::Shared;
use crate::routes::prefetch::Prefetch;
use crate::routes::{Keeper, Pins, Routes, Table, TokenEntry, gather};
use crate::version::LiveVersion;

/// Changes are asked for at least this often, because a hint may be lost and a token must stop within seconds. One
/// small statement, however many functions there are.
const CHECK: Duration = Duration::from_secs(3);
/// Everything is read at least this often. No change is known to escape the check; this is what a mistake in it, or a
/// registry that was put back to an older state, costs at most.
const FULL_READ: Duration = Duration::from_secs(30);

/// Reads the registry into the snapshot.
pub struct Refresh {
    routes: Routes,
    registry: Registry,
    key: Arc<MasterKey>,
    shared: Shared,
    pins: Pins,
    seen: Option<Seen>,
    /// [`CHECK`], but in tests.
    check: Duration,
}

/// What the snapshot stands for.
struct Seen {
    position: RoutingPosition,
    all_read: Instant,
}

/// What a look did to the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Nothing: it is as new as the registry.
    Same,
    /// It was changed.
    Changed,
    /// It was read as a whole.
    Whole,
}

impl Refresh {
    /// A reader that has read nothing yet.
    pub fn new(routes: Routes, registry: Registry, key: Arc<MasterKey>) -> Self {
        let pins = Pins::new(routes.clone(), registry.clone(), key.clone());
        Self { routes, registry, key, shared: Shared::default(), pins, seen: None, check: CHECK }
    }

    /// Versions that are asked for by number, which it keeps as new as the snapshot.
    pub fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// Makes the snapshot as new as the registry.
    pub async fn look(&mut self) -> Result<Looked, RegistryError> {
        let keeper = Keeper::new(self.routes.current(), self.shared.clone());
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.all_read.elapsed() < FULL_READ) {
            match self.registry.routing_changes(&self.key, &keeper, &seen.position).await? {
                RoutingNews::Nothing => return Ok(Looked::Same),
                RoutingNews::Changes(changes) => {
                    seen.position = changes.position.clone();
                    self.routes.store(changed(&self.routes.current(), changes));
                    return Ok(Looked::Changed);
                }
                RoutingNews::ReadAll => {}
            }
        }
        let snapshot = self.registry.routing_snapshot(&self.key, &keeper).await?;
        self.seen = Some(Seen { position: snapshot.position.clone(), all_read: Instant::now() });
        // The same functions, tokens and sources would make the same table.
        if !same(&self.routes.current(), &snapshot) {
            self.routes.store(whole(snapshot));
        }
        self.shared.prune();
        Ok(Looked::Whole)
    }
}

/// The lookup structure of everything that was read.
fn whole(snapshot: RoutingSnapshot<Arc<LiveVersion>>) -> Table {
    let aliases = gather(&snapshot.functions, snapshot.others, snapshot.aliases);
    Table::build(snapshot.functions, entries(snapshot.tokens))
        .with_sources(snapshot.sources)
        .with_aliases(aliases)
}

fn same(table: &Table, snapshot: &RoutingSnapshot<Arc<LiveVersion>>) -> bool {
    let known = |v: &Arc<LiveVersion>| table.function_by_id(v.function_id).is_some_and(|k| Arc::ptr_eq(k, v));
    let aliases = gather(&snapshot.functions, snapshot.others.clone(), snapshot.aliases.clone());
    table.versions().count() == snapshot.functions.len()
        && *table.all_aliases() == aliases
        && snapshot.functions.iter().all(known)
        && *table.tokens() == entries(snapshot.tokens.clone())
        && table.sources().count() == snapshot.sources.len()
        && snapshot.sources.iter().all(|s| table.source(s.namespace.as_str(), s.name.as_str()) == Some(s))
}

/// The structure with what has changed.
fn changed(previous: &Table, changes: RoutingChanges<Arc<LiveVersion>>) -> Table {
    let touched: HashSet<FunctionId> = changes.touched.into_iter().collect();
    let untouched = previous.versions().filter(|v| !touched.contains(&v.function_id)).cloned();
    let mut aliases = gather(&changes.functions, changes.others, changes.aliases);
    let kept = previous.all_aliases().iter().filter(|(id, _)| !touched.contains(id));
    aliases.extend(kept.map(|(id, of)| (*id, of.clone())));
    Table::build(untouched.chain(changes.functions).collect(), entries(changes.tokens))
        .with_sources(changes.sources)
        .with_aliases(aliases)
}

fn entries(tokens: Vec<TokenHash>) -> HashMap<[u8; 32], TokenEntry> {
    let entry = |t: TokenHash| {
        let entry = TokenEntry { id: t.id, namespace: t.namespace, role: t.role, expires_at: t.expires_at };
        (t.hash, entry)
    };
    tokens.into_iter().map(entry).collect()
}

/// Keeps the snapshot current until told to stop. `ready` is called after the first successful read.
pub async fn run(
    mut refresh: Refresh,
    changes: Changes,
    instances: Instances,
    ready: impl FnOnce() + Send,
    stop: CancellationToken,
) {
    let mut hint = changes.subscribe(Topic::Routes);
    let mut ready = Some(ready);
    let mut prefetch = Prefetch::new(instances.clone());
    loop {
        match refresh.look().await {
            Ok(looked) => {
                let table = refresh.routes.current();
                let lapsed = refresh.pins.review(&table, looked == Looked::Changed);
                if looked != Looked::Same || lapsed {
                    let pinned = refresh.pins.held();
                    instances.set_live(table.all_versions().chain(&pinned));
                    let watched = table.all_aliases().values().flat_map(|aliases| aliases.watched());
                    instances.shared().recorder.measures().watch(watched.collect());
                    prefetch.want(table.all_versions().map(|v| v.bundle));
                    prefetch.prune(&table, &pinned);
                }
                prefetch.go();
                if let Some(ready) = ready.take() {
                    ready();
                }
            }
            Err(error) => tracing::warn!(%error, "routes cannot be read; the last ones stay in force"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = hint.changed() => {}
            () = tokio::time::sleep(refresh.check) => {}
        }
    }
}

#[cfg(test)]
mod stories;
