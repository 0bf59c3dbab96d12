//! How many generic instances wait per pool key, and how fast a pool may be refilled. The gateway notes claims,
//! the controller deals the memory out and starts.

use std::time::{Duration, Instant};

/// How far back claims count.
const WINDOW: usize = 120;
/// Standard deviations of a Poisson count that a pool can bear: 98 % of the refill times pass without a wait.
const MARGIN: f64 = 2.0;
/// CPUs that refills leave idle, so that the first call to come need not wait for one of them to end.
const KEPT_FREE: usize = 1;

/// Claims of one key, second by second, for two minutes. Constant size.
#[derive(Debug, Clone)]
pub struct Claims {
    counts: [u16; WINDOW],
    second: u64,
    start: Instant,
}

/// What was claimed lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// Claims a second, on average.
    pub rate: f64,
    /// Most claims within any stretch as long as a refill takes.
    pub burst: u32,
}

impl Claims {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self { counts: [0; WINDOW], second: 0, start: now }
    }

    /// One instance was claimed.
    pub fn note(&mut self, now: Instant) {
        let at = self.roll(now);
        self.counts[at] = self.counts[at].saturating_add(1);
    }

    fn roll(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.start).as_secs().max(self.second);
        if second - self.second >= WINDOW as u64 {
            self.counts = [0; WINDOW];
            self.second = second;
        }
        while self.second < second {
            self.second += 1;
            self.counts[(self.second % WINDOW as u64) as usize] = 0;
        }
        (second % WINDOW as u64) as usize
    }

    /// What a pool that takes `refill` to get one more instance has to be ready for.
    pub fn demand(&mut self, refill: Duration, now: Instant) -> Demand {
        let newest = self.roll(now);
        // From the oldest second to the newest.
        let counts: Vec<u32> = (1..=WINDOW).map(|i| u32::from(self.counts[(newest + i) % WINDOW])).collect();
        // A burst that falls on both sides of a second's end is one.
        let span = (refill.as_secs() as usize + 2).min(WINDOW);
        let burst = counts.windows(span).map(|w| w.iter().sum()).max().unwrap_or(0);
        Demand { rate: f64::from(counts.iter().sum::<u32>()) / WINDOW as f64, burst }
    }
}

impl Demand {
    /// Of a count over the last minute, when nothing is known about its order: all of it may come at once.
    pub fn of_minute(claims: u32) -> Self {
        Self { rate: f64::from(claims) / 60.0, burst: claims }
    }
}

/// Bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Instances that wait even when nobody calls.
    pub base: u32,
    /// Most that wait.
    pub most: u32,
}

/// Instances that one pool would like to have waiting: enough that the claims of one refill time find one,
/// at the usual rate with a margin, and when the burst of the last two minutes comes again, with one to be
/// ahead of growth.
pub fn wish(demand: Demand, refill: Duration, bounds: Bounds) -> u32 {
    let mean = demand.rate.max(0.0) * refill.as_secs_f64();
    let steady = (mean + MARGIN * mean.sqrt()).ceil().min(1e9) as u32;
    let burst = if demand.burst == 0 { 0 } else { demand.burst.saturating_add(1) };
    steady.max(burst).max(bounds.base).min(bounds.most)
}

/// What one pool asks for when memory is dealt out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asks {
    /// Instances, from [`wish`].
    pub wish: u32,
    /// What one holds, in MiB.
    pub memory_mb: u32,
    /// Claims a second: who is used goes before who might be.
    pub rate: f64,
    /// What a call waits that finds the pool empty.
    pub refill: Duration,
}

/// Instances that each pool gets. One for each first, so that a scarce budget is shared; after that each goes where it saves
/// most waiting for its memory, which falls with every one that a pool has already. So pools that are alike but for their
/// claims, as those of one kind at several gateways are, get shares like their claims.
pub fn deal(asks: &[Asks], memory_mb: u64) -> Vec<u32> {
    let worth = |i: usize| asks[i].rate * asks[i].refill.as_secs_f64() / f64::from(asks[i].memory_mb.max(1));
    let mut granted = vec![0_u32; asks.len()];
    let mut left = memory_mb;
    loop {
        let fits = |i: &usize| granted[*i] < asks[*i].wish && u64::from(asks[*i].memory_mb) <= left;
        let before = |a: &usize, b: &usize| {
            let saves = |i: usize| worth(i) / f64::from(granted[i] + 1);
            let first = |i: usize| granted[i] == 0;
            first(*a)
                .cmp(&first(*b))
                .then(saves(*a).total_cmp(&saves(*b)))
                .then(granted[*b].cmp(&granted[*a]))
                .then(b.cmp(a))
        };
        let Some(next) = (0..asks.len()).filter(fits).max_by(before) else { return granted };
        granted[next] += 1;
        left -= u64::from(asks[next].memory_mb);
    }
}

