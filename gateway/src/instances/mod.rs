//! What this gateway owns: generic instances in pools, and fleets of instances that serve one version each.
//!
//! Everything here goes on working while the registry is away (invariant 4): instances are held by their links,
//! not by their rows.

mod attach;
mod bundles;
mod fleet;
mod give_up;
mod instance;
mod leave;
mod ledger;
mod pool;
mod remember;
mod resize;
mod scale;
mod shared;
mod sharing;
mod slot;
mod start;
mod state;
mod upkeep;
mod upstream;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use davit_api::{InstanceId, VersionId};
use davit_link::LinkEvent;
use davit_scaling::gather::Here;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::InstanceLimits;
use crate::demand::Demand;
use crate::facts::Recorder;
use crate::instances::remember::Remembered;
use crate::instances::state::Learnt;
use crate::metrics::Metrics;
use crate::peers::Known;
use crate::version::{FleetKey, LiveVersion};

pub use attach::Attached;
pub use bundles::{Bundles, Source};
pub use fleet::{Counts, Fleet};
pub use instance::{Instance, LogTail, Tap};
pub use ledger::{Ledger, Standing, Underway};
pub use pool::{Pools, Wanted};
pub use remember::Expected;
pub use shared::{Answers, Shared};
pub use sharing::Sharing;
pub use slot::Slot;
pub use upstream::{OpenError, Upstream, Upstreams, connect, open};
pub use watch::{RegistrySource, Watch};

/// All instances of this gateway; cheap to clone.
#[derive(Clone)]
pub struct Instances {
    shared: Arc<Shared>,
    fleets: Arc<RwLock<HashMap<FleetKey, Arc<Fleet>>>>,
    remembered: Arc<Mutex<Remembered>>,
}

/// Time between two looks at what is idle.
const SWEEP: Duration = Duration::from_secs(1);

impl Instances {
    /// Nothing yet. Starts the task that freezes what is idle; it ends with `stop`.
    pub fn new(
        limits: InstanceLimits,
        bundles: Bundles,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        demand: Demand,
        stop: CancellationToken,
    ) -> Self {
        let (idle, notes) = mpsc::unbounded_channel();
        let expected = Arc::<Expected>::default();
        let pools = Pools::new(demand);
        let eviction = Default::default();
        let answers = Default::default();
        let obstacles = Default::default();
        let peers = Default::default();
        let shared = Shared {
            pools,
            bundles,
            recorder,
            metrics,
            limits,
            peers,
            expected,
            answers,
            obstacles,
            eviction,
            idle,
        };
        let instances = Self { shared: Arc::new(shared), fleets: Arc::default(), remembered: Arc::default() };
        tokio::spawn(shared::freezer(notes, stop.clone()));
        tokio::spawn(instances.clone().expire(stop));
        instances
    }

    /// The fleet of a version, made when it is first called.
    pub fn fleet(&self, version: &Arc<LiveVersion>) -> Arc<Fleet> {
        let key = version.fleet_key();
        if let Some(fleet) = self.fleets.read().get(&key) {
            return fleet.clone();
        }
        let mut fleets = self.fleets.write();
        if let Some(fleet) = fleets.get(&key) {
            return fleet.clone();
        }
        // A new version is called like the one before it.
        let before = fleets.values().find(|f| f.version.function_id == version.function_id);
        let learnt = before.map(|f| f.learnt().1);
        let learnt = learnt.or_else(|| self.remembered.lock().take(version.function_id));
        let learnt = learnt.unwrap_or_else(|| Learnt::new(Instant::now()));
        let fleet = Fleet::new(version.clone(), self.shared.clone(), learnt);
        fleets.insert(key, fleet.clone());
        fleet
    }

    /// What the pools lack and gave.
    pub fn wanted(&self) -> Vec<Wanted> {
        self.shared.pools.wanted()
    }

    /// Takes a fresh instance in, and follows its link until that closes.
    pub fn add(&self, instance: Arc<Instance>, events: mpsc::Receiver<LinkEvent>) {
        tokio::spawn(follow(self.shared.clone(), Arc::downgrade(&instance), instance.id, events));
        self.shared.pools.add(instance);
    }

