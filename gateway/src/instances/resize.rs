//! Instances that get another size instead of others being started. When a start finds its pool empty, an instance of another
//! size is taken out of its own pool, where it can be done (`davit_scaling::resize`), and kept aside: nobody can claim it until
//! its row says that it is over, and of which kind it is then.
//!
//! The controller says that it is over when the cluster says so, which takes it a second or two. The agent sees at once what
//! its container may use, so the gateway asks that meanwhile, and whoever knows first says it.
//!
//! What is aside and not on record is told again and again, for a write that failed may have been carried out. What is aside
//! for too long goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::{InstanceId, PoolKey};
use davit_scaling::resize::{self, Sibling, Size};

use crate::instances::pool::{Pool, Pools};
use crate::instances::{Instance, Instances};

/// A controller that acts has decided by then, and its engine has carried it out.
const OVERDUE: Duration = Duration::from_secs(30);

/// Time for an agent to say what its container may use.
const ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Instances that are to get another size.
#[derive(Default)]
pub(super) struct Aside(HashMap<InstanceId, Resizing>);

struct Resizing {
    instance: Arc<Instance>,
    wanted: PoolKey,
    since: Instant,
    /// The registry has the wish.
    on_record: bool,
}

impl Aside {
    pub(super) fn remove(&mut self, id: InstanceId) -> Option<Arc<Instance>> {
        self.0.remove(&id).map(|one| one.instance)
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Instance>> {
        self.0.drain().map(|(_, one)| one.instance)
    }
}

impl Instances {
    /// Instances that shall get another size, and what they shall become: those that the registry has not been told of.
    /// `more`: whether others are chosen, for starts that have begun to wait.
    pub fn wishes(&self, more: bool) -> Vec<(InstanceId, PoolKey)> {
        if more {
            self.shared.pools.choose(Instant::now());
        }
        self.shared.pools.wishes()
    }

    /// The registry has been told of these wishes.
    pub fn wished(&self, wishes: &[(InstanceId, PoolKey)]) {
        self.shared.pools.wished(wishes);
    }

    /// Waits until the agent of one of them sees that its container has the size that it shall have. `false` when its wish is
    /// gone before, or its agent does not say.
    pub async fn has_size(&self, id: InstanceId, wanted: &PoolKey) -> bool {
        let pools = &self.shared.pools;
        while let Some(instance) = pools.aside(id) {
            let Ok(Some(limits)) = instance.link.limits(Instant::now() + ANSWER).await else { return false };
            let memory_mb = u64::from(wanted.memory_mb);
            if (limits.memory_bytes, limits.cpu_millis) == (memory_mb << 20, wanted.cpu_millis) {
                return true;
            }
            // Not held while it waits, so that it can end.
            drop(instance);
            tokio::time::sleep(LOOK).await;
        }
        false
    }

    /// Those of which it has been told.
    pub fn on_record(&self) -> Vec<InstanceId> {
        self.shared.pools.on_record()
    }

    /// Of one of them the wish is gone, and the instance is of this kind: the one that was wished for, or the one that it was.
    pub fn settle(&self, instance: InstanceId, key: &PoolKey) {
        self.shared.pools.settle(instance, key);
    }
}

impl Pools {
    /// Takes instances out for the starts that have begun to wait since the last time.
    pub(super) fn choose(&self, now: Instant) {
        let mut pools = self.pools.lock();
        let waiting: Vec<(PoolKey, usize)> = pools
            .iter_mut()
            .map(|(key, pool)| (key.clone(), pool.new_tickets()))
            .filter(|(_, tickets)| *tickets > 0)
            .collect();
        for (wanted, tickets) in waiting {
            for _ in 0..tickets {
                let Some(instance) = take_sibling(&mut pools, &wanted) else { break };
                instance.set_tried();
                let id = instance.id;
                let one = Resizing { instance, wanted: wanted.clone(), since: now, on_record: false };
                self.aside.lock().0.insert(id, one);
            }
        }
    }

    /// What the registry has not been told of.
    pub(super) fn wishes(&self) -> Vec<(InstanceId, PoolKey)> {
        let aside = self.aside.lock();
        aside.0.iter().filter(|(_, one)| !one.on_record).map(|(id, one)| (*id, one.wanted.clone())).collect()
    }

    /// The registry has been told.
    pub(super) fn wished(&self, wishes: &[(InstanceId, PoolKey)]) {
        let mut aside = self.aside.lock();
        for (id, _) in wishes {
            if let Some(one) = aside.0.get_mut(id) {
                one.on_record = true;
            }
        }
    }

    /// One of them.
    fn aside(&self, id: InstanceId) -> Option<Arc<Instance>> {
        self.aside.lock().0.get(&id).map(|one| one.instance.clone())
    }

    /// What it has been told of.
    pub(super) fn on_record(&self) -> Vec<InstanceId> {
        self.aside.lock().0.iter().filter(|(_, one)| one.on_record).map(|(id, _)| *id).collect()
    }

    /// It is over, and the instance is of that kind: the one that was wished for, or the one that it was.
    pub(super) fn settle(&self, id: InstanceId, key: &PoolKey) {
        // Under the lock of the pools, so that it is never in neither place for whoever takes it out.
        let mut pools = self.pools.lock();
        let Some(one) = self.aside.lock().0.remove(&id) else { return };
        if key != one.instance.key() {
            one.instance.become_of(key.clone());
        }
        self.put(&mut pools, one.instance);
    }

    /// Takes out what has been aside for too long.
    pub(super) fn overdue(&self, now: Instant) -> Vec<Arc<Instance>> {
        let mut aside = self.aside.lock();
        let late = aside.0.extract_if(|_, one| now.saturating_duration_since(one.since) > OVERDUE);
        late.map(|(_, one)| one.instance).collect()
    }
}

/// The instance that becomes what is wanted, out of its pool.
fn take_sibling(pools: &mut HashMap<PoolKey, Pool>, wanted: &PoolKey) -> Option<Arc<Instance>> {
    let (keys, siblings): (Vec<PoolKey>, Vec<Sibling>) = pools
        .iter_mut()
        .filter(|(key, _)| key.is_other_size_of(wanted))
        .map(|(key, pool)| {
            let resizable = pool.ready.iter().filter(|instance| instance.is_resizable()).count() as u32;
            let (size, ready) = (size(key), pool.ready.len() as u32);
            (key.clone(), Sibling { size, ready, resizable, rate: pool.rate() })
        })
        .unzip();
    let chosen = resize::choose(size(wanted), wanted.largest_volume_mb(), &siblings)?;
    let ready = &mut pools.get_mut(&keys[chosen])?.ready;
    let at = ready.iter().position(|instance| instance.is_resizable())?;
    ready.remove(at)
}

fn size(key: &PoolKey) -> Size {
    Size { memory_mb: key.memory_mb, cpu_millis: key.cpu_millis }
}
