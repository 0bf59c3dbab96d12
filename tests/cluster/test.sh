#!/usr/bin/env bash
# Tests the test cluster: what it does (smoke.sh), with one node and with two, and that nothing of it stays on the host. A cluster that
# runs already is used as it is, and is left running. Usage: tests/cluster/test.sh
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
CLUSTER=$ROOT/scripts/cluster.sh

if [[ $(recorded_cluster) == "$CLUSTER_DIR" ]]; then
    "$CLUSTER_SOURCES/smoke.sh"
    exit
fi
"$CLUSTER" build > /dev/null
before=$WORK_DIR/footprint-before after=$WORK_DIR/footprint-after
"$CLUSTER_SOURCES/footprint.sh" > "$before"
trap '"$CLUSTER" down > /dev/null' EXIT
failed=0
"$CLUSTER" up
"$CLUSTER" up | grep -q 'up already' && echo 'ok - a cluster that runs is not started again' || { echo 'not ok - a cluster that runs is not started again'; failed=1; }
"$CLUSTER" node add
"$CLUSTER_SOURCES/smoke.sh" || failed=1
"$CLUSTER" node remove
"$CLUSTER" down
"$CLUSTER_SOURCES/footprint.sh" > "$after"
if diff "$before" "$after"; then echo 'ok - nothing of it stays on the host'; else echo 'not ok - nothing of it stays on the host'; failed=1; fi
exit "$failed"
