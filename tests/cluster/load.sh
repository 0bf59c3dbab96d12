#!/usr/bin/env bash
# Brings images of the local engine to the cluster: pushes them to its registry, from where every node fetches them. A layer that is
# there already is neither pushed nor fetched again. In pods it is 127.0.0.1:15000/IMAGE. Usage: see scripts/cluster.sh, which calls this as root.
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"

[[ $# -gt 0 ]] || fail 'usage: scripts/cluster.sh load IMAGE...'
have docker && docker info > /dev/null 2>&1 || fail 'no container engine answers; run scripts/setup-docker.sh first'

# Where the cluster has an image: its name without a registry of its own, behind the cluster's.
in_cluster() {
    local name=$1
    [[ ${name##*/} == *:* ]] || name+=:latest
    if [[ $name == */* && ${name%%/*} == *[.:]* ]]; then name=${name#*/}; fi
    echo "$REGISTRY/$name"
}

for image in "$@"; do
    docker image inspect "$image" > /dev/null 2>&1 || fail "the engine has no image called $image"
done
for image in "$@"; do
    begun=$(now_ms)
    stored=$(in_cluster "$image")
    docker tag "$image" "$stored"
    docker push --quiet "$stored" > /dev/null || fail "$image could not be pushed to the cluster's registry"
    docker image rm "$stored" > /dev/null
    pushed=$(now_ms)
    for node in node-1 node-2; do
        part_alive "containerd-$node" || continue
        "$BIN/kubernetes" pull -runtime "$(node_runtime "$node")" -within 5m "$stored"
    done
    fetched=$(now_ms)
    printf '%s: pushed in %d.%d s, fetched in %d.%d s\n' "$image" $(((pushed - begun) / 1000)) $(((pushed - begun) % 1000 / 100)) \
        $(((fetched - pushed) / 1000)) $(((fetched - pushed) % 1000 / 100))
done
