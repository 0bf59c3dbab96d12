//! The queue without a database: what each of its statements does, all at once, as Postgres does it.
//!
//! Times are whole seconds; two things of the same second are told apart by a counter, as the database's clock does.

use std::collections::BTreeMap;

pub(crate) const LEASE: u64 = 30;

/// An instant: seconds, and a counter within.
pub(crate) type At = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Dead,
    Cancelled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    End(End),
    /// Once more, so many seconds later.
    Again(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) key: Option<u8>,
    pub(crate) priority: u8,
    pub(crate) max_attempts: u32,
    pub(crate) attempt: u32,
    pub(crate) run_at: At,
    pub(crate) in_turn: bool,
    pub(crate) cancel: bool,
    /// The gateway and the end of its lease, while it runs.
    pub(crate) lease: Option<(u64, u64)>,
}

/// What an invocation is asked to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) key: Option<u8>,
    pub(crate) priority: u8,
    pub(crate) delay: u64,
    pub(crate) max_attempts: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) now: u64,
    ticks: u64,
    next: u64,
    /// By id, which is the order of acceptance.
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) ended: BTreeMap<u64, (End, u32)>,
    /// Ids in the order in which they ended.
    pub(crate) ends: Vec<u64>,
}

impl Queue {
    fn at(&mut self, seconds: u64) -> At {
        self.ticks += 1;
        (self.now + seconds, self.ticks)
    }

    fn due(&self, job: &Job) -> bool {
        job.lease.is_none() && job.in_turn && job.run_at.0 <= self.now
    }

    pub(crate) fn accept(&mut self, wish: Wish) -> u64 {
        let in_turn = wish.key.is_none() || self.jobs.values().all(|job| job.key != wish.key);
        let run_at = self.at(wish.delay);
        let Wish { key, priority, max_attempts, .. } = wish;
        self.next += 1;
        let job =
            Job { key, priority, max_attempts, attempt: 0, run_at, in_turn, cancel: false, lease: None };
        self.jobs.insert(self.next, job);
        self.next
    }

    /// Receipts of what was claimed, in the order of the claim.
    pub(crate) fn claim(&mut self, gateway: u64, n: usize) -> Vec<(u64, u32)> {
        let mut due: Vec<_> =
            self.jobs.iter().filter(|(_, job)| self.due(job)).map(|(id, j)| (*id, j)).collect();
        due.sort_by_key(|(_, job)| (std::cmp::Reverse(job.priority), job.run_at));
        let chosen: Vec<u64> = due.into_iter().take(n).map(|(id, _)| id).collect();
        let until = self.now + LEASE;
        chosen
            .into_iter()
            .map(|id| {
                let job = self.jobs.get_mut(&id).unwrap();
                job.attempt += 1;
                job.lease = Some((gateway, until));
                (id, job.attempt)
            })
            .collect()
    }

    pub(crate) fn renew(&mut self, gateway: u64, receipts: &[(u64, u32)]) {
        let until = self.now + LEASE;
        for (id, attempt) in receipts {
            if let Some(job) = self.jobs.get_mut(id)
                && job.attempt == *attempt
                && job.lease.is_some_and(|(holder, _)| holder == gateway)
            {
                job.lease = Some((gateway, until));
            }
        }
    }

    /// Whether the receipt was good.
    pub(crate) fn settle(&mut self, (id, attempt): (u64, u32), outcome: Outcome) -> bool {
        let good = self.jobs.get(&id).is_some_and(|job| job.attempt == attempt && job.lease.is_some());
        if good {
            match outcome {
                Outcome::End(end) => self.end(id, end),
                Outcome::Again(delay) => self.put_back(id, delay),
            }
        }
        good
    }

    fn put_back(&mut self, id: u64, delay: u64) {
        let run_at = self.at(delay);
        let job = self.jobs.get_mut(&id).unwrap();
        job.lease = None;
        job.run_at = run_at;
    }

    fn end(&mut self, id: u64, end: End) {
        let job = self.jobs.remove(&id).unwrap();
        assert!(self.ended.insert(id, (end, job.attempt)).is_none(), "{id} ended twice");
        self.ends.push(id);
        let now = self.at(0);
        if job.key.is_some()
            && let Some(next) = self.jobs.values_mut().find(|other| other.key == job.key)
            && !next.in_turn
        {
            next.in_turn = true;
            next.run_at = next.run_at.max(now);
        }
    }

    /// Puts back what is under a lapsed lease.
    pub(crate) fn reclaim(&mut self) {
        let now = self.now;
        self.free(move |_, until| until < now, true);
    }

    /// Puts back what a gateway holds that is given up.
    pub(crate) fn drop_gateway(&mut self, gateway: u64) {
        self.free(move |holder, _| holder == gateway, false);
    }

    fn free(&mut self, which: impl Fn(u64, u64) -> bool, may_end: bool) {
        let free: Vec<u64> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.lease.is_some_and(|(holder, until)| which(holder, until)))
            .map(|(id, _)| *id)
            .collect();
        let end = |job: &Job| match (job.cancel, may_end && job.attempt >= job.max_attempts) {
            (true, _) => Some(End::Cancelled),
            (false, true) => Some(End::Dead),
            (false, false) => None,
        };
        let (ends, again): (Vec<_>, Vec<_>) =
            free.into_iter().map(|id| (id, end(&self.jobs[&id]))).partition(|(_, end)| end.is_some());
        ends.into_iter().for_each(|(id, end)| self.end(id, end.unwrap_or(End::Dead)));
        again.into_iter().for_each(|(id, _)| self.put_back(id, 0));
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.lease.is_some() {
            job.cancel = true;
        } else {
            self.end(id, End::Cancelled);
        }
    }
}
