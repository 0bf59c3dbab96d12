//! Carries a plan out: thin, bounded, and safe to be interrupted anywhere, since the next look starts from
//! what is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use davit_api::{GatewayId, InstanceId, PoolKey};
use davit_daemon::Tasks;
use davit_registry::Ready;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::obstacles::Obstacles;
use super::plan::{Plan, Reason, Removal};
use super::resize::Unfit;
use crate::acting::Acting;
use crate::backend::{ContainerId, ImageId, Role, StartRequest};
use crate::probe;
use crate::world::{Busy, BusyGuard, World};

const LONGEST_REST: Duration = Duration::from_secs(30);

/// Carries plans out; tasks hold clones.
#[derive(Clone)]
pub(super) struct Applier {
    pub(super) world: Arc<World>,
    acting: Acting,
    pub(super) tasks: Tasks,
    /// Instances that get another size.
    pub(super) resizing: Busy,
    /// Sizes that could not be given a while ago.
    pub(super) unfit: Unfit,
    removing: Arc<Mutex<HashSet<ContainerId>>>,
    /// Images whose starts fail: how often in a row, and until when they are left alone.
    failing: Arc<Mutex<HashMap<String, (u32, Instant)>>>,
    /// What calls that wait are told.
    pub(super) obstacles: Obstacles,
    /// Something ended; look again.
    pub(super) wake: Arc<Notify>,
    /// The list of containers is older than what was done.
    pub(super) dirty: Arc<AtomicBool>,
}

