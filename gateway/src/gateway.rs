//! The gateway as a whole: bind, spawn, drain. Called by `davit up` and `davit gateway`.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use davit_api::GatewayId;
use davit_daemon::Latch;
use davit_link::code::NotShared;
use davit_registry::{Changes, MasterKey, Registry};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, PeersPort};
use crate::demand::Demand;
use crate::dispatch::{self, Acceptor, Dispatch, Terms};
use crate::facts::Recorder;
use crate::forward::Exchange;
use crate::http::{Door, Public, Tls, TlsError};
use crate::instances::{Answers, Bundles, Counts, Instances, RegistrySource, Sharing, Wanted, Watch};
use crate::invoke::Corridor;
use crate::lanes::Lanes;
use crate::lease::{Lease, Seat};
use crate::metrics::Metrics;
use crate::outbound::Sender;
use crate::passing::{Inner, Relay};
use crate::peers::Known;
use crate::routes::{self, Refresh, Routes};
use crate::sources::Keeper;
use crate::{cron, http, passing, record};

/// What the gateway needs from the process around it.
pub struct Deps {
    /// The registry.
    pub registry: Registry,
    /// Its hints.
    pub changes: Changes,
    /// Opens secrets.
    pub key: Arc<MasterKey>,
}

/// Why the gateway could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The public address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Other gateways cannot be told where to find this one.
    #[error("{0} is every address of this machine; say which one other gateways reach it by")]
    NoPeersAddress(SocketAddr),
    /// The directory for bundles cannot be had.
    #[error("state directory: {0}")]
    State(std::io::Error),
    /// The certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The threads that carry connections cannot be had.
    #[error("threads: {0}")]
    Threads(std::io::Error),
}

/// A gateway that is bound and does nothing yet.
pub struct Gateway {
    id: GatewayId,
    config: Config,
    deps: Deps,
    listener: TcpListener,
    address: SocketAddr,
    bundles: Bundles,
    lanes: Arc<Lanes>,
    tls: Option<Tls>,
    seat: Seat,
    peers: Option<PeersDoor>,
}

/// The port for other gateways.
struct PeersDoor {
    listener: TcpListener,
    /// What others reach it by.
    address: SocketAddr,
}

impl PeersDoor {
    async fn bind(port: PeersPort) -> Result<Self, BuildError> {
        let listen = |source| BuildError::Listen { address: port.listen, source };
        let listener = TcpListener::bind(port.listen).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let mut address = port.advertised.unwrap_or(bound);
        if address.port() == 0 {
            address.set_port(bound.port());
        }
        if address.ip().is_unspecified() {
            return Err(BuildError::NoPeersAddress(bound));
        }
        Ok(Self { listener, address })
    }
}

impl Gateway {
    /// Takes the public address and the state directory. What fails here fails before anything runs.
    pub async fn bind(mut config: Config, deps: Deps) -> Result<Self, BuildError> {
        let listen = |source| BuildError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls = config.tls.take().map(Tls::load).transpose()?;
        if config.listen.port() == 0 {
            let scheme = if tls.is_some() { "https" } else { "http" };
            config.public_url = format!("{scheme}://{address}");
        }
        let source = Box::new(RegistrySource(deps.registry.clone()));
        let bundles = Bundles::new(config.bundles_dir(), source).map_err(BuildError::State)?;
        let bundles = bundles.shared(match config.share_code {
            true => Sharing::open(&config.state_dir),
            false => Err(NotShared("DAVIT_SHARE_CODE is false".into())),
        });
        tracing::info!("code is {}", bundles.way());
        let lanes = Arc::new(Lanes::start(config.threads).map_err(BuildError::Threads)?);
        let id = GatewayId::new();
        let peers = match config.peers {
            Some(port) => Some(PeersDoor::bind(port).await?),
            None => None,
        };
        Seat::clear(&deps.registry, &config.state_dir).await.map_err(BuildError::State)?;
        let seat = Seat::take(&config.state_dir, id).map_err(BuildError::State)?;
        Ok(Self { id, config, deps, listener, address, bundles, lanes, tls, seat, peers })
    }

