//! Instances whose machine wants them gone: it is drained, or needs the room for something else. They get no more
//! calls, keep those that they have, and another one starts in their place before they are gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use davit_api::InstanceId;

use crate::instances::Fleet;
use crate::instances::start::Reason;

/// What is on record about such an instance.
pub(super) const REASON: &str = "its machine wanted it gone";
/// For how long an instance is kept in the place of one that had calls.
const EXPECTED: Duration = Duration::from_secs(10);

impl Fleet {
    /// A member gets no more calls; without any, it goes at once.
    pub(super) fn leave(self: &Arc<Self>, id: InstanceId) {
        let gone = {
            let now = Instant::now();
            let mut state = self.state.lock();
            let Some(at) = state.position(id).filter(|at| !state.members[*at].leaving) else { return };
            let busy = state.members[at].in_use > 0;
            state.set_leaving(at);
            // What is idle is brought back by the next call, as after any other end.
            if busy && !state.retired {
                self.start(&mut state, Reason::Ahead { until: now + EXPECTED });
            }
            let gone = (!busy).then(|| state.take_out(at));
            self.look(&mut state, now);
            gone
        };
        if let Some(member) = gone {
            self.shared.released(&member.instance, REASON);
        }
    }
}
