# shellcheck shell=bash disable=SC2034
# Shared by the scripts of the test cluster: sourced, not run. Bash.
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"

CLUSTER_SOURCES=$ROOT/tests/cluster
# Everything that a cluster writes, but for what must have a short path.
CLUSTER_DIR=$(realpath -m "${DAVIT_CLUSTER_DIR:-$ROOT/target/cluster}")
# What ends with the host: sockets, whose paths may have 107 bytes at most, pid files, containerd's mounts. One a host: it also
# says whose cluster runs.
RUN_DIR=/run/davit-cluster
BIN=$CLUSTER_DIR/bin CERTS=$CLUSTER_DIR/certs LOGS=$CLUSTER_DIR/logs PIDS=$RUN_DIR/pids
ADMIN=$CERTS/admin.kubeconfig

# One range for all of it, so that rules can say "the cluster" and "not the cluster". Node N has the address 10.213.0.N and the
# pods 10.214.N.0/24; the host, where the control plane runs, is one of their neighbours.
CLUSTER_RANGE=10.212.0.0/14 POD_RANGE=10.214.0.0/16 SERVICE_RANGE=10.215.0.0/16
NODE_BRIDGE=dvk-nodes HOST_ADDRESS=10.213.0.254
API_PORT=16443 ETCD_PORT=12379 REGISTRY_PORT=15000
REGISTRY=127.0.0.1:$REGISTRY_PORT
PAUSE_IMAGE=davit.local/pause:1 COREDNS_IMAGE=davit.local/coredns:1 PROBE_IMAGE=davit.local/probe:1

node_address() { echo "10.213.0.${1#node-}"; }
node_network() { echo "$RUN_DIR/$1/network"; }
node_runtime() { echo "$RUN_DIR/$1/containerd.sock"; }
admin() { "$BIN/kubectl" --kubeconfig "$ADMIN" "$@"; }
images_of() { "$BIN/ctr" --address "$(node_runtime "$1")" --namespace k8s.io images "${@:2}"; }

# The directory of the cluster that runs, or is said to run, on this host; empty if none.
recorded_cluster() { cat "$RUN_DIR/owner" 2> /dev/null || true; }

# need_cluster: ends with a hint unless the cluster of this directory runs.
need_cluster() {
    [[ $(recorded_cluster) == "$CLUSTER_DIR" ]] && part_alive kube-apiserver || fail "no cluster runs here; start one with: make cluster"
}

# start_part <name> <command...>: in a session of its own, with a log and a pid file.
start_part() {
    local name=$1
    shift
    setsid sh -c 'echo $$ > "$1"; shift; exec "$@"' sh "$PIDS/$name.pid" "$@" >> "$LOGS/$name.log" 2>&1 < /dev/null &
    disown
}
part_alive() { alive "$PIDS/$1.pid"; }

# stop_parts <seconds> <name...>: asks all of them to end, then insists.
stop_parts() {
    local seconds=$1 name pid
    shift
    for name in "$@"; do
        part_alive "$name" && kill -TERM "$(cat "$PIDS/$name.pid")" 2> /dev/null || true
    done
    for name in "$@"; do
        for _ in $(seq $((seconds * 20))); do
            part_alive "$name" || break
            sleep 0.05
        done
        if part_alive "$name"; then
            pid=$(cat "$PIDS/$name.pid")
            kill -KILL "$pid" 2> /dev/null || true
        fi
        rm -f "$PIDS/$name.pid"
    done
}

# wait_for <what> <seconds> <part> <command...>: until the command succeeds. If it does not, or the part has ended, the end of
# the part's log says why.
wait_for() {
    local what=$1 seconds=$2 part=$3 until
    shift 3
    until=$(($(now_ms) + seconds * 1000))
    # The pid file is written by the process itself.
    for _ in $(seq 40); do [[ -s $PIDS/$part.pid ]] && break; sleep 0.05; done
    until "$@" > /dev/null 2>&1; do
        part_alive "$part" || part_failed "$part" "$part has ended before $what"
        [[ $(now_ms) -lt $until ]] || part_failed "$part" "no $what within $seconds s"
        sleep 0.1
    done
}
part_failed() {
    note "the end of $LOGS/$1.log:" >&2
    tail -n 20 "$LOGS/$1.log" >&2
    fail "$2"
}

# phase [what]: says how long the phase before took, and begins the next.
PHASE='' PHASE_BEGUN=0
phase() {
    local took=$(($(now_ms) - PHASE_BEGUN))
    [[ -z $PHASE ]] || printf '  %-44s %3d.%d s\n' "$PHASE" $((took / 1000)) $((took % 1000 / 100))
    PHASE=${1:-} PHASE_BEGUN=$(now_ms)
}