    /// Where functions are reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts everything. `ready` opens once routes have been read, and the other gateways know of this one.
    pub fn spawn(self, ready: Latch) -> Running {
        let ready = Arc::new(ready);
        let (recorder, feeds) = Recorder::channel();
        let metrics = Arc::new(Metrics::default());
        let stops = Stops::default();
        let demand = Demand::default();
        let routes = Routes::empty();
        let instances = Instances::new(
            self.config.instances,
            self.bundles,
            recorder,
            metrics.clone(),
            demand.clone(),
            stops.upkeep.clone(),
        );
        instances.adopt(Known::joining(self.id, 0));
        let exchange = Arc::new(Exchange::new(metrics.clone(), stops.hard.clone()));
        let mut corridor = Corridor::new(instances.clone(), exchange.clone());
        let wake = Arc::new(Notify::new());
        let Deps { registry, changes, key } = self.deps;
        let gateways_key = key.gateways_key();
        let passing = self
            .peers
            .as_ref()
            .map(|_| Arc::new(Relay::new(self.id, instances.clone(), gateways_key, stops.hard.clone())));
        if let Some(passing) = &passing {
            corridor = corridor.with_passing(passing.clone());
        }
        let acceptor = Acceptor::spawn(registry.clone(), wake.clone());
        let refresh = Refresh::new(routes.clone(), registry.clone(), key.clone());
        let pins = refresh.pins();
        let peers_pins = pins.clone();
        let public = Arc::new(Public::new(http::Parts {
            routes: routes.clone(),
            pins: pins.clone(),
            corridor: corridor.clone(),
            registry: registry.clone(),
            acceptor,
            metrics: metrics.clone(),
            parked_bytes: self.config.http.parked_bytes,
            port: self.address.port(),
        }));
        let answers: Weak<dyn Answers> = Arc::downgrade(&(public.clone() as Arc<dyn Answers>));
        let _ = instances.shared().answers.set(answers);
        let dispatcher = Dispatch {
            registry: registry.clone(),
            gateway: self.id,
            routes: routes.clone(),
            pins,
            carrier: Arc::new(corridor.clone()),
            metrics: metrics.clone(),
            sender: Sender::new(self.config.outbound.clone(), registry.clone(), key.clone()),
            wake: wake.clone(),
            cut: stops.hard.clone(),
            terms: Terms::default(),
        };
        if let Some(tls) = self.tls.clone() {
            tokio::spawn(tls.renew(stops.upkeep.clone()));
        }
        let door = Door {
            public: public.clone(),
            limits: self.config.http,
            tls: self.tls,
            stop: stops.doors.clone(),
            hard: stops.hard.clone(),
        };
        let keeper = Keeper {
            registry: registry.clone(),
            gateway: self.id,
            routes: routes.clone(),
            allowed: Arc::new(self.config.outbound),
            metrics: metrics.clone(),
            wake: wake.clone(),
        };
        let mut doors = vec![
            tokio::spawn(keeper.run(changes.clone(), stops.doors.clone())),
            tokio::spawn(http::serve(self.listener, door, self.lanes.clone())),
            tokio::spawn(dispatch::run(dispatcher, changes.clone(), stops.doors.clone())),
            tokio::spawn(cron::run(
                registry.clone(),
                changes.clone(),
                wake,
                instances.shared().expected.clone(),
                stops.doors.clone(),
            )),
        ];
        let peers_address = self.peers.as_ref().map(|door| door.address);
        if let Some(door) = self.peers {
            let inner = Inner::new(
                self.id,
                gateways_key,
                routes.clone(),
                peers_pins,
                corridor.clone(),
                stops.doors.clone(),
            );
            let (lanes, stop, hard) = (self.lanes.clone(), stops.doors.clone(), stops.hard.clone());
            doors.push(tokio::spawn(passing::serve(door.listener, inner, lanes, stop, hard)));
        }
        let state_dir = self.config.state_dir.clone();
        let lanes = self.lanes.clone();
        let watch = Watch::new(registry.clone(), self.id, state_dir, key, instances.clone(), lanes);
        let refresh = routes::run(
            refresh,
            changes.clone(),
            instances.clone(),
            {
                let ready = ready.clone();
                move || drop(ready)
            },
            stops.upkeep.clone(),
        );
        let mut upkeep = vec![
            tokio::spawn(refresh),
            tokio::spawn(watch.run(changes.clone(), stops.upkeep.clone())),
            tokio::spawn(demand.run(registry.clone(), self.id, instances.clone(), stops.upkeep.clone())),
        ];
        upkeep.extend(passing.iter().map(|relay| tokio::spawn(relay.clone().tidy(stops.upkeep.clone()))));
        let lease = Lease {
            registry: registry.clone(),
            gateway: self.id,
            public_url: self.config.public_url.clone(),
            address: peers_address,
            instances: instances.clone(),
            leaving: stops.doors.clone(),
        };
        let last = Last {
            facts: tokio::spawn(record::run(registry, self.id, feeds, stops.facts.clone())),
            lease: tokio::spawn(lease.run(changes, ready, stops.lease.clone())),
        };
        tracing::info!(gateway = %self.id, address = %self.address, "gateway serves");
        Running {
            id: self.id,
            address: self.address,
            routes,
            instances,
            corridor,
            passing,
            exchange,
            _public: public,
            metrics,
            stops,
            doors,
            upkeep,
            last,
            _lanes: self.lanes,
            _seat: self.seat,
        }
    }
}

