//! What a gateway keeps of each function that it reads: as little as it can, and what it has already if that is still
//! right.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use davit_api::{FunctionId, PoolKey, VersionId};
use davit_registry::{Keep, RoutedFunction};
use parking_lot::Mutex;

use crate::policy::{Limiters, Policy, Route};
use crate::routes::Table;
use crate::version::LiveVersion;

/// Makes live versions of what is read. Versions that did not change keep their `Arc`, so that they are neither decoded
/// again nor held twice.
#[derive(Clone, Default)]
pub struct Keeper {
    previous: Arc<Table>,
    shared: Shared,
}

/// What versions have in common: the same for one version after another.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pool_keys: PoolKeys,
    limiters: Limiters,
}

impl Shared {
    /// Forgets what no version has any more.
    pub(super) fn prune(&self) {
        self.pool_keys.prune();
        self.limiters.prune();
    }
}

/// The pool keys in use. Most functions have one of very few.
#[derive(Clone, Default)]
struct PoolKeys(Arc<Mutex<HashSet<Arc<PoolKey>>>>);

impl PoolKeys {
    fn shared(&self, key: PoolKey) -> Arc<PoolKey> {
        let mut keys = self.0.lock();
        if let Some(known) = keys.get(&key) {
            return known.clone();
        }
        let key = Arc::new(key);
        keys.insert(key.clone());
        key
    }

    /// Forgets those that no version has any more.
    fn prune(&self) {
        self.0.lock().retain(|key| Arc::strong_count(key) > 1);
    }
}

impl Keeper {
    /// A keeper that knows the versions of `previous`.
    pub(super) fn new(previous: Arc<Table>, shared: Shared) -> Self {
        Self { previous, shared }
    }
}

impl Keep for Keeper {
    type Kept = Arc<LiveVersion>;

    fn known(&self, function: FunctionId, version: VersionId) -> Option<Arc<LiveVersion>> {
        self.previous.version(function, version).filter(|known| !known.has_secrets).cloned()
    }

    fn keep(&self, function: RoutedFunction) -> Arc<LiveVersion> {
        let config = LiveVersion::config_digest(&function.spec, &function.environment);
        if let Some(known) = self.previous.version(function.function_id, function.version_id)
            && known.config == config
            && known.missing_secrets.len() == function.environment.missing.len()
        {
            return known.clone();
        }
        Arc::new(live(function, config, &self.shared))
    }
}

fn live(function: RoutedFunction, config: davit_api::Digest, shared: &Shared) -> LiveVersion {
    let mut spec = function.spec;
    spec.env.clear();
    spec.command.shrink_to_fit();
    let has_secrets = spec.wanted_secrets().next().is_some();
    (spec.secrets, spec.secret_files) = Default::default();
    let policy = Policy::of_function(function.function_id, &spec, &shared.limiters);
    let routes = Route::all(function.function_id, &spec, &shared.limiters);
    (spec.http, spec.routes, spec.openapi) = (None, Vec::new(), None);
    let boxed = |all: BTreeMap<String, String>| {
        all.into_iter().map(|(name, value)| (name.into_boxed_str(), value.into_boxed_str())).collect()
    };
    let davit_registry::Environment { variables, files, missing } = function.environment;
    LiveVersion {
        pool_key: shared
            .pool_keys
            .shared(PoolKey::of(&spec, function.image_digest.as_deref().unwrap_or_default())),
        address: LiveVersion::address_of(&function.namespace, &function.name),
        namespace: function.namespace,
        function: function.name,
        function_id: function.function_id,
        version_id: function.version_id,
        number: function.number,
        routes,
        policy,
        spec,
        bundle: function.bundle,
        bundle_size: function.bundle_size,
        env: boxed(variables),
        secret_files: boxed(files),
        has_secrets,
        missing_secrets: missing.iter().map(ToString::to_string).collect(),
        config,
    }
}
