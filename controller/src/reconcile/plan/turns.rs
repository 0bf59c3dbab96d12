//! Whose turn it is among those that calls wait for. Carried from look to look, because one look has room for
//! few starts: without a memory it would serve the same key each time.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use davit_api::GatewayId;

use super::Slot;

/// A line for gateways, and in each gateway one for its keys. Who is served goes to the end, and so does who
/// joins; so nobody waits for more than one start of each of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    /// Counts joins and serves.
    clock: u64,
    gateways: BTreeMap<GatewayId, u64>,
    slots: BTreeMap<Slot, u64>,
}

impl Turns {
    /// Takes in who waits now. Of those who come together, the ones with most waiting calls go first; who waits
    /// no longer loses its place.
    pub(super) fn attend(&mut self, waiting: &BTreeMap<Slot, u32>) {
        self.slots.retain(|slot, _| waiting.contains_key(slot));
        self.gateways.retain(|gateway, _| waiting.keys().any(|slot| slot.0 == *gateway));
        let mut new: Vec<_> = waiting.iter().filter(|(slot, _)| !self.slots.contains_key(*slot)).collect();
        new.sort_by_key(|(_, calls)| Reverse(**calls));
        for (slot, _) in new {
            self.clock += 1;
            self.slots.insert(slot.clone(), self.clock);
            self.gateways.entry(slot.0).or_insert(self.clock);
        }
    }

    /// Who is next among some of those who wait.
    pub(super) fn next<'a>(&self, among: impl Iterator<Item = &'a Slot>) -> Option<&'a Slot> {
        among.min_by_key(|slot| (self.gateways.get(&slot.0), self.slots.get(*slot)))
    }

    /// It was served.
    pub(super) fn served(&mut self, slot: &Slot) {
        self.clock += 1;
        self.gateways.insert(slot.0, self.clock);
        self.slots.insert(slot.clone(), self.clock);
    }
}

#[cfg(test)]
mod tests {
    use davit_api::{NetworkClass, PoolKey};

    use super::*;

    fn slot(gateway: GatewayId, memory_mb: u32) -> Slot {
        let network = NetworkClass::Egress;
        (gateway, PoolKey { image: "i".into(), memory_mb, cpu_millis: 1, ephemeral_mb: 1, network })
    }

    /// Serves `times` and says whom.
    fn serve(turns: &mut Turns, waiting: &BTreeMap<Slot, u32>, times: usize) -> Vec<Slot> {
        let serve_one = |_| {
            turns.attend(waiting);
            let slot = turns.next(waiting.keys()).unwrap().clone();
            turns.served(&slot);
            slot
        };
        (0..times).map(serve_one).collect()
    }

    #[test]
    fn the_longest_line_begins_and_then_each_has_its_turn() {
        let gateway = GatewayId::new();
        let waiting = BTreeMap::from([(slot(gateway, 1), 1), (slot(gateway, 2), 9), (slot(gateway, 3), 5)]);
        let served = serve(&mut Turns::default(), &waiting, 6);
        let sizes: Vec<u32> = served.iter().map(|slot| slot.1.memory_mb).collect();
        assert_eq!(sizes, [2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_gateway_with_many_keys_takes_no_more_turns_than_one_with_few() {
        let (many, few) = (GatewayId::new(), GatewayId::new());
        let mut waiting: BTreeMap<Slot, u32> = (1..=5).map(|n| (slot(many, n), 5)).collect();
        waiting.insert(slot(few, 1), 1);
        let served = serve(&mut Turns::default(), &waiting, 10);
        assert_eq!(served.iter().filter(|slot| slot.0 == few).count(), 5);
    }

    #[test]
    fn who_comes_and_goes_does_not_get_ahead_of_who_stays() {
        let gateway = GatewayId::new();
        let (stays, flaps) = (slot(gateway, 1), slot(gateway, 2));
        let mut turns = Turns::default();
        let mut served = Vec::new();
        for round in 0..6 {
            let mut waiting = BTreeMap::from([(stays.clone(), 1)]);
            if round % 2 == 0 {
                waiting.insert(flaps.clone(), 9);
            }
            served.extend(serve(&mut turns, &waiting, 1));
        }
        assert!(served[1..].iter().filter(|slot| **slot == stays).count() >= 4, "{served:?}");
    }
}
