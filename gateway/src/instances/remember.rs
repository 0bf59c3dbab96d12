//! What is known of functions that have no fleet at the moment, in bounds: what an emptied fleet had learnt, and
//! when schedules fire next. `mod.rs` keeps the first, the cron alarm's reads write the second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use davit_api::FunctionId;
use parking_lot::Mutex;

use crate::instances::state::Learnt;

/// Functions whose learning is kept after their last instance; a few KiB each. Those that come after push out the
/// ones that have been without an instance for longest.
const MOST: usize = 1_024;
/// An instant that has passed stands for so long, since the call itself comes a moment after it.
const LATE: Duration = Duration::from_secs(2);

/// What emptied fleets had learnt.
#[derive(Default)]
pub(super) struct Remembered {
    functions: HashMap<FunctionId, (u64, Learnt)>,
    clock: u64,
}

impl Remembered {
    pub(super) fn put(&mut self, function: FunctionId, learnt: Learnt) {
        self.clock += 1;
        self.functions.insert(function, (self.clock, learnt));
        if self.functions.len() > MOST
            && let Some(oldest) = self.functions.iter().min_by_key(|(_, (at, _))| *at).map(|(id, _)| *id)
        {
            self.functions.remove(&oldest);
        }
    }

    pub(super) fn take(&mut self, function: FunctionId) -> Option<Learnt> {
        self.functions.remove(&function).map(|(_, learnt)| learnt)
    }
}

/// The next instant at which a schedule calls a function. As old as the alarm's last read, which is seconds.
#[derive(Default)]
pub struct Expected {
    next: Mutex<HashMap<FunctionId, Instant>>,
}

impl Expected {
    /// Takes the place of everything known, but for what fired a moment ago: its call is on its way.
    pub fn set(&self, due: impl Iterator<Item = (FunctionId, DateTime<Utc>)>) {
        let (now, clock) = (Instant::now(), Utc::now());
        let mut next: HashMap<FunctionId, Instant> = HashMap::new();
        for (function, at) in due {
            let at = now + (at - clock).to_std().unwrap_or_default();
            next.entry(function).and_modify(|first| *first = (*first).min(at)).or_insert(at);
        }
        let mut known = self.next.lock();
        for (function, at) in known.drain().filter(|(_, at)| *at <= now && now < *at + LATE) {
            next.insert(function, at);
        }
        *known = next;
    }

    pub(super) fn of(&self, function: FunctionId) -> Option<Instant> {
        self.next.lock().get(&function).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_emptied_longest_ago_is_forgotten_first() {
        let now = Instant::now();
        let mut remembered = Remembered::default();
        let ids: Vec<FunctionId> = (0..=MOST).map(|_| FunctionId::new()).collect();
        ids.iter().for_each(|id| remembered.put(*id, Learnt::new(now)));
        assert_eq!(remembered.functions.len(), MOST);
        assert!(remembered.take(ids[0]).is_none());
        assert!(remembered.take(ids[1]).is_some() && remembered.take(ids[1]).is_none());
    }

    #[test]
    fn the_first_of_several_schedules_counts_and_one_that_fired_stands_until_its_call_is_there() {
        let (expected, function) = (Expected::default(), FunctionId::new());
        let after = |seconds| (function, Utc::now() + chrono::TimeDelta::seconds(seconds));
        let now = Instant::now();
        let until = || expected.of(function).unwrap().saturating_duration_since(now).as_secs();
        expected.set([after(500), after(100)].into_iter());
        assert!((99..=100).contains(&until()));
        expected.set([after(-1)].into_iter());
        expected.set([after(100)].into_iter());
        assert_eq!(until(), 0, "it fired just now");
        expected.set(std::iter::empty());
        assert_eq!(until(), 0);
        expected.next.lock().insert(function, now - 2 * LATE);
        expected.set([after(100)].into_iter());
        assert!((99..=100).contains(&until()));
    }
}
