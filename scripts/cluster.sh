#!/usr/bin/env bash
# A real Kubernetes on this host, for tests: one node, a second one on request, RBAC, DNS, and an image registry. tests/cluster/README.md
# tells more. Needs root for all but the build, and asks for it. Usage:
#   scripts/cluster.sh up                 start it, unless it runs; builds Kubernetes first if that was never done here
#   scripts/cluster.sh down               end it
#   scripts/cluster.sh status             what runs
#   scripts/cluster.sh env                shell lines that lead kubectl and helm to it:  eval "$(scripts/cluster.sh env)"
#   scripts/cluster.sh load IMAGE...      bring images of the local engine to its nodes
#   scripts/cluster.sh node add|remove    a second node, in a network of its own; `node lose`: as if its power failed
#   scripts/cluster.sh build              only build what it runs
# Its files are in $DAVIT_CLUSTER_DIR (default: target/cluster).
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/../tests/cluster/lib.sh"

as_cluster() {
    local why=$1
    shift
    as_root "$why" env "PATH=$PATH" "DAVIT_CLUSTER_DIR=$CLUSTER_DIR" "$@"
}
usage() { sed -n '/^#   scripts/s/^# //p' "$0" >&2; exit 2; }

up() {
    if [[ $(recorded_cluster) == "$CLUSTER_DIR" ]] && part_alive kube-apiserver; then
        say 'the cluster is up already'
    else
        "$ROOT/scripts/setup-packages.sh" etcd containerd runc cni docker-registry iptables ip conntrack ipset
        "$CLUSTER_SOURCES/build.sh" > "$WORK_DIR/cluster-built"
        as_cluster 'run a cluster' "$CLUSTER_SOURCES/up.sh" "$WORK_DIR/cluster-built"
    fi
    say "kubeconfig: $ADMIN"
    say "go on with:  eval \"\$(scripts/cluster.sh env)\" && kubectl get nodes"
}

status() {
    local file name
    if [[ $(recorded_cluster) != "$CLUSTER_DIR" ]]; then say 'down'; exit 1; fi
    for file in "$PIDS"/*.pid; do
        name=$(basename "$file" .pid)
        if part_alive "$name"; then
            printf '%-26s pid %-8s %5d MB\n' "$name" "$(cat "$file")" $(($(awk '/^VmRSS/ { print $2 }' "/proc/$(cat "$file")/status") / 1024))
        else
            printf '%-26s has ended; log: %s\n' "$name" "$LOGS/$name.log"
        fi
    done
    admin get nodes
}

case ${1:-} in
    up) up ;;
    down)
        if [[ $(recorded_cluster) != "$CLUSTER_DIR" ]]; then say 'no cluster runs here'; exit 0; fi
        as_cluster 'end the cluster' "$CLUSTER_SOURCES/down.sh"
        ;;
    status) status ;;
    env)
        need_cluster
        printf 'export KUBECONFIG=%q PATH=%q:"$PATH" DAVIT_TEST_CLUSTER=%q\n' "$ADMIN" "$BIN" "$CLUSTER_DIR"
        # Pods call the registry by an address that this host's engine would not push to without TLS.
        printf 'export DAVIT_CLUSTER_REGISTRY=%q DAVIT_IMAGE_PULL_REGISTRY=%q DAVIT_CLUSTER_POLICIES=enforced\n' "$REGISTRY" "$HOST_ADDRESS:$REGISTRY_PORT" ;;
    load) need_cluster; as_cluster 'bring images to nodes' "$CLUSTER_SOURCES/load.sh" "${@:2}" ;;
    node) need_cluster; as_cluster 'change nodes' "$CLUSTER_SOURCES/second-node.sh" "${@:2}" ;;
    build) "$CLUSTER_SOURCES/build.sh" ;;
    *) usage ;;
esac
