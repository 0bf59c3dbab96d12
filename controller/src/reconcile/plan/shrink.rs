//! What waits and is not needed any more: surplus, and instances of an image that was replaced.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use davit_api::{InstanceId, InstanceState};

use super::{Instance, Plan, Reason, Slot, World, current, goal, removal, slot};

/// A pool shrinks slower than it grows: what waits now may be claimed in a moment.
pub(super) const SHRINK_AFTER: Duration = Duration::from_secs(60);

/// Plans the removal of what has waited in vain for long.
pub(super) fn shrink(world: &World, doomed: &mut HashSet<InstanceId>, plan: &mut Plan) {
    let mut spare: BTreeMap<Slot, usize> = BTreeMap::new();
    let generic = |i: &&Instance| matches!(i.state, InstanceState::Pooled | InstanceState::Starting);
    for row in world.instances.iter().filter(generic).filter(|i| !doomed.contains(&i.id) && current(world, i))
    {
        *spare.entry(slot(row)).or_insert(0) += 1;
    }
    let mut waiting: Vec<_> = world.instances.iter().filter(|i| i.waits()).collect();
    waiting.sort_by_key(|i| std::cmp::Reverse(i.in_state));
    for row in waiting {
        if doomed.contains(&row.id) || row.in_state < SHRINK_AFTER {
            continue;
        }
        let surplus = current(world, row);
        let reason = if surplus { Reason::Surplus } else { Reason::OldImage };
        let Some(removal) = removal(world, row, reason) else { continue };
        if surplus {
            let have = spare.entry(slot(row)).or_insert(0);
            if *have <= goal(world, &slot(row)) {
                continue;
            }
            *have -= 1;
        }
        doomed.insert(row.id);
        plan.remove.push(removal);
    }
}
