#!/usr/bin/env bash
# Ends the test cluster and takes back all that it added to the host. What stays are files: the logs, the images in its registry
# and in its nodes, for the next start. Usage: see scripts/cluster.sh, which calls this as root.
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/cluster/network.sh
source "$CLUSTER_SOURCES/network.sh"
# shellcheck source=tests/cluster/node.sh
source "$CLUSTER_SOURCES/node.sh"

[[ ${1:-} == quietly ]] && exec > /dev/null

if [[ $(recorded_cluster) != "$CLUSTER_DIR" ]]; then
    say 'no cluster runs here'
    exit 0
fi
for node in node-2 node-1; do stop_node "$node"; done
stop_parts 10 kube-controller-manager kube-scheduler registry registry-nodes
stop_parts 20 kube-apiserver
stop_parts 10 etcd
unmount_below "$CLUSTER_DIR"
unmount_below "$RUN_DIR"
remove_cgroups
network_down
rm -rf "$RUN_DIR" "$CLUSTER_DIR"/node-*/kubelet "$CLUSTER_DIR/etcd"
say 'the cluster is down'