impl Applier {
    pub(super) fn new(world: Arc<World>, acting: Acting, tasks: Tasks) -> Self {
        Self {
            obstacles: Obstacles::new(world.registry.clone()),
            world,
            acting,
            tasks,
            resizing: Busy::default(),
            unfit: Unfit::default(),
            removing: Arc::default(),
            failing: Arc::default(),
            wake: Arc::default(),
            dirty: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether an image is left alone for now.
    pub(super) fn resting(&self, image: &str) -> bool {
        self.failing.lock().get(image).is_some_and(|(_, until)| Instant::now() < *until)
    }

    /// Containers whose removal runs.
    pub(super) fn removing(&self) -> HashSet<ContainerId> {
        self.removing.lock().clone()
    }

    /// Phases: resize and start, since somebody may wait for it; remove, watch, close rows, forget gateways.
    pub(super) async fn apply(&self, plan: Plan) {
        for resize in plan.resize {
            self.resize(resize);
        }
        for (gateway, key, image) in plan.start {
            if !self.start(gateway, key, image).await {
                break;
            }
        }
        for (gateway, mb) in plan.ask {
            tracing::info!(%gateway, mb, "a call waits for room: the gateway is asked to give up idle instances");
            if let Err(error) = self.world.registry.ask_for_memory(gateway, mb).await {
                tracing::warn!(%error, "cannot ask a gateway for memory");
            }
        }
        for instance in plan.decline {
            self.decline(instance, None).await;
        }
        for removal in plan.remove {
            self.remove(removal);
        }
        for (instance, container) in plan.watch {
            let busy = self.world.starting.enter(instance);
            let this = self.clone();
            self.tasks
                .spawn("watch-instance", async move { this.watch(instance, None, &container, busy).await });
        }
        for (instance, reason) in plan.close {
            tracing::info!(%instance, %reason, "instance closed");
            self.close(instance, &reason).await;
            if let Err(error) = self.world.backend.remove_dir(instance) {
                tracing::warn!(%error, "cannot remove an instance's directory");
            }
        }
        for gateway in plan.forget {
            match self.world.registry.forget_gateway(gateway).await {
                Ok(true) => {
                    tracing::info!(%gateway, "gateway forgotten: its lease lapsed and nothing of it is left");
                }
                // It came back, or its last instance's row is still to be closed.
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "cannot forget a gateway"),
            }
        }
    }

    async fn close(&self, instance: InstanceId, reason: &Reason) {
        if let Err(error) = self.world.registry.set_removed(instance, &reason.to_string()).await {
            tracing::warn!(%error, "cannot close an instance's row; the next look will");
        }
    }

    pub(super) fn remove(&self, removal: Removal) {
        if !self.removing.lock().insert(removal.container.clone()) {
            return;
        }
        let this = self.clone();
        self.tasks.spawn("remove-container", async move {
            if matches!(removal.reason, Reason::Died(_) | Reason::NeverReady) {
                let words = this.world.backend.last_words(&removal.container).await.unwrap_or_default();
                tracing::info!(container = %removal.container, reason = %removal.reason, ?words, "removing");
            } else {
                tracing::debug!(container = %removal.container, reason = %removal.reason, "removing");
            }
            match this.world.backend.stop(&removal.container, removal.instance).await {
                Ok(()) => {
                    if let (Some(instance), true) = (removal.instance, removal.has_row) {
                        this.close(instance, &removal.reason).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, container = %removal.container, "cannot remove a container")
                }
            }
            this.dirty.store(true, Ordering::Release);
            this.removing.lock().remove(&removal.container);
            this.wake.notify_one();
        });
    }

    /// Writes the row, so that the next look counts it, then starts in the background. `false` when there is
    /// no point in going on.
    async fn start(&self, gateway: GatewayId, key: PoolKey, image: ImageId) -> bool {
        let instance = InstanceId::new();
        let busy = self.world.starting.enter(instance);
        let Some(fence) = self.acting.fence() else { return false };
        match self.world.registry.insert_instance(&fence, instance, gateway, &key, &image.0).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("another controller acts by now: nothing is started here");
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write an instance's row");
                return false;
            }
        }
        let this = self.clone();
        self.tasks.spawn("start-instance", async move {
            let request =
                StartRequest { instance, role: Role::Instance, image: image.clone(), key: key.clone() };
            if this.tasks.stopping().is_cancelled() {
                let _ = this.world.registry.set_removed(instance, "davit stopped before it started").await;
                return;
            }
            // What an image says is asked for once; the start takes longer.
            let (started, resizable) =
                tokio::join!(this.world.backend.start(request), this.is_resizable(&key, &image));
            this.dirty.store(true, Ordering::Release);
            match started {
                Ok(container) => this.watch(instance, Some((&key, resizable)), &container, busy).await,
                Err(error) => {
                    this.failed(&key.image, &format!("cannot start: {error}"));
                    this.obstacles.note(&key, &error.to_string()).await;
                    let _ = this.world.registry.set_removed(instance, &format!("not started: {error}")).await;
                    drop(busy);
                    this.wake.notify_one();
                }
            }
        });
        true
    }

    /// Waits until an instance is ready and says so; one that never is gets removed.
    async fn watch(
        &self,
        instance: InstanceId,
        started: Option<(&PoolKey, bool)>,
        container: &ContainerId,
        busy: BusyGuard,
    ) {
        let key = started.map(|(key, _)| key);
        let stopping = self.tasks.stopping();
        let ready = tokio::select! {
            ready = probe::wait_ready(&*self.world.backend, instance, container) => ready,
            // Whoever comes next finds its row and its container, and watches on.
            () = stopping.cancelled() => return,
            () = self.tell(key, container) => return,
        };
        match ready {
            Ok(place) => {
                if let Some(key) = key {
                    self.failing.lock().remove(&key.image);
                }
                let resizable = started.is_some_and(|(_, resizable)| resizable);
                let ready = Ready { address: place.address(), resizable };
                if let Err(error) = self.world.registry.set_pooled(instance, ready).await {
                    // Still `starting`, with a container: the next look watches it again.
                    tracing::warn!(%error, "cannot say that an instance is ready");
                }
                drop(busy);
                if let Some(key) = key {
                    self.obstacles.clear(key).await;
                }
            }
            Err(not_ready) => {
                self.failed(key.map_or("", |key| &key.image), &not_ready.to_string());
                if let Some(key) = key {
                    self.obstacles.note(key, &not_ready.to_string()).await;
                }
                if let Err(error) = self.world.backend.stop(container, Some(instance)).await {
                    tracing::warn!(%error, "cannot remove an instance that did not start");
                }
                let reason: String = format!("did not start: {not_ready}").chars().take(1_000).collect();
                let _ = self.world.registry.set_removed(instance, &reason).await;
                drop(busy);
            }
        }
        self.dirty.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Notes what a start waits for; ends with whoever polls it.
    async fn tell(&self, key: Option<&PoolKey>, container: &ContainerId) {
        match key {
            Some(key) => self.obstacles.watch(&*self.world.backend, key, container).await,
            None => std::future::pending().await,
        }
    }

    /// The more often in a row, the longer the rest: a broken image must not keep the host busy.
    fn failed(&self, image: &str, why: &str) {
        if image.is_empty() {
            return tracing::warn!("instance did not start: {why}");
        }
        let mut failing = self.failing.lock();
        let (times, until) = failing.entry(image.to_owned()).or_insert((0, Instant::now()));
        *times += 1;
        let rest = Duration::from_millis(500 << (*times).min(6)).min(LONGEST_REST);
        *until = Instant::now() + rest;
        tracing::warn!(image, times, ?rest, "instance did not start: {why}");
    }
}