/// The machine as a refill sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// CPUs.
    pub cpus: usize,
    /// CPUs that calls keep busy now, one each.
    pub running_calls: usize,
    /// Starts that calls wait for.
    pub urgent_starts: usize,
    /// Starts of refills under way.
    pub refills: usize,
}

/// Refills that may begin now; each keeps a CPU busy. None while a call waits for a start; otherwise as many as there
/// are idle CPUs but for one, and one in any case, or a busy machine would never have a pool again.
pub fn refills_allowed(lacking: usize, machine: Machine) -> usize {
    if machine.urgent_starts > 0 {
        return 0;
    }
    let idle = machine.cpus.saturating_sub(machine.running_calls + KEPT_FREE);
    lacking.min(idle.max(1).saturating_sub(machine.refills))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { base: 2, most: 20 };
    const REFILL: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_expected_again_and_forgotten_in_the_end() {
        let start = Instant::now();
        let mut claims = Claims::new(start);
        assert_eq!(wish(claims.demand(REFILL, start), REFILL, BOUNDS), 2, "the base, when nobody calls");
        (0..8).for_each(|_| claims.note(start + Duration::from_secs(5)));
        let soon = claims.demand(REFILL, start + Duration::from_secs(60));
        assert_eq!((soon.burst, wish(soon, REFILL, BOUNDS)), (8, 9));
        let late = claims.demand(REFILL, start + Duration::from_secs(200));
        assert_eq!(wish(late, REFILL, BOUNDS), 2);
    }

    #[test]
    fn a_steady_stream_needs_what_one_refill_takes_and_not_a_minutes_worth() {
        let start = Instant::now();
        let mut claims = Claims::new(start);
        (0..240).for_each(|i| claims.note(start + Duration::from_millis(500 * i)));
        let demand = claims.demand(REFILL, start + Duration::from_secs(120));
        assert!((5..=8).contains(&wish(demand, REFILL, BOUNDS)), "{demand:?}");
        assert_eq!(wish(Demand::of_minute(120), REFILL, BOUNDS), 20);
    }

    #[test]
    fn refilling_waits_while_a_call_does() {
        let machine = Machine { cpus: 8, running_calls: 2, urgent_starts: 0, refills: 1 };
        assert_eq!(refills_allowed(10, machine), 4, "a CPU is left to the first call");
        assert_eq!(refills_allowed(10, Machine { urgent_starts: 1, ..machine }), 0);
        assert_eq!(refills_allowed(10, Machine { running_calls: 50, refills: 0, ..machine }), 1);
    }

    #[test]
    fn scarce_memory_is_shared() {
        let ask = |rate| Asks { wish: 4, memory_mb: 256, rate, refill: REFILL };
        assert_eq!(deal(&[ask(0.0), ask(9.0)], 3 * 256), [1, 2]);
    }

    proptest! {
        #[test]
        fn no_deal_passes_its_bounds_and_more_memory_never_gives_less(
            asks in prop::collection::vec((0u32..20, 0u32..2_000, 0.0f64..50.0), 0..10),
            memory in 0u64..20_000, more in 0u64..20_000,
        ) {
            let asks: Vec<_> = asks
                .into_iter()
                .map(|(wish, memory_mb, rate)| Asks { wish, memory_mb, rate, refill: REFILL })
                .collect();
            let granted = deal(&asks, memory);
            let held: u64 = granted.iter().zip(&asks).map(|(n, a)| u64::from(*n) * u64::from(a.memory_mb)).sum();
            prop_assert!(held <= memory);
            prop_assert!(granted.iter().zip(&asks).all(|(n, a)| *n <= a.wish));
            if memory >= 200_000 {
                prop_assert!(granted.iter().zip(&asks).all(|(n, a)| *n == a.wish));
            }
            let same_size: Vec<_> = asks.iter().map(|a| Asks { memory_mb: 128, ..*a }).collect();
            let total = |m| deal(&same_size, m).iter().sum::<u32>();
            prop_assert!(total(memory) <= total(memory + more));
        }

        #[test]
        fn a_wish_keeps_its_bounds(rate in 0.0f64..1e5, burst in 0u32..u32::MAX, refill in 0u64..100_000, base in 0u32..5) {
            let bounds = Bounds { base, most: 20 };
            let n = wish(Demand { rate, burst }, Duration::from_millis(refill), bounds);
            prop_assert!(n >= base && n <= 20);
        }
    }
}
