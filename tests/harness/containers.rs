//! An installation's containers, wherever they are.

use crate::cluster::Cluster;
use crate::docker;

/// Ids of all containers of an installation: running or not on an engine, all that are not being removed on a cluster.
pub fn containers_of(installation: &str) -> Vec<String> {
    match Cluster::chosen() {
        Some(cluster) => cluster.pods_of(installation, None),
        None => docker::containers_of(installation),
    }
}

/// The same, of one role: `instance`, `builder` or `smoke`.
pub fn containers_in_role(installation: &str, role: &str) -> Vec<String> {
    match Cluster::chosen() {
        Some(cluster) => cluster.pods_of(installation, Some(role)),
        None => docker::containers_in_role(installation, role),
    }
}
