//! What is spent and what is left: memory, instances, and the generic ones that wait for a call.

use std::collections::{BTreeMap, HashSet};

use davit_api::{InstanceId, InstanceState, PoolKey};

use super::{Instance, Slot, World, current, resize, slot};

/// Of the rows that stay.
pub(super) struct Ledger {
    memory_mb: u64,
    instances: usize,
    /// Generic instances that wait, or will in a moment; what a goal was met with is taken off.
    held: BTreeMap<Slot, u32>,
}

impl Ledger {
    /// Counts the rows that are not doomed.
    pub(super) fn new(world: &World, doomed: &HashSet<InstanceId>) -> Self {
        let mut ledger = Self { memory_mb: 0, instances: 0, held: BTreeMap::new() };
        for row in world.instances.iter().filter(|row| !doomed.contains(&row.id)) {
            ledger.memory_mb += row.memory_mb();
            ledger.instances += 1;
            let generic = matches!(row.state, InstanceState::Pooled | InstanceState::Starting);
            if generic && current(world, row) && !resize::is_slow(row) {
                *ledger.held.entry(slot(row)).or_insert(0) += 1;
            }
        }
        ledger
    }

    /// Meets goals with what is held, and says what is lacking; only what is more than nothing.
    pub(super) fn lacking<'a>(
        &mut self,
        goals: impl Iterator<Item = (&'a Slot, &'a u32)>,
    ) -> BTreeMap<Slot, u32> {
        let mut lacking = BTreeMap::new();
        for (slot, goal) in goals {
            let held = self.held.entry(slot.clone()).or_insert(0);
            let met = (*held).min(*goal);
            *held -= met;
            if met < *goal {
                lacking.insert(slot.clone(), goal - met);
            }
        }
        lacking
    }

    /// How many of a kind are held and meet no goal yet.
    pub(super) fn held(&self, slot: &Slot) -> u32 {
        self.held.get(slot).copied().unwrap_or(0)
    }

    /// Whether one more fits.
    pub(super) fn fits(&self, world: &World, key: &PoolKey) -> bool {
        self.memory_mb + u64::from(key.memory_mb) <= world.bounds.memory_mb
            && self.instances < world.bounds.instances
    }

    /// What is lacking for one more, in MiB; at least one when it is the number of instances that is at its bound.
    pub(super) fn lacking_mb(&self, world: &World, key: &PoolKey) -> u64 {
        let mb = (self.memory_mb + u64::from(key.memory_mb)).saturating_sub(world.bounds.memory_mb);
        mb.max(u64::from(self.instances >= world.bounds.instances))
    }

    /// One more is there.
    pub(super) fn spend(&mut self, key: &PoolKey) {
        self.memory_mb += u64::from(key.memory_mb);
        self.instances += 1;
    }

    /// The instances to do without so that one more fits, spare ones first, then those that have waited longest;
    /// `None` when it would not fit without all of them either. They are taken off at once.
    pub(super) fn make_room<'a>(
        &mut self,
        world: &World,
        key: &PoolKey,
        mut candidates: Vec<&'a Instance>,
    ) -> Option<Vec<&'a Instance>> {
        let before = (self.memory_mb, self.instances, self.held.clone());
        let mut evicted = Vec::new();
        while !self.fits(world, key) {
            let spare = |row: &Instance| {
                let standing = world.standing.get(&slot(row)).copied().unwrap_or(0);
                i64::from(self.held(&slot(row))) - i64::from(standing)
            };
            let best = candidates.iter().enumerate().max_by_key(|(_, row)| (spare(row), row.in_state));
            let Some((at, _)) = best else {
                (self.memory_mb, self.instances, self.held) = before;
                return None;
            };
            let row = candidates.swap_remove(at);
            self.memory_mb -= u64::from(row.key.memory_mb);
            self.instances -= 1;
            if let Some(held) = self.held.get_mut(&slot(row)) {
                *held = held.saturating_sub(1);
            }
            evicted.push(row);
        }
        Some(evicted)
    }
}