/// What ends when.
#[derive(Default)]
struct Stops {
    /// No new calls.
    doors: CancellationToken,
    /// No more patience with calls under way.
    hard: CancellationToken,
    /// Instances are no longer looked after.
    upkeep: CancellationToken,
    /// Facts are written a last time.
    facts: CancellationToken,
    /// The lease is given back.
    lease: CancellationToken,
}

/// The two tasks that outlive the rest: what happened is written before the lease goes.
struct Last {
    facts: JoinHandle<()>,
    lease: JoinHandle<()>,
}

/// A gateway at work.
pub struct Running {
    id: GatewayId,
    address: SocketAddr,
    routes: Routes,
    instances: Instances,
    corridor: Corridor,
    passing: Option<Arc<Relay>>,
    exchange: Arc<Exchange>,
    /// Kept to the end: calls under way may need answers after the doors are shut.
    _public: Arc<Public>,
    metrics: Arc<Metrics>,
    stops: Stops,
    doors: Vec<JoinHandle<()>>,
    upkeep: Vec<JoinHandle<()>>,
    last: Last,
    /// Kept to the end: upgraded connections run there, too.
    _lanes: Arc<Lanes>,
    /// Left when the lease has been given back.
    _seat: Seat,
}

/// What the admin listener shows.
#[derive(Debug, Serialize)]
pub struct Status {
    /// This gateway, new at each start.
    pub gateway: GatewayId,
    /// How code reaches instances: `shared`, or `unpacked in each instance` and why.
    pub code: String,
    /// Functions with a live version.
    pub functions: usize,
    /// Pools, by their key.
    pub pools: Vec<PoolStatus>,
    /// Fleets, by their version.
    pub fleets: Vec<FleetStatus>,
}

/// One pool.
#[derive(Debug, Serialize)]
pub struct PoolStatus {
    /// The image.
    pub image: String,
    /// Memory of an instance in MiB.
    pub memory_mb: u32,
    /// Instances ready to be claimed.
    pub ready: u32,
    /// Starts that wait for one.
    pub waiting: u32,
    /// Claims in the last minute.
    pub claims: u32,
}

/// One fleet.
#[derive(Debug, Serialize)]
pub struct FleetStatus {
    /// `namespace/function`.
    pub function: String,
    /// The version's number.
    pub version: u32,
    /// Its numbers.
    #[serde(flatten)]
    pub counts: Counts,
}

/// What the admin listener asks; cheap to clone, outlives the gateway without harm.
#[derive(Clone)]
pub struct Admin {
    id: GatewayId,
    routes: Routes,
    instances: Instances,
    metrics: Arc<Metrics>,
}

impl Admin {
    /// Counters as Prometheus text.
    pub fn metrics(&self) -> String {
        self.metrics.render()
    }
    /// What is held and what waits.
    pub fn status(&self) -> Status {
        let fleets = self.instances.counts().into_iter().map(|(version, counts)| FleetStatus {
            function: format!("{}/{}", version.namespace, version.function),
            version: version.number,
            counts,
        });
        Status {
            gateway: self.id,
            code: self.instances.shared().bundles.way(),
            functions: self.routes.load().versions().count(),
            pools: self.instances.wanted().into_iter().map(pool_status).collect(),
            fleets: fleets.collect(),
        }
    }
}

fn pool_status(wanted: Wanted) -> PoolStatus {
    PoolStatus {
        image: wanted.key.image,
        memory_mb: wanted.key.memory_mb,
        ready: wanted.ready,
        waiting: wanted.waiting,
        claims: wanted.recent,
    }
}

impl Running {
    /// This gateway's id.
    pub fn id(&self) -> GatewayId {
        self.id
    }
    /// Where functions are reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The corridor, for doors outside this crate.
    pub fn corridor(&self) -> &Corridor {
        &self.corridor
    }
    /// What the admin listener shows.
    pub fn admin(&self) -> Admin {
        Admin {
            id: self.id,
            routes: self.routes.clone(),
            instances: self.instances.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Ends in order: no new calls, let those under way end until `limit`, cut the rest, let the instances go,
    /// write what happened, give the lease back.
    pub async fn drain(self, limit: Duration) {
        self.stops.doors.cancel();
        let calls = async {
            for door in self.doors {
                let _ = door.await;
            }
            self.exchange.drained().await;
            if let Some(passing) = self.passing {
                passing.drained().await;
            }
        };
        let mut calls = std::pin::pin!(calls);
        if tokio::time::timeout(limit, calls.as_mut()).await.is_err() {
            tracing::warn!("calls under way were cut at the end of the drain");
            self.stops.hard.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(1), calls).await;
        }
        self.stops.upkeep.cancel();
        for task in self.upkeep {
            let _ = task.await;
        }
        self.instances.close();
        self.stops.facts.cancel();
        let _ = self.last.facts.await;
        self.stops.lease.cancel();
        let _ = self.last.lease.await;
    }
}
