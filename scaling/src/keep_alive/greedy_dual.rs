//! Which idle instances go first when memory is needed: Greedy-Dual with size and frequency, as FaasCache uses
//! it for functions (Fuerst and Sharma, ASPLOS 2021). The gateway calls it when a start finds no room.

use std::time::Duration;

/// The clock of a Greedy-Dual order: it rises to the priority of whatever was evicted last, so that what was
/// valuable once, and is not used any more, grows old.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GreedyDual {
    clock: f64,
}

/// What an instance's place in the order is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Calls of its fleet lately: how often it is of use.
    pub calls: f64,
    /// What bringing it back takes.
    pub cold: Duration,
    /// What it holds, in MiB.
    pub memory_mb: u32,
}

/// An idle instance that could go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// From [`Worth::priority`].
    pub priority: f64,
    /// What it holds, in MiB.
    pub memory_mb: u32,
}

impl Worth {
    /// The priority of an instance that was last used at this time of the order's clock: clock + frequency x cost /
    /// memory.
    pub fn priority(&self, used_at: f64) -> f64 {
        let size = f64::from(self.memory_mb.max(1));
        used_at + self.calls.max(1.0) * self.cold.as_secs_f64() * 1e3 / size
    }
}

impl GreedyDual {
    /// The order's time, to be kept with whatever is used now.
    pub fn clock(&self) -> f64 {
        self.clock
    }

    /// The indices of those that go, lowest priority first, until `need_mb` are free. Empty when all of them
    /// together would not do: nobody is evicted for a start that then fails all the same.
    pub fn evict(&mut self, candidates: &[Candidate], need_mb: u64) -> Vec<usize> {
        if candidates.iter().map(|c| u64::from(c.memory_mb)).sum::<u64>() < need_mb {
            return Vec::new();
        }
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|a, b| candidates[*a].priority.total_cmp(&candidates[*b].priority));
        let mut freed = 0;
        let mut gone = Vec::new();
        for at in order {
            if freed >= need_mb {
                break;
            }
            freed += u64::from(candidates[at].memory_mb);
            self.clock = self.clock.max(candidates[at].priority);
            gone.push(at);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn worth(calls: f64, cold_ms: u64, memory_mb: u32) -> Worth {
        Worth { calls, cold: Duration::from_millis(cold_ms), memory_mb }
    }

    #[test]
    fn cheap_rare_and_large_ones_go_first() {
        let order = GreedyDual::default();
        let priority = |worth: Worth| worth.priority(order.clock());
        let base = priority(worth(4.0, 100, 256));
        assert!(priority(worth(4.0, 10, 256)) < base);
        assert!(priority(worth(1.0, 100, 256)) < base);
        assert!(priority(worth(4.0, 100, 1024)) < base);
    }

    #[test]
    fn what_was_dear_once_goes_in_the_end() {
        let mut order = GreedyDual::default();
        let dear = Candidate { priority: worth(50.0, 2_000, 256).priority(order.clock()), memory_mb: 256 };
        for round in 0.. {
            let fresh = Candidate { priority: worth(1.0, 50, 256).priority(order.clock()), memory_mb: 256 };
            if order.evict(&[dear, fresh], 256) == [0] {
                return;
            }
            assert!(round < 10_000, "never aged");
        }
    }

    proptest! {
        #[test]
        fn enough_goes_or_nothing_and_never_more_than_needed(
            all in prop::collection::vec((0.0f64..1e6, 1u32..2_000), 0..20), need in 0u64..20_000,
        ) {
            let all: Vec<_> = all.into_iter().map(|(priority, memory_mb)| Candidate { priority, memory_mb }).collect();
            let gone = GreedyDual::default().evict(&all, need);
            let freed: u64 = gone.iter().map(|i| u64::from(all[*i].memory_mb)).sum();
            let total: u64 = all.iter().map(|c| u64::from(c.memory_mb)).sum();
            prop_assert_eq!(total >= need && need > 0, !gone.is_empty());
            prop_assert!(gone.is_empty() || freed >= need);
            if let Some(last) = gone.last() {
                prop_assert!(freed - u64::from(all[*last].memory_mb) < need);
                let kept = (0..all.len()).filter(|i| !gone.contains(i));
                kept.for_each(|k| assert!(all[k].priority >= all[*last].priority));
            }
        }
    }
}
