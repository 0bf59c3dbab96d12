//! What is there and should not be: containers that ended or that nobody knows, and rows without a container.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use davit_api::{InstanceId, InstanceState};

use super::{Instance, Plan, Reason, Removal, World};
use crate::backend::{Observed, Role};

/// A start that has come to nothing for so long will not come.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

/// Judges one container, and the row it belongs to.
pub(super) fn container(
    world: &World,
    rows: &HashMap<InstanceId, &Instance>,
    container: &Observed,
    doomed: &mut HashSet<InstanceId>,
    plan: &mut Plan,
) {
    let id = container.instance;
    if world.removing_here.contains(&container.container) {
        doomed.extend(id);
        return;
    }
    let here = |set: &HashSet<InstanceId>| id.is_some_and(|id| set.contains(&id));
    let reason = match (container.role, id.and_then(|id| rows.get(&id))) {
        (Some(Role::Smoke | Role::Builder), _) if here(&world.own_errands) => None,
        (Some(Role::Smoke | Role::Builder), _) => Some(Reason::Leftover),
        _ if here(&world.starting_here) => None,
        (_, None) => Some(Reason::Unknown),
        (_, Some(row)) => instance(world, row, container, plan),
    };
    let Some(reason) = reason else { return };
    let has_row = id.is_some_and(|id| rows.contains_key(&id));
    doomed.extend(id);
    plan.remove.push(Removal { container: container.container.clone(), instance: id, has_row, reason });
}

fn instance(world: &World, row: &Instance, container: &Observed, plan: &mut Plan) -> Option<Reason> {
    let owner = world.gateways.iter().find(|g| g.id == row.gateway);
    if row.state == InstanceState::Released {
        Some(Reason::Released)
    } else if !container.running {
        Some(Reason::Died(container.status.clone()))
    } else if owner.is_none_or(|g| g.lost) {
        Some(Reason::GatewayLost)
    } else if row.state == InstanceState::Starting && row.age > START_LIMIT {
        Some(Reason::NeverReady)
    } else {
        if row.state == InstanceState::Starting {
            plan.watch.push((row.id, container.container.clone()));
        }
        None
    }
}

/// Judges the rows that have no container.
pub(super) fn rows(world: &World, doomed: &mut HashSet<InstanceId>, plan: &mut Plan) {
    let seen: HashSet<InstanceId> = world.containers.iter().filter_map(|c| c.instance).collect();
    for row in &world.instances {
        if seen.contains(&row.id) || world.starting_here.contains(&row.id) {
            continue;
        }
        plan.missing.insert(row.id);
        // The list of containers is read before the rows: one look can miss a container made in between.
        if world.missing_before.contains(&row.id) {
            doomed.insert(row.id);
            let reason =
                if row.state == InstanceState::Released { Reason::Released } else { Reason::Vanished };
            plan.close.push((row.id, reason));
        }
    }
}
