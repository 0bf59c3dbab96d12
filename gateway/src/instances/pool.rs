//! Generic instances that wait for a version, one queue a pool key.
//!
//! Claiming one is a pop under a short lock: no statement, no call to the controller (invariant 4). Who finds the
//! queue empty leaves a ticket; an instance that arrives goes to the oldest ticket. Instances that are to get another size
//! are in no queue meanwhile (`resize.rs`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{InstanceId, PoolKey};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::demand::Demand;
use crate::instances::Instance;
use crate::instances::resize::Aside;

/// How far back claims count as recent.
const RECENT: Duration = Duration::from_secs(60);
/// Claims remembered per key; more than this in a minute is "many" in any case.
const REMEMBERED: usize = 4_096;

/// All pools of this gateway.
pub struct Pools {
    pub(super) pools: Mutex<HashMap<PoolKey, Pool>>,
    /// Instances that are to get another size. Locked after the pools, where both are.
    pub(super) aside: Mutex<Aside>,
    demand: Demand,
}

#[derive(Default)]
pub(super) struct Pool {
    pub(super) ready: VecDeque<Arc<Instance>>,
    tickets: VecDeque<(u64, oneshot::Sender<Arc<Instance>>)>,
    next_ticket: u64,
    /// For the tickets up to this one it is decided whether an instance of another size is taken.
    considered: u64,
    claims: VecDeque<Instant>,
}

/// What the controller should know about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: PoolKey,
    /// Starts that wait for an instance.
    pub waiting: u32,
    /// Instances claimed in the last minute.
    pub recent: u32,
    /// Instances ready to be claimed.
    pub ready: u32,
}

/// A claim: here already, or as soon as one arrives.
pub enum Claim<'a> {
    /// An instance.
    Now(Arc<Instance>),
    /// A place in the queue.
    Wait(Ticket<'a>),
}

/// A place in a pool's queue; leaving it is dropping it.
pub struct Ticket<'a> {
    pools: &'a Pools,
    key: PoolKey,
    number: u64,
    receive: oneshot::Receiver<Arc<Instance>>,
}

impl Pools {
    /// Empty pools that report to `demand`.
    pub fn new(demand: Demand) -> Self {
        Self { pools: Mutex::default(), aside: Mutex::default(), demand }
    }

    /// Takes an instance, or a place in the queue for one.
    pub fn claim(&self, key: &PoolKey) -> Claim<'_> {
        let (claim, waits) = {
            let mut pools = self.pools.lock();
            let pool = pools.entry(key.clone()).or_default();
            let alive = loop {
                match pool.ready.pop_front() {
                    Some(instance) if instance.link.is_closed() => {}
                    other => break other,
                }
            };
            match alive {
                Some(instance) => {
                    pool.note_claim();
                    (Claim::Now(instance), false)
                }
                None => {
                    let (send, receive) = oneshot::channel();
                    pool.next_ticket += 1;
                    let number = pool.next_ticket;
                    pool.tickets.push_back((number, send));
                    (Claim::Wait(Ticket { pools: self, key: key.clone(), number, receive }), true)
                }
            }
        };
        // The controller learns at once that somebody waits; that claims happen it may learn within a second.
        if waits {
            self.demand.wake();
        }
        claim
    }

    /// An instance became ready, or was not used after all.
    pub fn add(&self, instance: Arc<Instance>) {
        self.put(&mut self.pools.lock(), instance);
    }

    pub(super) fn put(&self, pools: &mut HashMap<PoolKey, Pool>, instance: Arc<Instance>) {
        let pool = pools.entry(instance.key().clone()).or_default();
        let mut instance = instance;
        while let Some((_, send)) = pool.tickets.pop_front() {
            match send.send(instance) {
                Ok(()) => {
                    pool.note_claim();
                    // Or the controller would start another one in the place of the one that was just taken.
                    return self.demand.wake();
                }
                Err(back) => instance = back,
            }
        }
        pool.ready.push_back(instance);
    }

    /// Instances of a kind that could be claimed at once.
    pub fn ready(&self, key: &PoolKey) -> usize {
        self.pools.lock().get(key).map_or(0, |pool| pool.ready.len())
    }

    /// Takes one particular instance out; `None` when it is not waiting here.
    pub fn remove(&self, id: InstanceId) -> Option<Arc<Instance>> {
        let mut pools = self.pools.lock();
        if let Some(instance) = self.aside.lock().remove(id) {
            return Some(instance);
        }
        pools.values_mut().find_map(|pool| {
            let at = pool.ready.iter().position(|i| i.id == id)?;
            pool.ready.remove(at)
        })
    }

    /// Takes everything out, for the end of the process.
    pub fn drain(&self) -> Vec<Arc<Instance>> {
        let mut pools = self.pools.lock();
        let mut all: Vec<_> = pools.values_mut().flat_map(|p| p.ready.drain(..)).collect();
        all.extend(self.aside.lock().drain());
        all
    }

    /// What the controller should know now.
    pub fn wanted(&self) -> Vec<Wanted> {
        let mut pools = self.pools.lock();
        pools.values_mut().for_each(Pool::forget_old_claims);
        pools
            .iter()
            .map(|(key, pool)| Wanted {
                key: key.clone(),
                waiting: pool.tickets.len() as u32,
                recent: pool.claims.len() as u32,
                ready: pool.ready.len() as u32,
            })
            .collect()
    }
}

