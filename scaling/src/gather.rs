//! Which of several gateways carries a call out: those of one function are gathered on few, so that as many gateways do not
//! mean as many cold starts. Rendezvous order with a bound on the load: the first gateway of the function's order that has
//! room takes the call, and the spread over more of them grows only while those before are full.

use crate::shares::{Id, order};

/// What the gateway that a call came to has of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Here {
    /// An instance with a free slot.
    pub free: bool,
    /// The call would find an instance soon: by waiting for one, or because the pool has one that may be started.
    pub room: bool,
    /// Instances that are there or on their way.
    pub any: bool,
    /// The right to have one, however long its start takes.
    pub may: bool,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is carried out where it came in.
    Here,
    /// It is passed on to that gateway.
    To {
        /// Which.
        gateway: Id,
        /// It stays there even if there is no room: there is none anywhere.
        waits: bool,
    },
}

/// Decides. `others`: the gateways that take calls and may hold an instance of the function. `full`: whether one of them
/// has lately said that it has no room, or could not be reached.
pub fn way(function: Id, me: Id, here: Here, others: &[Id], full: impl Fn(Id) -> bool) -> Way {
    // A warm call stays where it is, whoever is first.
    if here.free || others.is_empty() {
        return Way::Here;
    }
    let order = order(function, others.iter().copied().chain([me]));
    for gateway in &order {
        if *gateway == me {
            if here.room {
                return Way::Here;
            }
        } else if !full(*gateway) {
            return Way::To { gateway: *gateway, waits: false };
        }
    }
    // Nobody has room: it waits where it came in if an instance is there, else with the first that may have one, so that a
    // container is started for it once and not at every gateway.
    if here.any {
        return Way::Here;
    }
    match order.into_iter().find(|gateway| *gateway != me || here.may) {
        Some(gateway) if gateway != me => Way::To { gateway, waits: true },
        _ => Way::Here,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const COLD: Here = Here { free: false, room: true, any: true, may: true };

    /// Where a call that came to `me` ends, when every gateway says at once whether it is full.
    fn end(function: Id, me: Id, all: &[Id], full: &HashSet<Id>) -> Id {
        let others: Vec<Id> = all.iter().copied().filter(|id| *id != me).collect();
        let here = Here { room: !full.contains(&me), ..COLD };
        match way(function, me, here, &others, |id| full.contains(&id)) {
            Way::Here => me,
            Way::To { gateway, .. } => gateway,
        }
    }

    proptest! {
        /// Wherever a cold call comes in, it ends on the first gateway of the order that is not full.
        #[test]
        fn all_calls_of_a_function_end_on_its_first_gateway_with_room(
            function in any::<Id>(), all in prop::collection::btree_set(any::<Id>(), 1..9), full in prop::collection::vec(any::<bool>(), 9),
        ) {
            let all: Vec<Id> = all.into_iter().collect();
            let full: HashSet<Id> = all.iter().zip(full).filter(|(_, full)| *full).map(|(id, _)| *id).collect();
            let first = order(function, all.iter().copied()).into_iter().find(|id| !full.contains(id));
            for me in &all {
                let ends = end(function, *me, &all, &full);
                prop_assert_eq!(ends, first.unwrap_or(*me));
            }
        }

        /// A gateway that goes moves only what it had; one that comes takes only what is its own from now on.
        #[test]
        fn a_gateway_that_comes_or_goes_moves_only_its_own_functions(
            functions in prop::collection::vec(any::<Id>(), 50), all in prop::collection::btree_set(any::<Id>(), 2..9), one in any::<prop::sample::Index>(),
        ) {
            let all: Vec<Id> = all.into_iter().collect();
            let gone = all[one.index(all.len())];
            let rest: Vec<Id> = all.iter().copied().filter(|id| *id != gone).collect();
            let nobody = HashSet::new();
            for function in functions {
                let before = end(function, rest[0], &all, &nobody);
                let after = end(function, rest[0], &rest, &nobody);
                prop_assert!(before == after || before == gone);
            }
        }

        /// One hop at most, and never to itself; and what is warm stays.
        #[test]
        fn what_is_warm_stays_and_nothing_is_passed_to_oneself(
            function in any::<Id>(), me in any::<Id>(), others in prop::collection::vec(any::<Id>(), 0..9),
            free in any::<bool>(), room in any::<bool>(), any in any::<bool>(), may in any::<bool>(), full in any::<bool>(),
        ) {
            let others: Vec<Id> = others.into_iter().filter(|id| *id != me).collect();
            match way(function, me, Here { free, room, any, may }, &others, |_| full) {
                Way::Here => {}
                Way::To { gateway, waits } => {
                    prop_assert!(!free && others.contains(&gateway));
                    prop_assert!(waits == full && (!waits || !any));
                }
            }
        }
    }

    #[test]
    fn who_may_hold_nothing_waits_with_the_first_that_may() {
        let nothing = Here::default();
        let first = order(7, [2, 3])[0];
        assert_eq!(way(7, 1, nothing, &[2, 3], |_| true), Way::To { gateway: first, waits: true });
        assert_eq!(way(7, 1, nothing, &[], |_| true), Way::Here);
        assert_eq!(way(7, 1, Here { any: true, ..nothing }, &[2, 3], |_| true), Way::Here);
        // No pool has one ready: all ends wait at the same gateway.
        let may = Here { may: true, ..nothing };
        let all = order(7, [1, 2, 3]);
        for me in [1, 2, 3] {
            let others: Vec<Id> = [1, 2, 3].into_iter().filter(|id| *id != me).collect();
            let waits = Way::To { gateway: all[0], waits: true };
            assert_eq!(way(7, me, may, &others, |_| true), if me == all[0] { Way::Here } else { waits });
        }
    }
}
