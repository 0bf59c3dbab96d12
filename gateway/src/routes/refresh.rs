//! Keeps the snapshot as new as the registry: wakes on a hint or every few seconds, reads everything, swaps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use davit_api::{Digest, PoolKey};
use davit_registry::{Changes, MasterKey, Registry, RoutedFunction, RoutingSnapshot, Topic};
use tokio_util::sync::CancellationToken;

use crate::instances::Instances;
use crate::routes::{Routes, Table, TokenEntry};
use crate::version::LiveVersion;

/// Full reads happen at least this often, because a hint may be lost and a token must stop within seconds.
const FULL_READ: Duration = Duration::from_secs(3);

/// Turns what the registry says into the lookup structure. Versions that did not change keep their `Arc`, so
/// instances that serve them need not be compared by value.
pub fn convert(snapshot: RoutingSnapshot, previous: &Table) -> Table {
    let versions = snapshot.functions.into_iter().map(|f| live(f, previous)).collect();
    let tokens: HashMap<_, _> = snapshot
        .tokens
        .into_iter()
        .map(|t| {
            (t.hash, TokenEntry { id: t.id, namespace: t.namespace, role: t.role, expires_at: t.expires_at })
        })
        .collect();
    Table::build(versions, tokens)
}

fn live(function: RoutedFunction, previous: &Table) -> Arc<LiveVersion> {
    let config = LiveVersion::config_digest(&function.spec, &function.env_resolved);
    if let Some(known) = previous.function_by_id(function.function_id)
        && known.version_id == function.version_id
        && known.config == config
        && known.missing_secrets.len() == function.missing_secrets.len()
    {
        return known.clone();
    }
    Arc::new(LiveVersion {
        pool_key: PoolKey::of(&function.spec),
        address: LiveVersion::address_of(&function.namespace, &function.name),
        namespace: function.namespace,
        function: function.name,
        function_id: function.function_id,
        version_id: function.version_id,
        number: function.number,
        spec: function.spec,
        bundle: function.bundle,
        bundle_size: function.bundle_size,
        env: function.env_resolved,
        missing_secrets: function.missing_secrets.iter().map(ToString::to_string).collect(),
        config,
    })
}

/// Keeps `routes` current until told to stop. `ready` is called after the first successful read.
pub async fn run(
    routes: Routes,
    registry: Registry,
    key: Arc<MasterKey>,
    changes: Changes,
    instances: Instances,
    ready: impl FnOnce() + Send,
    stop: CancellationToken,
) {
    let mut hint = changes.subscribe(Topic::Routes);
    let mut ready = Some(ready);
    loop {
        match registry.routing_snapshot(&key).await {
            Ok(snapshot) => {
                let table = convert(snapshot, &routes.load());
                instances.set_live(table.versions());
                prefetch(&instances, &table);
                routes.store(table);
                if let Some(ready) = ready.take() {
                    ready();
                }
            }
            Err(error) => tracing::warn!(%error, "routes cannot be read; the last ones stay in force"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = hint.changed() => {}
            () = tokio::time::sleep(FULL_READ) => {}
        }
    }
}

/// Fetches the code of live versions, and unpacks it where instances share it, before anybody asks for it.
fn prefetch(instances: &Instances, table: &Table) {
    let live: HashSet<Digest> = table.versions().map(|v| v.bundle).collect();
    for digest in live.iter().copied().filter(|d| !instances.shared().bundles.is_prepared(*d)) {
        let shared = instances.shared().clone();
        tokio::spawn(async move {
            if let Err(error) = shared.bundles.prepare(digest).await {
                tracing::warn!(%digest, %error, "code not fetched yet; the first call will try again");
            }
        });
    }
    let shared = instances.shared().clone();
    tokio::task::spawn_blocking(move || shared.bundles.prune(&live));
}
