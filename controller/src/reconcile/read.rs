//! Reads everything that the plan looks at.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use davit_api::{GatewayId, InstanceId, PoolKey, RuntimeName};
use davit_registry::{DemandRow, GATEWAY_LEASE, GatewayRow, InstanceRow};
use tokio::time::Instant;

use super::apply::Applier;
use super::plan::{self, Gateway, Instance, Turns};
use crate::backend::{BackendError, ImageId, Observed, RuntimeImage};
use crate::pool::{self, PoolView};
use crate::world::World;

/// A gateway that did not repeat what it waits for has other worries.
const DEMAND_AGE: Duration = Duration::from_secs(15);
/// Time for a gateway that was asked for memory to give it up, and for its rows to say so.
const ASKED_LATELY: Duration = Duration::from_secs(2);
/// Images change when an operator rebuilds them; containers also change by themselves.
const IMAGES_EVERY: Duration = Duration::from_secs(3);
/// Which languages are in use changes with a deploy, and is only about being ready ahead of a call.
const LANGUAGES_EVERY: Duration = Duration::from_secs(30);
/// Functions' own images that are kept ready at a time, those of the newest versions.
const OWN_IMAGES: u32 = 8;
const CONTAINERS_EVERY: Duration = Duration::from_secs(1);

/// Reads, and remembers what needs two looks.
pub(super) struct Reader {
    world: Arc<World>,
    lapsed_since: HashMap<GatewayId, Instant>,
    missing: HashSet<InstanceId>,
    turns: Turns,
    /// When gateways were asked for memory.
    asked: HashMap<GatewayId, Instant>,
    images: HashMap<String, ImageId>,
    /// Why other images cannot be started.
    absent: HashMap<String, String>,
    standing: Vec<String>,
    /// Runtime images that versions with an alias run in.
    in_use: Vec<String>,
    /// What the registry was told last.
    noted: Option<Vec<(RuntimeName, String)>>,
    /// Kinds of instances that live versions with an image of their own have.
    own: Vec<PoolKey>,
    in_use_at: Option<Instant>,
    images_at: Option<Instant>,
    containers: Vec<Observed>,
    containers_at: Option<Instant>,
    fresh: bool,
}

