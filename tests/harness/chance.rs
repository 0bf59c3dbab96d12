//! Chance that can be repeated: every story that kills at random moments prints the seed it drew them from.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A stream of numbers from one seed (SplitMix64 of Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// From `DAVIT_E2E_SEED`, else from the clock; prints the seed.
    pub fn new() -> Self {
        let seed = Self::seed();
        eprintln!("seed: DAVIT_E2E_SEED={seed}");
        Self(seed)
    }

    /// `DAVIT_E2E_SEED`, else one from the clock.
    pub fn seed() -> u64 {
        let given = std::env::var("DAVIT_E2E_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        given.unwrap_or_else(clock)
    }

    /// From a seed that the caller prints.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    /// Waits for a random time below `most`: the moment, not the wait, is what a story is about.
    pub async fn pause(&mut self, most: Duration) {
        let wait = Duration::from_millis(self.below(most.as_millis() as u64));
        eprintln!("a pause of {wait:?}");
        tokio::time::sleep(wait).await;
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}
