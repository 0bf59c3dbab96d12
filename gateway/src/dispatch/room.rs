//! Calls that found their function full do not wait for their next look when one of its places becomes free: as many
//! are called in as places were left.
//!
//! A gateway does this for functions of which it had to put a call back itself; the places are those its own jobs leave.
//! Whatever escapes this, a place that a caller over HTTP leaves for example, is found by the next look of the call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use davit_api::FunctionId;
use davit_registry::Registry;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Places that become free within this time share a statement.
const GATHER: Duration = Duration::from_millis(100);

/// Functions that were full; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Room {
    full: Arc<Mutex<HashMap<FunctionId, Full>>>,
    left: Arc<Notify>,
}

/// A function of which calls were put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Full {
    /// How often, so that a look can tell whether it saw the last of them.
    put_back: u64,
    /// Places that became free since the last look.
    places: u32,
}

impl Room {
    /// A call of the function was put back because there was no place.
    pub(super) fn put_back(&self, function: FunctionId) {
        self.full.lock().entry(function).or_default().put_back += 1;
    }

    /// A call of the function left its place.
    pub(super) fn left(&self, function: FunctionId) {
        if let Some(full) = self.full.lock().get_mut(&function) {
            full.places = full.places.saturating_add(1);
            self.left.notify_one();
        }
    }

    /// Calls in, for ever; `wake` rouses the dispatcher.
    pub(super) async fn look_after(self, registry: Registry, wake: Arc<Notify>) {
        loop {
            self.left.notified().await;
            tokio::time::sleep(GATHER).await;
            let asked = self.take();
            let places: Vec<_> = asked.iter().map(|(function, full)| (*function, full.places)).collect();
            match registry.call_in(&places).await {
                Ok(called) => {
                    if !called.is_empty() {
                        wake.notify_one();
                    }
                    self.settle(&asked, &called);
                }
                // Each call has a look of its own coming.
                Err(error) => tracing::debug!(%error, "no calls were called in"),
            }
        }
    }

    /// The functions that have places, with these, which do not count any more.
    fn take(&self) -> Vec<(FunctionId, Full)> {
        let mut full = self.full.lock();
        let with_places = full.iter_mut().filter(|(_, f)| f.places > 0);
        with_places.map(|(id, f)| (*id, Full { places: std::mem::take(&mut f.places), ..*f })).collect()
    }

    /// Forgets the functions that had fewer calls than places, unless one was put back meanwhile.
    fn settle(&self, asked: &[(FunctionId, Full)], called: &HashMap<FunctionId, u32>) {
        let mut full = self.full.lock();
        for (function, before) in asked {
            let all_came = called.get(function).copied().unwrap_or(0) < before.places;
            if all_came && full.get(function).is_some_and(|now| now.put_back == before.put_back) {
                full.remove(function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_many_are_called_in_as_places_were_left_and_only_where_somebody_waits() {
        let (room, full, idle) = (Room::default(), FunctionId::new(), FunctionId::new());
        room.put_back(full);
        for function in [full, full, idle] {
            room.left(function);
        }
        assert_eq!(room.take(), [(full, Full { put_back: 1, places: 2 })]);
        assert_eq!(room.take(), []);
    }

    proptest! {
        /// Against a count of those that wait: while somebody does, the function is remembered, whatever the order in
        /// which calls are put back, leave, and are called in.
        #[test]
        fn who_waits_is_never_forgotten(steps in proptest::collection::vec(0..4_u8, 0..60)) {
            let (room, function) = (Room::default(), FunctionId::new());
            let (mut waiting, mut asked, mut called) = (0_u32, Vec::new(), HashMap::new());
            for step in steps {
                match step {
                    0 => {
                        waiting += 1;
                        room.put_back(function);
                    }
                    1 => room.left(function),
                    // A look: the statement …
                    2 => {
                        asked = room.take();
                        let places: u32 = asked.iter().map(|(_, full)| full.places).sum();
                        let come = waiting.min(places);
                        waiting -= come;
                        called = HashMap::from([(function, come)]);
                    }
                    // … and, maybe after others were put back, what is made of its answer.
                    _ => room.settle(&std::mem::take(&mut asked), &called),
                }
                prop_assert!(waiting == 0 || room.full.lock().contains_key(&function));
            }
        }
    }
}