impl Pool {
    /// Claims a second, of late.
    pub(super) fn rate(&mut self) -> f64 {
        self.forget_old_claims();
        self.claims.len() as f64 / RECENT.as_secs_f64()
    }
    /// How many have begun to wait since this was asked last, and still do.
    pub(super) fn new_tickets(&mut self) -> usize {
        let before = std::mem::replace(&mut self.considered, self.next_ticket);
        self.tickets.iter().filter(|(number, _)| *number > before).count()
    }
    fn note_claim(&mut self) {
        if self.claims.len() == REMEMBERED {
            self.claims.pop_front();
        }
        self.claims.push_back(Instant::now());
    }
    fn forget_old_claims(&mut self) {
        while self.claims.front().is_some_and(|at| at.elapsed() > RECENT) {
            self.claims.pop_front();
        }
    }
}

impl Ticket<'_> {
    /// Waits for the instance. Safe to drop and call again: an instance is only ever taken by a completed wait.
    pub async fn wait(&mut self) -> Option<Arc<Instance>> {
        (&mut self.receive).await.ok()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        {
            let mut pools = self.pools.pools.lock();
            if let Some(pool) = pools.get_mut(&self.key) {
                let before = pool.tickets.len();
                pool.tickets.retain(|(number, _)| *number != self.number);
                if pool.tickets.len() < before {
                    self.pools.demand.wake();
                }
            }
        }
        // It may have arrived in the moment we left; then it belongs to the next in line.
        self.receive.close();
        if let Ok(instance) = self.receive.try_recv() {
            self.pools.add(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use davit_api::NetworkClass;

    use super::*;

    #[test]
    fn each_start_of_a_burst_is_told_of_and_so_is_each_that_needs_none_any_more() {
        let demand = Demand::default();
        let pools = Pools::new(demand.clone());
        let network = NetworkClass::Egress;
        let key = PoolKey { image: "i".into(), memory_mb: 1, cpu_millis: 1, ephemeral_mb: 1, network };
        assert!(!demand.woken());
        let waiting = [pools.claim(&key), pools.claim(&key), pools.claim(&key)];
        assert!(demand.woken() && !demand.woken(), "many at once are told of once");
        let last = pools.claim(&key);
        assert!(demand.woken());
        drop(last);
        assert!(demand.woken());
        assert_eq!(pools.wanted()[0].waiting, 3);
        drop(waiting);
        assert_eq!(pools.wanted()[0].waiting, 0);
    }
}
