#!/usr/bin/env bash
# Adds a second node to the running cluster, or removes it, in order or as a machine that loses its power. It lives on the same host, in a
# network namespace of its own, with a containerd, a kubelet and a kube-proxy of its own. Usage: see scripts/cluster.sh, which calls this as root.
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/cluster/network.sh
source "$CLUSTER_SOURCES/network.sh"
# shellcheck source=tests/cluster/node.sh
source "$CLUSTER_SOURCES/node.sh"

NODE="node-2"

add() {
    if part_alive "kubelet-$NODE"; then
        say "$NODE is there already"
        return
    fi
    trap '[[ $? == 0 ]] || take_away' EXIT
    phase "$NODE: network, containerd"
    start_runtime "$NODE"
    import_images "$NODE"
    phase "$NODE: ready"
    start_kubelet "$NODE" zone-b
    await_node "$NODE"
    phase
    trap - EXIT
}

take_away() {
    stop_node "$NODE"
    unmount_below "$CLUSTER_DIR/$NODE"
    unmount_below "$RUN_DIR/$NODE"
    remove_cgroups "$NODE"
    rm -rf "${RUN_DIR:?}/$NODE" "$CLUSTER_DIR/$NODE/kubelet"
}

remove() {
    admin delete node "$NODE" --ignore-not-found > /dev/null
    take_away
    say "$NODE is gone"
}

# The cluster still lists it, and nobody hears of it any more. `remove` clears away what is left.
lose() {
    part_alive "kubelet-$NODE" || fail "there is no $NODE to lose"
    ip link set "dvk-$NODE" down
    stop_parts 0 "kubelet-$NODE"
    kill_pods "$NODE"
    say "$NODE is lost"
}

case ${1:-} in
    add) add ;;
    remove) remove ;;
    lose) lose ;;
    *) fail 'usage: scripts/cluster.sh node add|remove|lose' ;;
esac
