//! Which calls an instance has: what a function asks for, it asks for in the name of one of them.
//!
//! Every call passes through here, so a lock is held for a push or a removal and nothing is allocated: the list keeps
//! its room.

use std::sync::Arc;
use std::time::Instant;

use davit_api::InvocationId;
use parking_lot::Mutex;

use crate::call::{Call, Cause};

/// A call as those see it that it causes.
#[derive(Debug, Clone, PartialEq)]
pub struct Underway {
    /// Its id.
    pub id: InvocationId,
    /// When its budget ends.
    pub deadline: Instant,
    /// The trace it belongs to, when its caller named one.
    pub trace_id: Option<Arc<str>>,
    /// What caused it; none for what came from outside.
    pub cause: Option<Arc<Cause>>,
}

impl Underway {
    /// This call.
    pub fn of(call: &Call) -> Self {
        let Call { request_id, deadline, trace_id, cause, .. } = call;
        Self { id: *request_id, deadline: *deadline, trace_id: trace_id.clone(), cause: cause.clone() }
    }

    /// One from outside, without a trace.
    pub fn plain(id: InvocationId, deadline: Instant) -> Self {
        Self { id, deadline, trace_id: None, cause: None }
    }

    fn hops(&self) -> u8 {
        self.cause.as_ref().map_or(0, |cause| cause.lineage.hops)
    }
}

/// The calls of one instance.
#[derive(Default)]
pub struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    now: Vec<Underway>,
    /// The one that ended last.
    past: Option<Underway>,
}

/// In whose name an instance asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// In that of this call, which is under way.
    Call(Underway),
    /// In that of one of several: the furthest in its chain, and the end of the longest budget.
    OneOf {
        /// Hops of the furthest.
        hops: u8,
        /// The latest.
        deadline: Instant,
    },
    /// In that of a call that has ended, which a thread outlived.
    Past(Underway),
    /// In nobody's: it has had no call yet.
    Nobody,
}

impl Ledger {
    /// A call begins.
    pub fn enter(&self, call: Underway) {
        self.0.lock().now.push(call);
    }

    /// A call has ended.
    pub fn leave(&self, id: InvocationId) {
        let mut entries = self.0.lock();
        if let Some(at) = entries.now.iter().position(|call| call.id == id) {
            entries.past = Some(entries.now.swap_remove(at));
        }
    }

    /// In whose name the instance asks now. `named`: whom it says, which counts only if that is its own.
    pub fn standing(&self, named: Option<InvocationId>) -> Standing {
        let entries = self.0.lock();
        let is_named = |call: &&Underway| named == Some(call.id);
        if let Some(call) = entries.now.iter().find(is_named) {
            return Standing::Call(call.clone());
        }
        if let Some(past) = entries.past.as_ref().filter(is_named) {
            return Standing::Past(past.clone());
        }
        match entries.now.as_slice() {
            [] => entries.past.clone().map_or(Standing::Nobody, Standing::Past),
            [only] => Standing::Call(only.clone()),
            [first, more @ ..] => more.iter().fold(
                Standing::OneOf { hops: first.hops(), deadline: first.deadline },
                |furthest, call| match furthest {
                    Standing::OneOf { hops, deadline } => {
                        Standing::OneOf { hops: hops.max(call.hops()), deadline: deadline.max(call.deadline) }
                    }
                    other => other,
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use davit_api::Lineage;

    use super::*;

    fn call(hops: u8, seconds: u64, from: Instant) -> Underway {
        let cause = Cause { lineage: Lineage { hops, caller: None }, waiting: None };
        let deadline = from + Duration::from_secs(seconds);
        Underway { cause: Some(Arc::new(cause)), ..Underway::plain(InvocationId::new(), deadline) }
    }

    #[test]
    fn it_asks_in_the_name_of_its_only_call_and_of_the_last_one_afterwards() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let (one, two) = (call(1, 10, now), call(3, 5, now));
        assert_eq!(ledger.standing(Some(one.id)), Standing::Nobody, "somebody else's");
        ledger.enter(one.clone());
        assert_eq!(ledger.standing(None), Standing::Call(one.clone()));
        assert_eq!(
            ledger.standing(Some(two.id)),
            Standing::Call(one.clone()),
            "a foreign name changes nothing"
        );
        ledger.enter(two.clone());
        let both = Standing::OneOf { hops: 3, deadline: one.deadline };
        assert_eq!((ledger.standing(None), ledger.standing(Some(InvocationId::new()))), (both.clone(), both));
        assert_eq!(ledger.standing(Some(one.id)), Standing::Call(one.clone()));
        ledger.leave(one.id);
        ledger.leave(one.id);
        assert_eq!(ledger.standing(None), Standing::Call(two.clone()));
        assert_eq!(ledger.standing(Some(one.id)), Standing::Past(one));
        ledger.leave(two.id);
        assert_eq!(ledger.standing(None), Standing::Past(two));
    }
}
