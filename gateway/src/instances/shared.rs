//! What every fleet of this gateway shares: pools, bundles, the way to the recorder, and the quiet work on idle
//! instances.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use chrono::Utc;
use davit_api::{InstanceId, InstanceState, PoolKey};
use davit_link::{Ask, LinkError};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::InstanceLimits;
use crate::facts::{InstanceFact, Recorder};
use crate::instances::bundles::Bundles;
use crate::instances::give_up::Eviction;
use crate::instances::pool::Pools;
use crate::instances::remember::Expected;
use crate::instances::{Fleet, Instance};
use crate::metrics::Metrics;
use crate::peers::Peers;

/// An instance to look at when it has been idle for a moment.
pub(super) struct IdleNote {
    due: Instant,
    fleet: Weak<Fleet>,
    instance: InstanceId,
}

/// Answers what functions ask for.
pub trait Answers: Send + Sync {
    /// Answers in its own time; what is dropped is refused. `instance`: who asks.
    fn answer(self: Arc<Self>, instance: &Arc<Instance>, ask: Ask);
}

/// Shared by all fleets.
pub struct Shared {
    /// Generic instances.
    pub pools: Pools,
    /// Code of the live versions.
    pub bundles: Bundles,
    /// Where facts go.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Bounds and times.
    pub limits: InstanceLimits,
    /// What other gateways leave to this one.
    pub peers: Peers,
    /// When schedules call.
    pub expected: Arc<Expected>,
    /// Who answers what functions ask for, once there is somebody.
    pub answers: OnceLock<Weak<dyn Answers>>,
    /// Why instances of a kind do not come, as the controller says while calls wait for them.
    pub obstacles: Mutex<HashMap<PoolKey, String>>,
    /// Which idle instances go first when memory is needed.
    pub(super) eviction: Eviction,
    pub(super) idle: mpsc::UnboundedSender<IdleNote>,
}

impl Shared {
    /// Looks at an instance again once it may be frozen. At most one look per instance is due at a time.
    pub(super) fn watch_idle(&self, fleet: &Arc<Fleet>, instance: InstanceId) {
        let due = Instant::now() + self.limits.freeze_after;
        let _ = self.idle.send(IdleNote { due, fleet: Arc::downgrade(fleet), instance });
    }

    /// Stops an instance's processes. `ice` is held until the agent has said so.
    pub(super) fn freeze(
        self: &Arc<Self>,
        fleet: &Arc<Fleet>,
        instance: Arc<Instance>,
        ice: OwnedMutexGuard<()>,
    ) {
        let (shared, fleet) = (self.clone(), fleet.clone());
        tokio::spawn(async move {
            let frozen = instance.link.freeze().await;
            match frozen {
                Ok(()) => {
                    shared.metrics.freezes.add(1);
                    shared.note(&fleet, &instance, InstanceState::Frozen);
                    drop(ice);
                }
                Err(error) => {
                    drop(ice);
                    fleet.lost(instance.id, &format!("could not be frozen: {error}"));
                }
            }
        });
    }

    /// Lets an instance's processes run again; the caller holds its ice. Does not wait: what is sent next comes
    /// after it.
    pub(super) async fn thaw(&self, fleet: &Fleet, instance: &Instance) -> Result<(), LinkError> {
        if fleet.take_frozen(instance.id) {
            instance.link.thaw().await?;
            self.note(fleet, instance, InstanceState::Active);
        }
        Ok(())
    }

    /// Records the state of an instance that has a version.
    pub(super) fn note(&self, fleet: &Fleet, instance: &Instance, state: InstanceState) {
        self.recorder.instance(InstanceFact {
            instance: instance.id,
            state,
            version_id: Some(fleet.version.version_id),
            config: Some(fleet.version.config),
            calls: instance.calls.load(Ordering::Relaxed),
            reason: None,
            at: Utc::now(),
        });
    }

    /// Records that this gateway is done with an instance. The link closes when the last user lets go of it.
    pub(super) fn released(&self, instance: &Instance, reason: &str) {
        instance.upstreams.clear();
        instance.ended.cancel();
        let version = instance.version();
        self.recorder.instance(InstanceFact {
            instance: instance.id,
            state: InstanceState::Released,
            version_id: version.map(|v| v.version_id),
            config: version.map(|v| v.config),
            calls: instance.calls.load(Ordering::Relaxed),
            reason: Some(reason.to_owned()),
            at: Utc::now(),
        });
        tracing::debug!(instance = %instance.id, reason, "instance released");
    }
}

/// Freezes idle instances. All notes wait equally long, so they are due in the order they came.
pub(super) async fn freezer(mut notes: mpsc::UnboundedReceiver<IdleNote>, stop: CancellationToken) {
    let mut again: VecDeque<IdleNote> = VecDeque::new();
    loop {
        let note = match again.pop_front() {
            Some(note) => note,
            None => tokio::select! {
                () = stop.cancelled() => return,
                note = notes.recv() => match note { Some(note) => note, None => return },
            },
        };
        tokio::time::sleep_until(note.due.into()).await;
        // Those that were busy in between come back with a later time; they queue behind what came meanwhile.
        while let Ok(newer) = notes.try_recv() {
            again.push_back(newer);
        }
        if let Some(fleet) = note.fleet.upgrade()
            && let Some(due) = fleet.freeze_if_idle(note.instance)
        {
            again.push_back(IdleNote { due, ..note });
        }
    }
}
