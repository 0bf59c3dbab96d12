//! One life of a queue with its gateways, from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::chance::Chance;
use crate::rules::{End, Outcome, Queue, Wish};

/// Steps with faults; afterwards everybody is well, and everything must come to an end.
const STEPS: u32 = 120;
/// Simulated seconds within which it must: longest delay × most attempts, and what leases add.
const PATIENCE: u64 = 4_000;
const BEAT: u64 = 8;
/// A gateway that was silent for so long is given up by the controller.
const GIVEN_UP: u64 = 10;

/// What happened, over all lives.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    accepted: u64,
    pub(crate) kills: u64,
    freezes: u64,
    pub(crate) late_settlements: u64,
    /// Invocations that were started more than once.
    pub(crate) repeated: u64,
    cancelled: u64,
    dead: u64,
}

impl std::iter::Sum for Seen {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            accepted: a.accepted + b.accepted,
            kills: a.kills + b.kills,
            freezes: a.freezes + b.freezes,
            late_settlements: a.late_settlements + b.late_settlements,
            repeated: a.repeated + b.repeated,
            cancelled: a.cancelled + b.cancelled,
            dead: a.dead + b.dead,
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accepted, {} kills, {} freezes, {} late settlements refused, {} repeated, {} cancelled, {} dead; none lost, none ended twice",
            self.accepted,
            self.kills,
            self.freezes,
            self.late_settlements,
            self.repeated,
            self.cancelled,
            self.dead
        )
    }
}

/// A job in a gateway's memory.
struct Work {
    receipt: (u64, u32),
    done_at: u64,
    outcome: Outcome,
}

struct Gateway {
    id: u64,
    /// Does nothing until then: stopped by a signal, starved, or cut off from the database.
    frozen_until: u64,
    seen_at: u64,
    beat_at: u64,
    work: Vec<Work>,
}

struct Life {
    chance: Chance,
    queue: Queue,
    gateways: Vec<Gateway>,
    /// Killed ones that the controller still counts, and when it gives them up.
    ghosts: Vec<(u64, u64)>,
    ids: u64,
    promised: BTreeMap<u64, Wish>,
    cancel_wished: BTreeSet<u64>,
    /// Starts of each; an attempt is started by one gateway only.
    started: BTreeSet<(u64, u32)>,
    seen: Seen,
}

