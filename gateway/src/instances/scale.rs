//! Carries out what `davit_scaling` decides for one fleet: starts for the line, starts ahead of calls, and the
//! instances that stay whoever calls. What is idle and goes is in `upkeep.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::FunctionId;
use davit_scaling::fleet::Census;
use davit_scaling::gather::Here;
use davit_scaling::keep_alive::{Price, Terms, Verdict};
use davit_scaling::scale_in::Limits;

use crate::instances::start::{self, Reason};
use crate::instances::state::{Learnt, Member, State};
use crate::instances::{Fleet, SWEEP};

impl Fleet {
    /// To be called after every change of line, members or calls: tells the pilot, and starts what the line is
    /// worth. On the way of every call, so nothing here allocates unless something is started.
    pub(super) fn look(self: &Arc<Self>, state: &mut State, now: Instant) {
        let (busy, in_use) = (state.busy(), state.in_use());
        state.learnt.pilot.working(busy, in_use, now);
        let census = self.census(state);
        let cold = self.cold(state);
        let answer = state.learnt.pilot.line(&census, cold, now);
        for _ in 0..answer.start {
            self.start(state, Reason::Line);
        }
        if let Some(again) = answer.again
            && !std::mem::replace(&mut state.looking, true)
        {
            self.look_again_in(again);
        }
    }

    fn census(&self, state: &State) -> Census {
        Census {
            line: state.line.len(),
            running: state.in_use(),
            concurrency: self.concurrency(),
            instances: state.staying(),
            starting: state.starting,
            most: state.bounds.most,
        }
    }

    /// What there is for one more call.
    pub(super) fn place(&self) -> Here {
        let state = self.state.lock();
        let concurrency = self.concurrency();
        let free = state.line.is_empty() && state.members.iter().any(|m| m.has_room(concurrency));
        // Another one can be started at once, or waiting here is better than a start elsewhere.
        let pooled = || self.shared.pools.ready(&self.version.pool_key) > state.starting;
        let waits = || {
            let cold = self.cold(&state);
            !state.members.is_empty() && !state.learnt.pilot.lacks(&self.census(&state), cold, Instant::now())
        };
        let room = (state.held() < state.bounds.most && pooled()) || waits();
        Here { free, room, any: state.held() > 0, may: state.bounds.most > 0 }
    }

    /// An estimate can be wrong, and a call can hang; at most one such look is due at a time.
    fn look_again_in(self: &Arc<Self>, again: Duration) {
        let fleet = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(again).await;
            let Some(fleet) = fleet.upgrade() else { return };
            let mut state = fleet.state.lock();
            state.looking = false;
            fleet.look(&mut state, Instant::now());
        });
    }

    pub(super) fn start(self: &Arc<Self>, state: &mut State, reason: Reason) {
        state.starting += 1;
        tokio::spawn(start::run(self.clone(), reason));
    }

    /// What one more start takes now. The pool is asked only when somebody waits: its lock is everyone's.
    fn cold(&self, state: &State) -> Duration {
        let ready = || self.shared.pools.ready(&self.version.pool_key) > state.starting;
        state.learnt.cold(state.line.is_empty() || ready())
    }

    /// Judges the idle members that are due, in the order in which they would get a call. Returns those that go;
    /// they are members no longer.
    pub(super) fn judge_idle(&self, state: &mut State, now: Instant) -> Vec<Member> {
        let due = |m: &Member| m.is_idle() && m.judge_at <= now;
        if !state.members.iter().any(due) {
            return Vec::new();
        }
        let mut idle: Vec<usize> =
            (0..state.members.len()).filter(|at| state.members[*at].in_use == 0).collect();
        idle.sort_by_key(|at| std::cmp::Reverse(state.members[*at].place()));
        let (limits, terms) = (self.limits(state), self.terms(state));
        let (mut gone, mut back) = (Vec::new(), None);
        for (rank, at) in idle.into_iter().enumerate() {
            let member = &mut state.members[at];
            if !due(member) {
                continue;
            }
            let level = limits.busy + rank + 1;
            match state.learnt.pilot.judge(level, member.idle_since, limits, &terms, now) {
                Verdict::Keep { until } => member.judge_at = until,
                Verdict::LetGo { return_at } => {
                    gone.push(at);
                    back = return_at.or(back);
                }
            }
        }
        // From the end, since the last member takes the place of one that goes.
        gone.sort_unstable_by(|a, b| b.cmp(a));
        let gone: Vec<Member> = gone.into_iter().map(|at| state.take_out(at)).collect();
        if state.is_empty() {
            state.returning = back;
        }
        gone
    }

    fn limits(&self, state: &State) -> Limits {
        Limits {
            concurrency: self.concurrency(),
            busy: state.busy(),
            provisioned: state.bounds.least,
            most: state.bounds.most,
        }
    }

    fn terms(&self, state: &State) -> Terms {
        Terms {
            cold: state.learnt.usual(),
            memory_mb: self.version.spec.memory_mb,
            price: Price::default(),
            most: self.version.spec.keep_alive(),
            scheduled: self.shared.expected.of(self.version.function_id),
        }
    }

    /// Starts what is due though nobody waits: an emptied fleet's return, and what lacks to the minimum.
    pub(super) fn start_ahead(self: &Arc<Self>, state: &mut State, now: Instant) {
        let due = state.returning.take_if(|back| back.at <= now + SWEEP);
        if state.retired || state.breaker.refuses(now).is_some() {
            return;
        }
        if let Some(back) = due
            && state.is_empty()
            && state.bounds.most > 0
        {
            self.start(state, Reason::Ahead { until: back.until });
        }
        for _ in state.held()..state.bounds.least {
            self.start(state, Reason::Minimum);
        }
    }

    /// Whether it has something to do though nothing is there: it must not be forgotten.
    pub(super) fn expects(&self) -> bool {
        let state = self.state.lock();
        state.returning.is_some() || (self.version.spec.min_instances > 0 && !state.retired)
    }

    /// What it knows, for the next fleet of its function.
    pub(super) fn learnt(&self) -> (FunctionId, Learnt) {
        (self.version.function_id, self.state.lock().learnt.clone())
    }
}
