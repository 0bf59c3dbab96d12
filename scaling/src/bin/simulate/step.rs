//! A step from 1 to 20 callers, each of whom calls again when it is answered: how long until there is capacity
//! for all of them, under davit's decision on arrival and under Knative's autoscaler.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use davit_scaling::fleet::{Census, Pilot};

use crate::knative::{self, Autoscaler};
use crate::trace::Random;

/// Callers before and after the step.
const BEFORE: usize = 1;
const AFTER: usize = 20;
/// Quiet time before it, so that every window has seen the old load.
const QUIET: Duration = Duration::from_secs(120);
/// How long is looked at after it.
const LOOK: Duration = Duration::from_secs(60);
/// Between an answer and the same caller's next call.
const THINK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scaler {
    Davit,
    Knative,
}

/// One step.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// Mean time of a call, and what a start takes.
    pub(crate) service: Duration,
    pub(crate) cold: Duration,
    /// Of the step within the autoscaler's tick.
    pub(crate) phase: Duration,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Outcome {
    /// From the step until no call has to wait for capacity any more.
    pub(crate) fits: Duration,
    /// The longest that a call waited.
    pub(crate) longest_wait: Duration,
    pub(crate) instances: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Done { took: Duration },
    Ready,
    Look,
    Tick,
}

struct World {
    step: Step,
    start: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
    random: Random,
    line: VecDeque<Instant>,
    running: usize,
    instances: usize,
    starting: usize,
    looking: bool,
    pilot: Pilot,
    /// Callers with a call open, at each change.
    open: Vec<(Instant, usize)>,
    /// The last moment at which somebody had to wait who was not served at once.
    lacked: Instant,
    longest_wait: Duration,
}

/// Plays a step through.
pub(crate) fn run(step: Step, scaler: Scaler) -> Outcome {
    let start = Instant::now();
    let at = start + QUIET + step.phase;
    let mut world = World {
        step,
        start,
        now: start,
        events: BinaryHeap::new(),
        sequence: 0,
        random: Random(7),
        line: VecDeque::new(),
        running: 0,
        instances: 1,
        starting: 0,
        looking: false,
        pilot: Pilot::new(start),
        open: vec![(start, 0)],
        lacked: at,
        longest_wait: Duration::ZERO,
    };
    (0..BEFORE).for_each(|_| world.at(start, Event::Call));
    (BEFORE..AFTER).for_each(|_| world.at(at, Event::Call));
    if scaler == Scaler::Knative {
        world.at(start + knative::TICK, Event::Tick);
    }
    let mut autoscaler = Autoscaler::default();
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        if now > at + LOOK {
            break;
        }
        if !world.line.is_empty() && now > at {
            world.lacked = now;
        }
        world.now = now;
        world.handle(event, scaler, &mut autoscaler);
    }
    Outcome {
        fits: world.lacked - at,
        longest_wait: world.longest_wait,
        instances: world.instances + world.starting,
    }
}

impl World {
    fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn handle(&mut self, event: Event, scaler: Scaler, autoscaler: &mut Autoscaler) {
        match event {
            Event::Call => self.line.push_back(self.now),
            Event::Done { took } => {
                self.running -= 1;
                self.pilot.served(took);
                self.at(self.now + THINK, Event::Call);
            }
            Event::Ready => {
                self.starting -= 1;
                self.instances += 1;
            }
            Event::Look => self.looking = false,
            Event::Tick => {
                self.tick(autoscaler);
                self.at(self.now + knative::TICK, Event::Tick);
            }
        }
        while self.running < self.instances
            && let Some(arrived) = self.line.pop_front()
        {
            self.longest_wait = self.longest_wait.max(self.now - arrived);
            self.running += 1;
            let took = self.step.service.mul_f64(self.random.around_one(0.1));
            self.at(self.now + took, Event::Done { took });
        }
        self.pilot.working(self.running, self.running, self.now);
        self.open.push((self.now, self.running + self.line.len()));
        if scaler == Scaler::Davit {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let census = Census {
            line: self.line.len(),
            running: self.running,
            concurrency: 1,
            instances: self.instances,
            starting: self.starting,
            most: 1_000,
        };
        let answer = self.pilot.line(&census, self.step.cold, self.now);
        self.begin(answer.start);
        if let Some(again) = answer.again
            && !std::mem::replace(&mut self.looking, true)
        {
            self.at(self.now + again, Event::Look);
        }
    }

    fn begin(&mut self, starts: usize) {
        self.starting += starts;
        (0..starts).for_each(|_| self.at(self.now + self.step.cold, Event::Ready));
    }

    fn tick(&mut self, autoscaler: &mut Autoscaler) {
        let (stable, panic) = (self.average(knative::STABLE), self.average(knative::PANIC));
        let wanted = autoscaler.desired(stable, panic, self.instances, self.now);
        let have = self.instances + self.starting;
        self.begin(wanted.saturating_sub(have));
        // Only what is idle can go; instances that are in use end their call first.
        let idle = self.instances - self.running;
        self.instances -= have.saturating_sub(wanted.max(1)).min(idle);
    }

    /// Open calls, averaged over the last while.
    fn average(&self, window: Duration) -> f64 {
        let from = self.now.checked_sub(window).map_or(self.start, |from| from.max(self.start));
        let mut sum = 0.0;
        let mut until = self.now;
        for (since, open) in self.open.iter().rev() {
            sum += (until - (*since).max(from)).as_secs_f64() * *open as f64;
            until = *since;
            if *since <= from {
                break;
            }
        }
        sum / (self.now - from).as_secs_f64().max(1e-9)
    }
}