/// Lives it; panics with the seed where a promise is broken.
pub(crate) fn live(seed: u64) -> Seen {
    let lived = std::panic::catch_unwind(|| Life::new(seed).run());
    lived.unwrap_or_else(|_| panic!("a promise was broken: DAVIT_MODEL_SEED={seed}"))
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut life = Self {
            chance: Chance::new(seed),
            queue: Queue::default(),
            gateways: Vec::new(),
            ghosts: Vec::new(),
            ids: 0,
            promised: BTreeMap::new(),
            cancel_wished: BTreeSet::new(),
            started: BTreeSet::new(),
            seen: Seen::default(),
        };
        for _ in 0..1 + life.chance.below(3) {
            life.start_gateway();
        }
        life
    }

    fn start_gateway(&mut self) {
        self.ids += 1;
        let now = self.queue.now;
        self.gateways.push(Gateway {
            id: self.ids,
            frozen_until: now,
            seen_at: now,
            beat_at: now,
            work: Vec::new(),
        });
    }

    fn run(mut self) -> Seen {
        for _ in 0..STEPS {
            self.client();
            self.fault();
            self.second(true);
        }
        let end = self.queue.now + PATIENCE;
        for gateway in &mut self.gateways {
            gateway.frozen_until = 0;
        }
        while !self.queue.jobs.is_empty() {
            assert!(self.queue.now < end, "these never end: {:?}", self.queue.jobs);
            self.second(false);
        }
        self.judge();
        self.seen
    }

    fn client(&mut self) {
        if self.chance.percent(35) {
            let wish = Wish {
                key: self.chance.percent(50).then(|| self.chance.below(3) as u8),
                priority: self.chance.below(3) as u8,
                delay: if self.chance.percent(20) { self.chance.below(60) } else { 0 },
                max_attempts: 1 + self.chance.below(4) as u32,
            };
            let id = self.queue.accept(wish);
            self.promised.insert(id, wish);
            self.seen.accepted += 1;
        }
        if self.chance.percent(4) && !self.promised.is_empty() {
            let nth = self.chance.below(self.promised.len() as u64) as usize;
            let id = *self.promised.keys().nth(nth).unwrap();
            if self.queue.jobs.contains_key(&id) {
                self.cancel_wished.insert(id);
            }
            self.queue.cancel(id);
        }
    }

    fn fault(&mut self) {
        let (now, which) = (self.queue.now, self.chance.below(self.gateways.len() as u64) as usize);
        if self.chance.percent(3) {
            // Killed, and started again under a new id; the next one may find the old one's file at once.
            let dead = self.gateways.swap_remove(which);
            let after = if self.chance.percent(50) { 0 } else { GIVEN_UP };
            self.ghosts.push((dead.id, now + after));
            self.start_gateway();
            self.seen.kills += 1;
        } else if self.chance.percent(4) {
            self.gateways[which].frozen_until = now + self.chance.below(70);
            self.seen.freezes += 1;
        }
    }

    fn second(&mut self, faulty: bool) {
        self.queue.now += 1;
        let now = self.queue.now;
        self.controller();
        for n in 0..self.gateways.len() {
            if self.gateways[n].frozen_until > now {
                continue;
            }
            self.gateways[n].seen_at = now;
            if self.gateways[n].beat_at <= now {
                let receipts: Vec<_> = self.gateways[n].work.iter().map(|w| w.receipt).collect();
                self.queue.renew(self.gateways[n].id, &receipts);
                self.gateways[n].beat_at = now + BEAT;
            }
            self.settle(n, faulty);
            self.queue.reclaim();
            self.claim(n, faulty);
        }
        self.check();
    }

    fn controller(&mut self) {
        let now = self.queue.now;
        for gateway in &self.gateways {
            if now - gateway.seen_at >= GIVEN_UP {
                self.queue.drop_gateway(gateway.id);
            }
        }
        for (id, at) in std::mem::take(&mut self.ghosts) {
            if at <= now { self.queue.drop_gateway(id) } else { self.ghosts.push((id, at)) }
        }
    }

    fn settle(&mut self, n: usize, faulty: bool) {
        let now = self.queue.now;
        for work in std::mem::take(&mut self.gateways[n].work) {
            let stopped = self.queue.jobs.get(&work.receipt.0).is_some_and(|job| job.cancel);
            if work.done_at > now && !stopped {
                self.gateways[n].work.push(work);
                continue;
            }
            let outcome = if work.done_at > now { Outcome::End(End::Cancelled) } else { work.outcome };
            let good = self.queue.settle(work.receipt, outcome);
            self.seen.late_settlements += u64::from(!good);
            if faulty && self.chance.percent(10) {
                // The answer was lost: asked again, nothing may change.
                let before = (self.queue.jobs.clone(), self.queue.ends.len());
                assert!(!self.queue.settle(work.receipt, outcome), "a receipt was good twice");
                assert!(before == (self.queue.jobs.clone(), self.queue.ends.len()));
            }
        }
    }

    fn claim(&mut self, n: usize, faulty: bool) {
        let room = 4_usize.saturating_sub(self.gateways[n].work.len());
        let id = self.gateways[n].id;
        for receipt in self.queue.claim(id, room) {
            assert!(self.started.insert(receipt), "{receipt:?} was given out twice");
            self.seen.repeated += u64::from(receipt.1 == 2);
            let takes =
                if faulty && self.chance.percent(20) { self.chance.below(50) } else { self.chance.below(3) };
            let job = &self.queue.jobs[&receipt.0];
            let outcome = match self.chance.below(10) {
                0 | 1 if job.attempt < job.max_attempts => Outcome::Again(self.chance.below(90)),
                0 => Outcome::End(End::Dead),
                _ => Outcome::End(End::Succeeded),
            };
            self.gateways[n].work.push(Work { receipt, done_at: self.queue.now + takes, outcome });
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        for key in 0..3 {
            let of_key = || self.queue.jobs.values().filter(|job| job.key == Some(key));
            assert!(of_key().filter(|job| job.lease.is_some()).count() <= 1, "two of key {key} run");
            // The first has its turn, and no other: neither stuck nor overtaken.
            assert!(
                of_key().enumerate().all(|(n, job)| job.in_turn == (n == 0)),
                "key {key}: {:?}",
                self.queue.jobs
            );
        }
        for id in self.promised.keys() {
            let (open, over) = (self.queue.jobs.contains_key(id), self.queue.ended.contains_key(id));
            assert!(open != over, "{id} is open: {open}, over: {over}");
        }
    }

    /// What must hold when all is over.
    fn judge(&mut self) {
        assert_eq!(self.queue.ended.len(), self.promised.len());
        for (id, (end, attempt)) in &self.queue.ended {
            let starts = self.started.range((*id, 0)..=(*id, u32::MAX)).count() as u32;
            assert_eq!(starts, *attempt, "{id}: every start is counted");
            match end {
                End::Succeeded => assert!(*attempt > 0, "{id} succeeded and never ran"),
                End::Cancelled => {
                    assert!(self.cancel_wished.contains(id), "nobody wished {id} to end");
                    self.seen.cancelled += 1;
                }
                End::Dead => self.seen.dead += 1,
            }
        }
        for key in 0..3 {
            // Cancelled ones may leave the line early; the others end in the order of their acceptance.
            let order: Vec<u64> =
                self.queue.ends.iter().copied().filter(|id| self.promised[id].key == Some(key)).collect();
            let kept: Vec<u64> =
                order.into_iter().filter(|id| self.queue.ended[id].0 != End::Cancelled).collect();
            assert!(kept.is_sorted(), "key {key} was overtaken: {kept:?}");
        }
    }
}
