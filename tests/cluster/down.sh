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
# It would wait for its clients for long; all of them are gone, and what it knows is thrown away.
stop_parts 1 kube-apiserver
stop_parts 10 etcd
unmount_below "$CLUSTER_DIR"
unmount_below "$RUN_DIR"
remove_cgroups
network_down
# Only what a kubelet and its like leave in them: sockets, links, empty folders.
while read -r folder; do
    [[ ! -d $folder ]] || find "$folder" -depth \( -type s -o -type l -o -type d \) -delete 2> /dev/null || true
done < <(cat "$RUN_DIR/made" 2> /dev/null)
rm -rf "$RUN_DIR" "$CLUSTER_DIR"/node-*/kubelet "$CLUSTER_DIR/etcd"
say 'the cluster is down'
