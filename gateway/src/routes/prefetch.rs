//! Has the code of live versions here, and unpacked where instances share it, before anybody asks for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::Digest;
use futures_util::StreamExt;
use parking_lot::Mutex;

use crate::instances::Instances;
use crate::routes::Table;
use crate::version::LiveVersion;

/// Bundles that are fetched at a time for one change; each takes a connection to the registry.
const AT_ONCE: usize = 4;
/// Files of versions that are no longer live are looked for this often. Each look also says of the others that they
/// are in use, which must happen well within the time they are kept.
const PRUNE: Duration = Duration::from_secs(150);

/// Fetches for one gateway.
pub(super) struct Prefetch {
    instances: Instances,
    /// Not here yet.
    wanted: HashSet<Digest>,
    /// Being fetched.
    busy: Arc<Mutex<HashSet<Digest>>>,
    pruned: Option<Instant>,
}

impl Prefetch {
    pub(super) fn new(instances: Instances) -> Self {
        Self { instances, wanted: HashSet::new(), busy: Arc::default(), pruned: None }
    }

    /// These bundles belong to live versions.
    pub(super) fn want(&mut self, live: impl Iterator<Item = Digest>) {
        self.wanted.extend(live);
    }

    /// Fetches what is wanted and is neither here nor on its way; what failed is tried again.
    pub(super) fn go(&mut self) {
        if self.wanted.is_empty() {
            return;
        }
        let bundles = &self.instances.shared().bundles;
        self.wanted.retain(|digest| !bundles.is_prepared(*digest));
        let fetch: Vec<Digest> = {
            let mut busy = self.busy.lock();
            self.wanted.iter().copied().filter(|digest| busy.insert(*digest)).collect()
        };
        if fetch.is_empty() {
            return;
        }
        let (shared, busy) = (self.instances.shared().clone(), self.busy.clone());
        tokio::spawn(async move {
            let each = |digest| {
                let busy = Busy { busy: busy.clone(), digest };
                let shared = &shared;
                async move {
                    let _busy = busy;
                    if let Err(error) = shared.bundles.prepare(digest).await {
                        tracing::warn!(%digest, %error, "code not fetched yet; the first call will try again");
                    }
                }
            };
            futures_util::stream::iter(fetch).for_each_concurrent(AT_ONCE, each).await;
        });
    }

    /// Now and then: removes files of versions that are no longer live.
    pub(super) fn prune(&mut self, table: &Table, pinned: &[Arc<LiveVersion>]) {
        if self.pruned.is_some_and(|at| at.elapsed() < PRUNE) {
            return;
        }
        self.pruned = Some(Instant::now());
        let live: HashSet<Digest> = table.all_versions().chain(pinned).map(|v| v.bundle).collect();
        self.wanted.retain(|digest| live.contains(digest));
        let shared = self.instances.shared().clone();
        tokio::task::spawn_blocking(move || shared.bundles.prune(&live));
    }
}

/// Takes its bundle off the list of those on their way, however its fetch ends.
struct Busy {
    busy: Arc<Mutex<HashSet<Digest>>>,
    digest: Digest,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.digest);
    }
}
