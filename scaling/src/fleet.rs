//! The decisions of one fleet, put together: the gateway holds one of these per version, under the lock that
//! its members are under, tells it what happens and asks it what to do. The simulator holds the same.

use std::time::{Duration, Instant};

use crate::estimate::Estimate;
use crate::keep_alive::{History, Terms, Verdict};
use crate::scale_in::{self, Limits, Load};
use crate::scale_out::{self, Answer, Crowd};

/// How soon an instance that the recent load wants is judged again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What one fleet has learnt. A few KiB, bounded.
#[derive(Debug, Clone)]
pub struct Pilot {
    history: History,
    load: Load,
    service: Estimate,
    lack: Lack,
}

/// For how long capacity has been lacking: time with a line counts, time with a free slot counts back, and time
/// in which everything is just in use counts neither way. So a line that empties for a millisecond now and then
/// is still one.
#[derive(Debug, Clone, Copy)]
struct Lack {
    time: Duration,
    now: Room,
    since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    None,
    Just,
    Some,
}

impl Lack {
    fn note(&mut self, room: Room, most: Duration, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since);
        self.time = match self.now {
            Room::None => (self.time + passed).min(most),
            Room::Just => self.time,
            Room::Some => self.time.saturating_sub(passed),
        };
        (self.now, self.since) = (room, now);
        self.time
    }
}

/// The fleet's numbers when its line is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Calls that wait.
    pub line: usize,
    /// Calls in instances now.
    pub running: usize,
    /// Calls at a time in one instance.
    pub concurrency: usize,
    /// Instances that are there.
    pub instances: usize,
    /// Starts under way.
    pub starting: usize,
    /// Most instances, starts included.
    pub most: usize,
}

impl Pilot {
    /// Nothing learnt yet.
    pub fn new(now: Instant) -> Self {
        Self {
            history: History::default(),
            load: Load::new(now),
            service: Estimate::default(),
            lack: Lack { time: Duration::ZERO, now: Room::Some, since: now },
        }
    }

    /// Calls began or ended: this many instances work now, with this many calls.
    pub fn working(&mut self, instances: usize, calls: usize, now: Instant) {
        self.history.working(instances, now);
        self.load.running(calls, now);
    }

    /// A call took this long in its instance.
    pub fn served(&mut self, took: Duration) {
        self.service.note(took);
    }

    /// Whether to start instances for the line, which may be empty. To be asked whenever the line or the number
    /// of running calls changed, and after the time that the answer names.
    pub fn line(&mut self, census: &Census, cold: Duration, now: Instant) -> Answer {
        let full = census.running >= census.instances.saturating_mul(census.concurrency.max(1));
        let room = match (census.line, full) {
            (1.., _) => Room::None,
            (0, true) => Room::Just,
            (0, false) => Room::Some,
        };
        let lined_for = self.lack.note(room, cold, now);
        scale_out::decide(&Crowd {
            line: census.line,
            lined_for,
            running: census.running,
            concurrency: census.concurrency,
            instances: census.instances,
            starting: census.starting,
            most: census.most,
            service: self.service,
            cold,
        })
    }

    /// Whether one more call would be worth an instance more, were there no bound to them.
    pub fn lacks(&self, census: &Census, cold: Duration, now: Instant) -> bool {
        let mut lack = self.lack;
        let room = if census.line > 0 { Room::None } else { Room::Just };
        let crowd = Crowd {
            line: census.line + 1,
            lined_for: lack.note(room, cold, now),
            running: census.running,
            concurrency: census.concurrency,
            instances: census.instances,
            starting: census.starting,
            most: usize::MAX,
            service: self.service,
            cold,
        };
        scale_out::decide(&crowd).start > 0
    }

    /// What becomes of the idle instance that would be the `level`-th to work: those that work come first, then
    /// the idle ones in the order in which they would get a call.
    pub fn judge(
        &mut self,
        level: usize,
        idle_since: Instant,
        limits: Limits,
        terms: &Terms,
        now: Instant,
    ) -> Verdict {
        if level <= limits.provisioned {
            return Verdict::Keep { until: now + scale_in::MEMORY };
        }
        let within = now.saturating_duration_since(idle_since) < terms.most;
        if within && level <= scale_in::desired(&mut self.load, limits, now) {
            return Verdict::Keep { until: now + LOOK_AGAIN };
        }
        self.history.judge(level, idle_since, now, terms)
    }

    /// Calls lately, for [`crate::keep_alive::Worth`].
    pub fn calls(&self) -> f64 {
        self.history.calls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep_alive::Price;

    #[test]
    fn provisioned_instances_stay_and_the_others_go_after_the_rush() {
        let start = Instant::now();
        let mut pilot = Pilot::new(start);
        pilot.working(5, 5, start);
        let end = start + Duration::from_secs(60);
        pilot.working(0, 0, end);
        let limits = Limits { concurrency: 1, busy: 0, provisioned: 1, most: 10 };
        let terms = Terms {
            cold: Duration::from_millis(20),
            memory_mb: 512,
            price: Price::default(),
            most: Duration::from_secs(600),
            scheduled: None,
        };
        let stays = |pilot: &mut Pilot, level, now| {
            matches!(pilot.judge(level, end, limits, &terms, now), Verdict::Keep { .. })
        };
        assert!((1..=5).all(|level| stays(&mut pilot, level, end + Duration::from_secs(3))));
        let later = end + Duration::from_secs(700);
        assert!(stays(&mut pilot, 1, later));
        assert!((2..=5).all(|level| !stays(&mut pilot, level, later)));
    }

    #[test]
    fn a_full_fleet_lacks_an_instance_when_calls_are_long_and_not_when_they_are_short() {
        let now = Instant::now();
        let census = Census { line: 0, running: 2, concurrency: 1, instances: 2, starting: 0, most: 2 };
        let cold = Duration::from_millis(50);
        for (ms, lacks) in [(2, false), (2_000, true)] {
            let mut pilot = Pilot::new(now);
            (0..20).for_each(|_| pilot.served(Duration::from_millis(ms)));
            pilot.line(&census, cold, now);
            assert_eq!(pilot.lacks(&census, cold, now), lacks, "{ms} ms");
        }
        assert!(Pilot::new(now).lacks(&census, cold, now), "nothing is known of them");
    }

    #[test]
    fn a_line_that_stays_brings_another_instance() {
        let start = Instant::now();
        let mut pilot = Pilot::new(start);
        (0..20).for_each(|_| pilot.served(Duration::from_millis(2)));
        let census = Census { line: 1, running: 1, concurrency: 1, instances: 1, starting: 0, most: 5 };
        let cold = Duration::from_millis(40);
        let answer = pilot.line(&census, cold, start);
        assert_eq!(answer.start, 0);
        let again = start + answer.again.unwrap() + Duration::from_millis(1);
        assert_eq!(pilot.line(&census, cold, again).start, 1);
        pilot.line(&Census { line: 0, ..census }, cold, again);
        assert_eq!(pilot.line(&census, cold, again).start, 1, "empty, but nothing was free");
        pilot.line(&Census { line: 0, running: 0, ..census }, cold, again);
        let later = again + Duration::from_secs(1);
        assert_eq!(pilot.line(&census, cold, later).start, 0, "there was room in between");
    }
}
