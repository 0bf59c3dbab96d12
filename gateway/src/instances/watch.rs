//! Finds the instances that the controller started for this gateway and takes them in.
//!
//! Woken by a hint or by its second; reads everything either way. A registry that does not answer changes
//! nothing about what is held already.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use davit_api::{Digest, GatewayId, InstanceId, InstanceState};
use davit_link::{InstanceSecret, Link, Place};
use davit_registry::{Changes, InstanceRow, MasterKey, Registry, Topic};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::facts::InstanceFact;
use crate::instances::{Instance, Instances, Source};
use crate::lanes::Lanes;

/// Time for an agent to take the connection and greet.
const CONNECT: Duration = Duration::from_secs(5);
/// Failed connects after which an instance is given up.
const TRIES: u32 = 3;

/// Watches the rows of one gateway's instances.
pub struct Watch {
    registry: Registry,
    gateway: GatewayId,
    state_dir: PathBuf,
    key: Arc<MasterKey>,
    instances: Instances,
    lanes: Arc<Lanes>,
    /// Every instance seen, with failed connects. Kept until its row is gone, so that an instance that was
    /// claimed a moment ago is not connected again because its row still says `pooled`.
    seen: Arc<Mutex<HashMap<InstanceId, Seen>>>,
}

#[derive(Clone, Copy)]
enum Seen {
    /// Being connected, after so many failures.
    Connecting(u32),
    /// Ours, or was.
    Held,
    /// So many connects failed.
    Failed(u32),
}

impl Watch {
    /// A watch over the instances of `gateway`.
    pub fn new(
        registry: Registry,
        gateway: GatewayId,
        state_dir: PathBuf,
        key: Arc<MasterKey>,
        instances: Instances,
        lanes: Arc<Lanes>,
    ) -> Self {
        Self { registry, gateway, state_dir, key, instances, lanes, seen: Arc::default() }
    }

    /// Watches until told to stop.
    pub async fn run(self, changes: Changes, stop: CancellationToken) {
        let mut hint = changes.subscribe(Topic::Instances);
        let mut asked = changes.subscribe(Topic::Memory);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = hint.changed() => {}
                Ok(()) = asked.changed() => {
                    self.give_up().await;
                    continue;
                }
                _ = tick.tick() => {}
            }
            // What is on record by now; a wish that is written while the rows are read may not be in them.
            let wished = self.instances.on_record();
            match self.registry.gateway_instances(self.gateway).await {
                Ok(rows) => {
                    answered = true;
                    self.settle(&wished, &rows);
                    self.take_in(&rows);
                    self.ask_why().await;
                }
                Err(error) => {
                    if std::mem::take(&mut answered) {
                        tracing::warn!(%error, "instances cannot be read; what is held goes on");
                    }
                }
            }
        }
    }

    /// The controller repeats what it asks for as long as a call waits, so a word that is lost is said again.
    async fn give_up(&self) {
        match self.registry.take_memory_ask(self.gateway).await {
            Ok(0) => {}
            Ok(asked_mb) => {
                let freed_mb = self.instances.give_up(asked_mb);
                tracing::info!(asked_mb, freed_mb, "gave up idle instances for a call that waits for room");
            }
            Err(error) => tracing::debug!(%error, "what memory was asked for was not read"),
        }
    }

    /// While calls wait: what stands in the way of those that they wait for.
    async fn ask_why(&self) {
        if !self.instances.wanted().iter().any(|kind| kind.waiting > 0) {
            return;
        }
        match self.registry.obstacles().await {
            Ok(found) => *self.instances.shared().obstacles.lock() = found.into_iter().collect(),
            Err(error) => tracing::debug!(%error, "what stands in the way of starts was not read"),
        }
    }

    /// Puts instances back whose wish is gone: into the pool of what their rows say they are.
    fn settle(&self, wished: &[InstanceId], rows: &[InstanceRow]) {
        for id in wished {
            let row = rows.iter().find(|row| row.id == *id);
            if let Some(row) = row.filter(|row| row.wish.is_none() && row.state == InstanceState::Pooled) {
                self.instances.settle(row.id, &row.key);
            }
        }
    }

    fn take_in(&self, rows: &[InstanceRow]) {
        let mut seen = self.seen.lock();
        let known: HashMap<InstanceId, &InstanceRow> = rows.iter().map(|r| (r.id, r)).collect();
        seen.retain(|id, _| known.contains_key(id));
        for row in rows {
            match (row.state, seen.get(&row.id)) {
                (InstanceState::Pooled, None) => drop(seen.insert(row.id, Seen::Connecting(0))),
                (InstanceState::Pooled, Some(&Seen::Failed(n))) if n < TRIES => {
                    seen.insert(row.id, Seen::Connecting(n));
                }
                (InstanceState::Released | InstanceState::Removed, Some(_)) => {
                    // The controller took it back; only an instance without a version can be given up here.
                    if let Some(instance) = self.instances.shared().pools.remove(row.id) {
                        self.instances.shared().released(&instance, "taken back by the controller");
                    }
                    continue;
                }
                _ => continue,
            }
            self.connect(row);
        }
    }

    fn connect(&self, row: &InstanceRow) {
        let place = match row.address {
            None => Place::Socket(Config::agent_socket(&self.state_dir, row.id)),
            Some(address) => {
                let secret = InstanceSecret::from_bytes(self.key.instance_secret(row.id));
                Place::Tcp { address, secret }
            }
        };
        let (id, key, instances, seen) = (row.id, row.key.clone(), self.instances.clone(), self.seen.clone());
        let resizable = row.resizable;
        // On a lane, where most calls are: an answer from the agent often finds the call that waits for it there.
        self.lanes.carry(async move {
            match Link::connect(&place, Instant::now() + CONNECT).await {
                Ok((link, events)) => {
                    tracing::debug!(instance = %id, "instance joined the pool");
                    seen.lock().insert(id, Seen::Held);
                    let instance = Instance::new(id, key, link).with_resizable(resizable);
                    instances.add(Arc::new(instance), events);
                }
                Err(error) => {
                    let mut seen = seen.lock();
                    let failures = match seen.get(&id) {
                        Some(Seen::Connecting(n)) => n + 1,
                        _ => 1,
                    };
                    tracing::warn!(instance = %id, %error, failures, "agent cannot be reached");
                    seen.insert(id, Seen::Failed(failures));
                    drop(seen);
                    given_up(&instances, id, failures);
                }
            }
        });
    }
}

fn given_up(instances: &Instances, id: InstanceId, failures: u32) {
    if failures >= TRIES {
        instances.shared().recorder.instance(InstanceFact {
            instance: id,
            state: InstanceState::Released,
            version_id: None,
            config: None,
            calls: 0,
            reason: Some("its agent cannot be reached".into()),
            at: Utc::now(),
        });
    }
}

/// Bundles out of the registry.
pub struct RegistrySource(pub Registry);

impl Source for RegistrySource {
    fn fetch<'a>(&'a self, digest: Digest, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut reader = self.0.open_artifact(digest).await.map_err(io::Error::other)?;
            let mut file = tokio::fs::File::create(to).await?;
            while let Some(chunk) = reader.next_chunk().await.map_err(io::Error::other)? {
                tokio::io::AsyncWriteExt::write_all(&mut file, &chunk).await?;
            }
            tokio::io::AsyncWriteExt::flush(&mut file).await
        })
    }
}