    /// Shared parts.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tells the fleets which versions are live; the others end as soon as they are idle. Versions with a minimum
    /// of instances get theirs.
    pub fn set_live<'a>(&self, live: impl Iterator<Item = &'a Arc<LiveVersion>>) {
        let mut keys = HashSet::new();
        for version in live {
            keys.insert(version.fleet_key());
            if version.spec.min_instances > 0 && version.missing_secrets.is_empty() {
                self.fleet(version);
            }
        }
        for (key, fleet) in self.fleets.read().iter() {
            fleet.set_retired(!keys.contains(key));
        }
    }

    /// What there is of a version for one more call.
    pub(crate) fn place(&self, version: &Arc<LiveVersion>) -> Here {
        if let Some(fleet) = self.fleets.read().get(&version.fleet_key()) {
            return fleet.place();
        }
        let may = self.shared.peers.bounds(version).most > 0;
        let room = may && self.shared.pools.ready(&version.pool_key) > 0;
        Here { free: false, room, any: false, may }
    }

    /// Takes news of other gateways into account: what is idle beyond a share that got smaller goes at once, what has calls
    /// when these have ended.
    pub fn adopt(&self, known: Known) {
        self.shared.peers.store(known);
        // A fleet that is being made meanwhile is made under the lock, and has read what was stored or is seen here.
        let fleets: Vec<Arc<Fleet>> = self.fleets.read().values().cloned().collect();
        fleets.iter().for_each(Fleet::share_out);
    }

    /// Instances that are held beyond the shares, by version.
    pub fn over(&self) -> BTreeMap<VersionId, u32> {
        let known = self.shared.peers.known();
        let mut over = BTreeMap::new();
        if known.view.is_alone() && known.view.is_active() {
            return over;
        }
        for fleet in self.fleets.read().values() {
            let version = &fleet.version;
            let share = known.view.share(version.function_id.0.as_u128(), version.spec.max_instances);
            let held = u32::try_from(fleet.held()).unwrap_or(u32::MAX);
            if held > share {
                *over.entry(version.version_id).or_default() += held - share;
            }
        }
        over
    }

    /// Numbers of every fleet.
    pub fn counts(&self) -> Vec<(Arc<LiveVersion>, Counts)> {
        self.fleets.read().values().map(|f| (f.version.clone(), f.counts())).collect()
    }

    /// Once a second: lets go what has been idle too long, and forgets fleets with nothing left.
    async fn expire(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let all: Vec<(FleetKey, Arc<Fleet>)> =
                self.fleets.read().iter().map(|(k, f)| (*k, f.clone())).collect();
            let now = Instant::now();
            for instance in self.shared.pools.overdue(now) {
                self.shared
                    .released(&instance, "it was to get another size, and nobody has said that it has");
            }
            let empty: Vec<FleetKey> =
                all.into_iter().filter(|(_, fleet)| fleet.expire(now)).map(|(key, _)| key).collect();
            if empty.is_empty() {
                continue;
            }
            let mut fleets = self.fleets.write();
            for key in empty {
                // Held by the map alone: no call can be on its way into it.
                let forget = |f: &Arc<Fleet>| Arc::strong_count(f) == 1 && !f.breaker_open() && !f.expects();
                if fleets.get(&key).is_some_and(forget)
                    && let Some(fleet) = fleets.remove(&key)
                {
                    let (function, learnt) = fleet.learnt();
                    self.remembered.lock().put(function, learnt);
                }
            }
        }
    }

    /// Lets everything go. Calls that still wait are told; calls that run lose their instance.
    pub fn close(&self) {
        for (_, fleet) in self.fleets.write().drain() {
            fleet.close();
        }
        for instance in self.shared.pools.drain() {
            self.shared.released(&instance, "gateway shut down");
        }
    }
}

/// Passes on what an agent says, for as long as its link lives. Holds the instance weakly, because the link
/// closes when the last user of the instance lets go of it.
async fn follow(
    shared: Arc<Shared>,
    instance: Weak<Instance>,
    id: InstanceId,
    mut events: mpsc::Receiver<LinkEvent>,
) {
    let mut reason = "its agent went away".to_owned();
    while let Some(event) = events.recv().await {
        match event {
            LinkEvent::Log(entries) => {
                if let Some(instance) = instance.upgrade() {
                    instance.log(entries, &shared.recorder);
                }
            }
            LinkEvent::Asked(ask) => {
                // Where nobody answers, dropping it refuses.
                let answers = shared.answers.get().and_then(Weak::upgrade);
                if let (Some(answers), Some(instance)) = (answers, instance.upgrade()) {
                    answers.answer(&instance, ask);
                }
            }
            LinkEvent::Leaving => {
                if let Some(instance) = shared.pools.remove(id) {
                    shared.released(&instance, leave::REASON);
                } else if let Some(fleet) = instance.upgrade().and_then(|i| i.fleet()) {
                    fleet.leave(id);
                }
            }
            LinkEvent::Exited(failure) => reason = failure.message,
            LinkEvent::Closed => break,
        }
    }
    if let Some(instance) = shared.pools.remove(id) {
        shared.metrics.instances_lost.add(1);
        shared.released(&instance, &reason);
    } else if let Some(fleet) = instance.upgrade().and_then(|i| i.fleet()) {
        fleet.lost(id, &reason);
    }
}
