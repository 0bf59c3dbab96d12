//! Which waiting instance is given another size, when a start finds none of its own. Pure; a gateway asks for each start
//! that begins to wait.

use std::cmp::Reverse;
use std::time::Duration;

/// What a pool needs to get one more instance, where sizes can be changed: a pod's start. For as long the pool has to do
/// without what is taken out of it.
pub const REFILL: Duration = Duration::from_secs(3);

/// What an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Memory in MiB.
    pub memory_mb: u32,
    /// CPU in thousandths of a core.
    pub cpu_millis: u32,
}

/// A pool of instances that differ from what is wanted in nothing but their size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sibling {
    /// Their size, which they have had from the beginning.
    pub size: Size,
    /// How many wait.
    pub ready: u32,
    /// How many of these can be given another size.
    pub resizable: u32,
    /// Claims a second, of late.
    pub rate: f64,
}

/// The pool to take one from. `volume_mb`: the largest memory file system of such an instance. It is made once, no larger
/// than the memory of that time, and must be as large as that of an instance which begins with the wanted size.
pub fn choose(wanted: Size, volume_mb: u32, siblings: &[Sibling]) -> Option<usize> {
    let may = |s: &Sibling| {
        let volumes = s.size.memory_mb >= volume_mb.min(wanted.memory_mb);
        s.size != wanted && s.resizable > 0 && volumes && s.ready > kept(s.rate)
    };
    let order = |s: &Sibling| {
        (
            // Less memory can be refused, when more is in use.
            s.size.memory_mb > wanted.memory_mb,
            s.size.memory_mb.abs_diff(wanted.memory_mb),
            s.size.cpu_millis.abs_diff(wanted.cpu_millis),
            Reverse(s.ready - kept(s.rate)),
        )
    };
    let candidates = siblings.iter().enumerate().filter(|(_, s)| may(s));
    candidates.min_by_key(|(_, s)| order(s)).map(|(at, _)| at)
}

/// As many stay as are likely to be claimed before another one is there.
fn kept(rate: f64) -> u32 {
    (rate.max(0.0) * REFILL.as_secs_f64()).ceil().min(1e9) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VOLUME: u32 = 512;

    fn size(memory_mb: u32, cpu_millis: u32) -> Size {
        Size { memory_mb, cpu_millis }
    }

    fn sibling(memory_mb: u32, cpu_millis: u32) -> Sibling {
        Sibling { size: size(memory_mb, cpu_millis), ready: 2, resizable: 2, rate: 0.0 }
    }

    #[test]
    fn the_nearest_goes_and_more_memory_is_asked_for_rather_than_less() {
        let all = [sibling(512, 1_000), sibling(1_024, 1_000), sibling(1_024, 2_000), sibling(2_048, 1_000)];
        assert_eq!(choose(size(1_500, 1_000), VOLUME, &all), Some(1));
        assert_eq!(choose(size(1_500, 1_600), VOLUME, &all), Some(2));
        assert_eq!(choose(size(1_024, 4_000), VOLUME, &all), Some(2), "CPU alone");
        assert_eq!(choose(size(64, 1_000), VOLUME, &all), Some(0), "less, since there is nothing else");
        assert_eq!(choose(size(1_024, 1_000), VOLUME, &all[1..2]), None, "it is what is wanted");
    }

    #[test]
    fn what_began_too_small_for_its_volumes_does_not_grow() {
        let small = [sibling(256, 1_000)];
        assert_eq!(choose(size(1_024, 1_000), VOLUME, &small), None);
        assert_eq!(choose(size(1_024, 1_000), 256, &small), Some(0));
        assert_eq!(choose(size(256, 50), VOLUME, &small), Some(0));
        assert_eq!(choose(size(128, 1_000), VOLUME, &small), Some(0));
    }

    #[test]
    fn a_pool_that_is_used_keeps_what_its_own_calls_are_likely_to_need() {
        let used = |rate| [Sibling { rate, ..sibling(512, 1_000) }];
        let take = |rate| choose(size(1_024, 1_000), VOLUME, &used(rate)).is_some();
        assert!(take(0.0) && take(0.3) && !take(0.4) && !take(5.0));
        let none = [Sibling { resizable: 0, ..sibling(512, 1_000) }];
        assert_eq!(choose(size(1_024, 1_000), VOLUME, &none), None);
    }

    proptest! {
        #[test]
        fn what_is_taken_may_be_taken_and_nothing_nearer_is_passed_over(
            wanted in (64u32..4_096, 50u32..4_000),
            volume_mb in 16u32..2_048,
            pools in prop::collection::vec((64u32..4_096, 50u32..4_000, 0u32..4, 0u32..4, 0.0f64..2.0), 0..8),
        ) {
            let wanted = size(wanted.0, wanted.1);
            let pools: Vec<Sibling> = pools
                .into_iter()
                .map(|(mb, cpu, ready, resizable, rate)| Sibling { size: size(mb, cpu), ready, resizable: resizable.min(ready), rate })
                .collect();
            let volume = |memory_mb: u32| volume_mb.min(memory_mb);
            let may = |s: &Sibling| {
                s.resizable > 0 && s.size != wanted && volume(s.size.memory_mb) >= volume(wanted.memory_mb)
                    && f64::from(s.ready) >= s.rate * REFILL.as_secs_f64() + if s.rate == 0.0 { 1.0 } else { 0.0 }
            };
            match choose(wanted, volume_mb, &pools) {
                Some(at) => {
                    let taken = &pools[at];
                    prop_assert!(may(taken));
                    let smaller = |s: &Sibling| s.size.memory_mb <= wanted.memory_mb;
                    let far = |s: &Sibling| s.size.memory_mb.abs_diff(wanted.memory_mb);
                    let passed = pools.iter().filter(|s| choose(wanted, volume_mb, &[**s]).is_some());
                    for other in passed {
                        prop_assert!(smaller(taken) || !smaller(other));
                        prop_assert!(smaller(taken) != smaller(other) || far(taken) <= far(other));
                    }
                }
                None => prop_assert!(pools.iter().all(|s| choose(wanted, volume_mb, &[*s]).is_none())),
            }
        }
    }
}
