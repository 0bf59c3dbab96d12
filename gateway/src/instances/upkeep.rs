//! What happens to a fleet's instances between calls: frozen when idle, let go in the end.

use std::sync::Arc;
use std::time::Instant;

use davit_api::InstanceId;

use crate::instances::state::{Member, State};
use crate::instances::{Counts, Fleet};

impl Fleet {
    /// Freezes an instance that has been idle long enough; says when to look again otherwise.
    pub(super) fn freeze_if_idle(self: &Arc<Self>, id: InstanceId) -> Option<Instant> {
        let frozen = {
            let mut state = self.state.lock();
            let member = state.members.iter_mut().find(|m| m.instance.id == id)?;
            if !member.is_idle() || member.frozen {
                member.watched = false;
                return None;
            }
            let due = member.idle_since + self.shared.limits.freeze_after;
            if due > Instant::now() {
                return Some(due);
            }
            // Idle means that no call is thawing it, so the lock is free or held by the freeze before.
            let Ok(ice) = member.instance.ice.clone().try_lock_owned() else {
                return Some(Instant::now() + self.shared.limits.freeze_after);
            };
            member.watched = false;
            member.frozen = true;
            (member.instance.clone(), ice)
        };
        let (instance, ice) = frozen;
        self.shared.freeze(self, instance, ice);
        None
    }

    /// Whether it was frozen; it no longer is.
    pub(super) fn take_frozen(&self, id: InstanceId) -> bool {
        let mut state = self.state.lock();
        state.members.iter_mut().find(|m| m.instance.id == id).is_some_and(|m| std::mem::take(&mut m.frozen))
    }

    /// Lets go what is not worth its memory any more, and starts what is due ahead of a call; returns whether
    /// nothing at all is left or on its way.
    pub(super) fn expire(self: &Arc<Self>, now: Instant) -> bool {
        let (gone, retired, empty) = {
            let mut state = self.state.lock();
            let retired = state.retired;
            let mut gone = match retired {
                true => all_idle(&mut state),
                false => self.judge_idle(&mut state, now),
            };
            gone.extend(beyond(&mut state));
            self.start_ahead(&mut state, now);
            (gone, retired, state.is_empty())
        };
        for member in gone {
            self.shared.released(&member.instance, if retired { "superseded" } else { "idle" });
        }
        empty
    }

    /// Reads anew what other gateways leave to this one.
    pub(super) fn share_out(self: &Arc<Self>) {
        let gone = {
            let mut state = self.state.lock();
            let bounds = self.shared.peers.bounds(&self.version);
            if std::mem::replace(&mut state.bounds, bounds) == bounds {
                return;
            }
            let gone = beyond(&mut state);
            self.look(&mut state, Instant::now());
            gone
        };
        // A start that goes beyond the share is superfluous now.
        self.slack.notify_waiters();
        for member in gone {
            self.shared.released(&member.instance, "another gateway may have one in its place");
        }
    }

    /// Instances that are there or on their way.
    pub(super) fn held(&self) -> usize {
        self.state.lock().held()
    }

    /// Whether starting pauses after failures, which must not be forgotten with the fleet.
    pub(super) fn breaker_open(&self) -> bool {
        self.state.lock().breaker.refuses(Instant::now()).is_some()
    }

    /// Says whether the version is still live.
    pub(super) fn set_retired(&self, retired: bool) {
        let changed = std::mem::replace(&mut self.state.lock().retired, retired) != retired;
        if changed {
            // A start that is not for the line is superfluous now.
            self.slack.notify_waiters();
        }
    }

    /// Ends everything, for the end of the process.
    pub(super) fn close(&self) {
        let (members, line) = {
            let mut state = self.state.lock();
            state.retired = true;
            let members: Vec<Member> = (0..state.members.len()).rev().map(|at| state.take_out(at)).collect();
            (members, std::mem::take(&mut state.line))
        };
        drop(line);
        self.slack.notify_waiters();
        for member in members {
            self.shared.released(&member.instance, "gateway shut down");
        }
    }

    /// Its numbers now.
    pub fn counts(&self) -> Counts {
        let state = self.state.lock();
        let frozen = state.members.iter().filter(|m| m.frozen).count();
        Counts {
            active: state.members.len() - frozen,
            frozen,
            starting: state.starting,
            waiting: state.line.len(),
            in_use: state.in_use(),
        }
    }
}

/// Takes out idle members until there are no more than there may be; those that would get a call last go first.
fn beyond(state: &mut State) -> Vec<Member> {
    let mut gone = Vec::new();
    while state.staying() > state.bounds.most {
        let idle = (0..state.members.len()).filter(|at| state.members[*at].is_idle());
        let Some(last) = idle.min_by_key(|at| state.members[*at].place()) else { break };
        gone.push(state.take_out(last));
    }
    gone
}

/// Takes out every member without calls.
fn all_idle(state: &mut State) -> Vec<Member> {
    // From the end, since the last member takes the place of one that goes.
    let idle: Vec<usize> =
        (0..state.members.len()).rev().filter(|at| state.members[*at].in_use == 0).collect();
    idle.into_iter().map(|at| state.take_out(at)).collect()
}
