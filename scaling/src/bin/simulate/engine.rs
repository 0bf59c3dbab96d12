//! Replays a trace in a simulated clock: calls, starts, idle instances and memory. What it decides by is a
//! [`Policy`]; whether a call waits or starts an instance is the library's decision under every policy, so
//! that only keep-alive differs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use davit_scaling::fleet::Census;
use davit_scaling::keep_alive::{Candidate, GreedyDual, Price, Return, Terms, Verdict, Worth};

use crate::policy::{Idle, Keeper, Policy};
use crate::trace::{Function, Random};

/// Length of a trace.
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
/// The bound that a user gives: as long as the longest histogram of the hybrid policy.
const KEEP_ALIVE: Duration = Duration::from_secs(4 * 3600);
/// Deviation of a call's run time from its function's, as in OrcBench.
const RUN_DEVIATION: f64 = 0.3;

/// What a start takes, by function.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Cold {
    /// The same for all.
    Uniform(Duration),
    /// Four in five come from a pool, one in five has an image of its own.
    Mixed { pooled: Duration, custom: Duration },
}

impl Cold {
    fn of(self, function: usize) -> Duration {
        match self {
            Self::Uniform(cold) => cold,
            Self::Mixed { custom, .. } if function.is_multiple_of(5) => custom,
            Self::Mixed { pooled, .. } => pooled,
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    /// Instances that were started because a call waited.
    pub(crate) cold_starts: u64,
    /// Instances that were started ahead of a call.
    pub(crate) ahead: u64,
    /// Memory held by instances that did nothing, in GiB x seconds.
    pub(crate) idle_gib_s: f64,
    /// Time that calls waited, in seconds.
    pub(crate) waited_s: f64,
    /// Share of calls that a start was made for, of the function at the 75th percentile.
    pub(crate) p75_cold: f64,
    /// Starts for which the budget had no room.
    pub(crate) over_budget: u64,
    /// Most instances of one function at a time.
    pub(crate) peak: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Event {
    Done { took: Duration },
    Ready { ahead: Option<Instant> },
    Arrive,
    Look,
    Check { idle: u64 },
    Return { epoch: u64, until: Instant },
}

struct Resting {
    number: u64,
    since: Instant,
    priority: f64,
}

struct Fleet {
    keeper: Keeper,
    cold: Duration,
    next_call: usize,
    last_call: Option<Instant>,
    busy: usize,
    starting: usize,
    /// The last one is the next to get a call.
    idle: Vec<Resting>,
    line: VecDeque<Instant>,
    /// Counts calls, so that a start ahead of one knows when it came.
    epoch: u64,
    cold_starts: u64,
    looking: bool,
    random: Random,
}

struct World<'a> {
    length: Duration,
    functions: &'a [Function],
    fleets: Vec<Fleet>,
    policy: Policy,
    start: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, usize, Event)>>,
    sequence: u64,
    order: GreedyDual,
    held_mb: u64,
    totals: Totals,
}

/// Replays a whole day.
pub(crate) fn run(functions: &[Function], policy: Policy, cold: Cold) -> Totals {
    run_for(DAY, functions, policy, cold)
}

/// Replays the first part of a trace.
pub(crate) fn run_for(length: Duration, functions: &[Function], policy: Policy, cold: Cold) -> Totals {
    let start = Instant::now();
    let fleets = (0..functions.len()).map(|f| Fleet {
        keeper: Keeper::new(policy, start),
        cold: cold.of(f),
        next_call: 0,
        last_call: None,
        busy: 0,
        starting: 0,
        idle: Vec::new(),
        line: VecDeque::new(),
        epoch: 0,
        cold_starts: 0,
        looking: false,
        random: Random(f as u64 ^ 0x5eed),
    });
    let mut world = World {
        length,
        functions,
        fleets: fleets.collect(),
        policy,
        start,
        now: start,
        events: BinaryHeap::new(),
        sequence: 0,
        order: GreedyDual::default(),
        held_mb: 0,
        totals: Totals::default(),
    };
    (0..functions.len()).for_each(|f| world.arm_next_call(f));
    while let Some(Reverse((at, _, f, event))) = world.events.pop() {
        if at > start + length {
            break;
        }
        world.now = at;
        world.handle(f, event);
    }
    world.close()
}

impl World<'_> {
    fn at(&mut self, at: Instant, f: usize, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, f, event)));
    }

    fn arm_next_call(&mut self, f: usize) {
        let next = self.fleets[f].next_call;
        if let Some(call) = self.functions[f].calls.get(next) {
            self.at(self.start + *call, f, Event::Arrive);
        }
    }

    fn handle(&mut self, f: usize, event: Event) {
        let now = self.now;
        match event {
            Event::Arrive => {
                self.totals.calls += 1;
                let fleet = &mut self.fleets[f];
                (fleet.next_call, fleet.epoch, fleet.last_call) =
                    (fleet.next_call + 1, fleet.epoch + 1, Some(now));
                fleet.line.push_back(now);
                self.arm_next_call(f);
                self.serve(f);
                self.ask(f);
            }
            Event::Done { took } => {
                let fleet = &mut self.fleets[f];
                fleet.keeper.pilot.served(took);
                fleet.busy -= 1;
                self.rest(f, now);
                self.serve(f);
                // Only now is it known whether fewer work than before.
                let busy = self.fleets[f].busy;
                self.fleets[f].keeper.working(busy, now);
                self.ask(f);
                self.judge_newest(f);
            }
            Event::Ready { ahead } => {
                self.fleets[f].starting -= 1;
                self.rest(f, now);
                self.serve(f);
                match (ahead, self.fleets[f].idle.last().map(|i| i.number)) {
                    (Some(until), Some(idle)) => self.at(until.max(now), f, Event::Check { idle }),
                    _ => self.judge_newest(f),
                }
            }
            Event::Look => {
                self.fleets[f].looking = false;
                self.ask(f);
            }
            Event::Check { idle } => self.check(f, idle),
            Event::Return { epoch, until } => {
                let fleet = &self.fleets[f];
                if fleet.epoch == epoch && fleet.busy + fleet.starting + fleet.idle.len() == 0 {
                    self.totals.ahead += 1;
                    self.start(f, Some(until));
                }
            }
        }
    }

    /// An instance has nothing to do.
    fn rest(&mut self, f: usize, now: Instant) {
        let fleet = &mut self.fleets[f];
        let worth = Worth {
            calls: fleet.keeper.pilot.calls(),
            cold: fleet.cold,
            memory_mb: self.functions[f].memory_mb,
        };
        self.sequence += 1;
        let priority = worth.priority(self.order.clock());
        fleet.idle.push(Resting { number: self.sequence, since: now, priority });
    }

    /// Matches idle instances with the line.
    fn serve(&mut self, f: usize) {
        while !self.fleets[f].line.is_empty() {
            let now = self.now;
            let fleet = &mut self.fleets[f];
            let Some(instance) = fleet.idle.pop() else { return };
            let Some(arrived) = fleet.line.pop_front() else { return };
            self.totals.waited_s += (now - arrived).as_secs_f64();
            self.totals.idle_gib_s += self.rent(f, instance.since);
            let fleet = &mut self.fleets[f];
            fleet.busy += 1;
            fleet.keeper.working(fleet.busy, now);
            let took = self.functions[f].run.mul_f64(fleet.random.around_one(RUN_DEVIATION));
            self.at(now + took, f, Event::Done { took });
        }
    }

    fn rent(&self, f: usize, since: Instant) -> f64 {
        let until = self.now.min(self.start + self.length);
        until.saturating_duration_since(since).as_secs_f64() * f64::from(self.functions[f].memory_mb) / 1024.0
    }

    /// Whether to start instances for the line.
    fn ask(&mut self, f: usize) {
        let fleet = &mut self.fleets[f];
        let census = Census {
            line: fleet.line.len(),
            running: fleet.busy,
            concurrency: 1,
            instances: fleet.busy + fleet.idle.len(),
            starting: fleet.starting,
            most: 1_000,
        };
        let answer = fleet.keeper.pilot.line(&census, fleet.cold, self.now);
        for _ in 0..answer.start {
            self.totals.cold_starts += 1;
            self.fleets[f].cold_starts += 1;
            self.start(f, None);
        }
        if let Some(again) = answer.again
            && !std::mem::replace(&mut self.fleets[f].looking, true)
        {
            self.at(self.now + again, f, Event::Look);
        }
    }

    fn start(&mut self, f: usize, ahead: Option<Instant>) {
        let memory = u64::from(self.functions[f].memory_mb);
        if let Some(budget) = self.policy.budget_mb()
            && self.held_mb + memory > budget
        {
            self.make_room(self.held_mb + memory - budget);
        }
        self.held_mb += memory;
        let fleet = &mut self.fleets[f];
        fleet.starting += 1;
        self.totals.peak = self.totals.peak.max(fleet.busy + fleet.idle.len() + fleet.starting);
        let ready = self.now + self.fleets[f].cold;
        if ahead.is_some() {
            // Nobody waits for it, so its start is idle time too.
            self.totals.idle_gib_s += self.fleets[f].cold.as_secs_f64() * memory as f64 / 1024.0;
        }
        self.at(ready, f, Event::Ready { ahead });
    }

    fn make_room(&mut self, need_mb: u64) {
        let all: Vec<(usize, u64, Candidate)> = self
            .fleets
            .iter()
            .enumerate()
            .flat_map(|(f, fleet)| {
                let memory_mb = self.functions[f].memory_mb;
                fleet.idle.iter().map(move |i| (f, i.number, Candidate { priority: i.priority, memory_mb }))
            })
            .collect();
        let candidates: Vec<Candidate> = all.iter().map(|a| a.2).collect();
        let gone = self.order.evict(&candidates, need_mb);
        if gone.is_empty() {
            self.totals.over_budget += 1;
        }
        for at in gone {
            let (f, number, _) = all[at];
            let place = self.fleets[f].idle.iter().position(|i| i.number == number);
            if let Some(place) = place {
                self.drop_idle(f, place);
            }
        }
    }

    fn drop_idle(&mut self, f: usize, place: usize) {
        let gone = self.fleets[f].idle.remove(place);
        self.totals.idle_gib_s += self.rent(f, gone.since);
        self.held_mb -= u64::from(self.functions[f].memory_mb);
    }

    fn judge_newest(&mut self, f: usize) {
        if let Some(idle) = self.fleets[f].idle.last().map(|i| i.number) {
            self.check(f, idle);
        }
    }

    fn check(&mut self, f: usize, number: u64) {
        let now = self.now;
        let scheduled = self.scheduled(f);
        let fleet = &mut self.fleets[f];
        let Some(place) = fleet.idle.iter().position(|i| i.number == number) else { return };
        let level = fleet.busy + fleet.idle.len() - place;
        let idle = Idle { level, since: fleet.idle[place].since, busy: fleet.busy };
        let terms = Terms {
            cold: fleet.cold,
            memory_mb: self.functions[f].memory_mb,
            price: Price::default(),
            most: KEEP_ALIVE,
            scheduled,
        };
        match fleet.keeper.judge(idle, &terms, now) {
            Verdict::Keep { until } => self.at(until.max(now), f, Event::Check { idle: number }),
            Verdict::LetGo { return_at } => {
                self.drop_idle(f, place);
                self.come_back(f, return_at);
            }
        }
    }

    fn come_back(&mut self, f: usize, back: Option<Return>) {
        let fleet = &self.fleets[f];
        if let Some(Return { at, until }) = back
            && fleet.busy + fleet.starting + fleet.idle.len() == 0
        {
            self.at(at.max(self.now), f, Event::Return { epoch: fleet.epoch, until });
        }
    }

    /// The first instant of the function's schedule that has not been called for yet.
    fn scheduled(&self, f: usize) -> Option<Instant> {
        let (period, phase) = self.functions[f].schedule?;
        let last = self.fleets[f].last_call.map_or(Duration::ZERO, |last| last - self.start);
        let gone = last.checked_sub(phase).map_or(0, |since| since.as_secs() / period.as_secs() + 1);
        Some(self.start + phase + period * gone as u32)
    }

    fn close(mut self) -> Totals {
        self.now = self.start + self.length;
        for f in 0..self.fleets.len() {
            while !self.fleets[f].idle.is_empty() {
                self.drop_idle(f, 0);
            }
        }
        let called = self.fleets.iter().filter(|f| f.next_call > 0);
        let mut shares: Vec<f64> = called.map(|f| f.cold_starts as f64 / f.next_call as f64).collect();
        shares.sort_by(f64::total_cmp);
        self.totals.p75_cold = shares.get(shares.len() * 3 / 4).copied().unwrap_or_default();
        self.totals
    }
}
