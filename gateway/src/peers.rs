//! What this gateway knows of the others: its shares of functions' limits, and where a call can be passed on to.
//! Written by its lease's beat, read by every fleet when that changes; on a call's way nothing here is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use davit_api::{GatewayId, VersionId};
use davit_registry::GatewayPeer;
use davit_scaling::shares::{Member, View};
use tokio::sync::Notify;

use crate::version::LiveVersion;

/// What is known now.
pub struct Peers {
    known: ArcSwap<Known>,
    /// Whether others take calls, which every call asks.
    others: AtomicBool,
    /// For whoever keeps something of them.
    news: Notify,
}

/// What was known at one moment.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its shares.
    pub view: View,
    /// The others that take calls.
    pub others: Vec<Peer>,
}

/// Another gateway that takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub id: GatewayId,
    /// Where its port for gateways is.
    pub address: SocketAddr,
}

/// How many instances of one version a gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At a time at most.
    pub most: usize,
    /// Even when nobody calls.
    pub least: usize,
}

impl Default for Peers {
    /// Without a word about others a gateway is alone.
    fn default() -> Self {
        let known = Known { view: View::alone(0), others: Vec::new() };
        Self { known: ArcSwap::from_pointee(known), others: AtomicBool::new(false), news: Notify::new() }
    }
}

impl Peers {
    /// What is known now.
    pub fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }

    /// Whether there are others that calls can be passed on to.
    pub(crate) fn has_others(&self) -> bool {
        self.others.load(Ordering::Relaxed)
    }

    pub(crate) fn store(&self, known: Known) {
        self.others.store(!known.others.is_empty(), Ordering::Relaxed);
        self.known.store(Arc::new(known));
        self.news.notify_one();
    }

    /// Returns when something may have changed; for one to wait on.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// What a version may have here.
    pub(crate) fn bounds(&self, version: &LiveVersion) -> Bounds {
        let known = self.known.load();
        let (function, spec) = (version.function_id.0.as_u128(), &version.spec);
        let most = known.view.most(function, version.version_id.0.as_u128(), spec.max_instances) as usize;
        let least = known.view.share(function, spec.min_instances) as usize;
        Bounds { most, least: least.min(most) }
    }
}

impl Known {
    /// A gateway that has joined and has read nothing yet.
    pub fn joining(me: GatewayId, join: i64) -> Self {
        Self { view: View::joining(me.0.as_u128(), join), others: Vec::new() }
    }

    /// What it knows after it has read all rows.
    pub fn read(&self, me: GatewayId, peers: &[GatewayPeer]) -> Self {
        let rows: Vec<Member> = peers.iter().map(member).collect();
        let takes_calls = |peer: &&GatewayPeer| peer.id != me && peer.alive && !peer.word.leaving;
        let address = |peer: &GatewayPeer| {
            let address = peer.word.address.as_ref()?.parse().ok()?;
            Some(Peer { id: peer.id, address })
        };
        let others = peers.iter().filter(takes_calls).filter_map(address).collect();
        Self { view: self.view.read(&rows), others }
    }
}

fn member(peer: &GatewayPeer) -> Member {
    let over = |(version, held): (&VersionId, &u32)| (version.0.as_u128(), *held);
    Member {
        id: peer.id.0.as_u128(),
        join: peer.joined,
        adopted: peer.word.adopted.clone(),
        over: peer.word.over.iter().map(over).collect(),
    }
}