impl Reader {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            lapsed_since: HashMap::new(),
            missing: HashSet::new(),
            turns: Turns::default(),
            asked: HashMap::new(),
            images: HashMap::new(),
            absent: HashMap::new(),
            standing: Vec::new(),
            in_use: Vec::new(),
            noted: None,
            own: Vec::new(),
            in_use_at: None,
            images_at: None,
            containers: Vec::new(),
            containers_at: None,
            fresh: false,
        }
    }

    /// Everything, as of now. The order matters: an instance's row is written before its container is made,
    /// so containers are read first, and every container that is seen has had its row written.
    pub(super) async fn read(&mut self, applier: &Applier) -> Result<plan::World, String> {
        let mut starting = self.world.starting.now();
        let mut errands = self.world.errands.now();
        let mut resizing = applier.resizing.now();
        // Before the containers: a removal that ends in between left no container to see.
        let removing = applier.removing();
        self.read_containers(applier).await.map_err(|e| e.to_string())?;
        let registry = &self.world.registry;
        let gateways = registry.gateways().await.map_err(|e| e.to_string())?;
        let rows = registry.live_instances().await.map_err(|e| e.to_string())?;
        let demand = registry.read_demand().await.map_err(|e| e.to_string())?;
        self.read_images(&demand).await.map_err(|e| e.to_string())?;
        starting.extend(self.world.starting.now());
        errands.extend(self.world.errands.now());
        resizing.extend(applier.resizing.now());

        let gateways = self.judge(gateways);
        let demand: Vec<DemandRow> = demand.into_iter().filter(|d| d.updated_age < DEMAND_AGE).collect();
        for row in demand.iter().filter(|d| d.waiting > 0) {
            if let Some(why) = self.absent.get(&row.key.image) {
                applier.obstacles.note(&row.key, why).await;
            }
        }
        let map = |count: fn(&DemandRow) -> u32| -> BTreeMap<_, _> {
            let counted = demand.iter().map(|d| ((d.gateway, d.key.clone()), count(d)));
            counted.filter(|(_, n)| *n > 0).collect()
        };
        let view = PoolView {
            gateways: gateways.iter().filter(|g| g.alive).map(|g| g.id).collect(),
            standing: self.standing.iter().filter_map(|image| pool::standing_key(image)).collect(),
            own: self.own.iter().filter(|key| self.images.contains_key(&key.image)).cloned().collect(),
            claims: map(|d| d.claims_recent),
        };
        let mut images = self.images.clone();
        images.retain(|image, _| !applier.resting(image));
        Ok(plan::World {
            standing: pool::wanted(&view, self.world.settings.pool),
            waiting: map(|d| d.waiting),
            gateways,
            instances: rows.into_iter().map(|row| instance(row, applier)).collect(),
            containers: self.containers.clone(),
            images,
            starting_here: starting,
            removing_here: removing,
            resizing_here: resizing,
            turns: self.turns.clone(),
            // A list that was read for an earlier look proves nothing a second time.
            missing_before: if self.fresh { self.missing.clone() } else { HashSet::new() },
            own_errands: errands,
            asked_lately: self
                .asked
                .iter()
                .filter(|(_, at)| at.elapsed() < ASKED_LATELY)
                .map(|(id, _)| *id)
                .collect(),
            bounds: self.bounds(),
        })
    }

    /// Containers kept for the next deploy take of the same memory.
    fn bounds(&self) -> plan::Bounds {
        let bounds = self.world.settings.bounds;
        plan::Bounds { memory_mb: bounds.memory_mb.saturating_sub(self.world.spares.memory_mb()), ..bounds }
    }

    pub(super) fn remember(&mut self, plan: &plan::Plan) {
        self.turns.clone_from(&plan.turns);
        self.asked.retain(|_, at| at.elapsed() < ASKED_LATELY);
        self.asked.extend(plan.ask.keys().map(|gateway| (*gateway, Instant::now())));
        if self.fresh {
            self.missing = plan.missing.clone();
        }
    }

    async fn read_containers(&mut self, applier: &Applier) -> Result<(), BackendError> {
        let old = self.containers_at.is_none_or(|at| at.elapsed() >= CONTAINERS_EVERY);
        self.fresh = applier.dirty.swap(false, Ordering::AcqRel) || old;
        if self.fresh {
            let at = Instant::now();
            self.containers =
                self.world.backend.observe().await.inspect_err(|_| self.containers_at = None)?;
            self.containers_at = Some(at);
        }
        Ok(())
    }

    async fn read_images(&mut self, demand: &[DemandRow]) -> Result<(), BackendError> {
        let unknown = demand.iter().any(|d| d.waiting > 0 && !self.images.contains_key(&d.key.image));
        if !unknown && self.images_at.is_some_and(|at| at.elapsed() < IMAGES_EVERY) {
            return Ok(());
        }
        self.read_languages().await;
        let named = self.world.backend.runtime_images().await?;
        let pinned =
            |image: &RuntimeImage| Some(RuntimeName::of_image(&image.name)?.pinned_image(&image.id.0));
        self.standing = named.iter().filter(|image| image.always_warm).filter_map(pinned).collect();
        self.standing.extend(self.in_use.iter().cloned());
        self.standing.sort();
        self.standing.dedup();
        let current: HashMap<String, ImageId> =
            named.into_iter().map(|image| (image.name, image.id)).collect();
        self.note_runtimes(&current).await;
        let names: HashSet<&str> = self
            .standing
            .iter()
            .map(String::as_str)
            .chain(self.own.iter().map(|key| key.image.as_str()))
            .chain(demand.iter().map(|d| d.key.image.as_str()))
            .collect();
        let mut images = HashMap::new();
        let mut absent = HashMap::new();
        for name in names {
            match self.world.backend.resolve(name).await {
                Ok(image) => drop(images.insert(name.to_owned(), image)),
                Err(error @ (BackendError::NoImage(_) | BackendError::NotConfigured(_))) => {
                    let now = RuntimeName::split_pinned(name).and_then(|(now, _)| current.get(&now));
                    let Some(now) = now else {
                        absent.insert(name.to_owned(), error.to_string());
                        continue;
                    };
                    // Once, and again when another one stands in.
                    if self.images.get(name) != Some(now) {
                        tracing::warn!(
                            image = name,
                            instead = %now.0,
                            "an image that versions run in is gone; they run in the one that has the runtime's name now"
                        );
                    }
                    images.insert(name.to_owned(), now.clone());
                }
                Err(error) => return Err(error),
            }
        }
        self.standing.retain(|name| images.contains_key(name));
        self.images = images;
        self.absent = absent;
        self.images_at = Some(Instant::now());
        Ok(())
    }

    /// Tells everybody, when that has changed, which image each runtime's next deployment is built for.
    async fn note_runtimes(&mut self, current: &HashMap<String, ImageId>) {
        let shipped = RuntimeName::SHIPPED.iter().filter_map(|name| name.parse::<RuntimeName>().ok());
        let others = current.keys().filter_map(|name| RuntimeName::of_image(name));
        let runtimes: BTreeSet<RuntimeName> = shipped.chain(others).collect();
        let images: Vec<(RuntimeName, String)> = runtimes
            .into_iter()
            .filter_map(|runtime| current.get(&runtime.image()).map(|id| (runtime, id.0.clone())))
            .collect();
        if self.noted.as_ref() == Some(&images) {
            return;
        }
        match self.world.registry.note_runtime_images(&images).await {
            Ok(_) => self.noted = Some(images),
            Err(error) => tracing::debug!(%error, "cannot note which images runtimes have"),
        }
    }

    /// Most images are kept warm only while some function is of that language; a few always are.
    async fn read_languages(&mut self) {
        if self.in_use_at.is_some_and(|at| at.elapsed() < LANGUAGES_EVERY) {
            return;
        }
        self.in_use_at = Some(Instant::now());
        match self.world.registry.runtime_images_in_use().await {
            Ok(runtimes) => {
                self.in_use = runtimes.iter().map(|(runtime, id)| runtime.pinned_image(id)).collect();
            }
            // What was in use most likely is.
            Err(error) => tracing::debug!(%error, "cannot read which runtimes are in use"),
        }
        match self.world.registry.own_images_live(OWN_IMAGES).await {
            Ok(keys) => self.own = keys,
            Err(error) => tracing::debug!(%error, "cannot read which images are in use"),
        }
    }

    /// A gateway is lost when its lease has been over for another lease's length by the database's clock and,
    /// at every look in between, by ours: after an outage of the database everybody looks late at first.
    fn judge(&mut self, rows: Vec<GatewayRow>) -> Vec<Gateway> {
        let now = Instant::now();
        self.lapsed_since.retain(|id, _| rows.iter().any(|r| r.id == *id && r.lapsed_for.is_some()));
        let judged = rows.into_iter().map(|row| match row.lapsed_for {
            None => Gateway { id: row.id, alive: true, lost: false },
            Some(lapsed) => {
                let since = *self.lapsed_since.entry(row.id).or_insert(now);
                let lost = lapsed >= GATEWAY_LEASE && now - since >= GATEWAY_LEASE;
                Gateway { id: row.id, alive: false, lost }
            }
        });
        judged.collect()
    }
}

fn instance(row: InstanceRow, applier: &Applier) -> Instance {
    let now = chrono::Utc::now();
    // Compared with minutes, or, for a wish, with seconds: a host clock that is a little off costs a start that need not be, or
    // that one begins later.
    let since = |at: chrono::DateTime<chrono::Utc>| (now - at).to_std().unwrap_or_default();
    Instance {
        id: row.id,
        gateway: row.gateway,
        key: row.key,
        wish: row.wish.map(|wish| plan::Wish {
            may: applier.may_resize(&wish.key),
            begun: wish.begun,
            age: since(wish.since),
            key: wish.key,
        }),
        image: ImageId(row.image_digest),
        state: row.state,
        age: since(row.created_at),
        in_state: since(row.changed_at),
    }
}
