#!/usr/bin/env bash
# Prints the path of a Helm: DAVIT_HELM, or the one on PATH, or else one that is built from its Go module (about two minutes, once).
source "$(dirname "$0")/lib.sh"

if [[ -n ${DAVIT_HELM:-} ]]; then
    printf '%s\n' "$DAVIT_HELM"
elif have helm; then
    command -v helm
else
    "$ROOT/tests/cluster/build.sh" helm | sed -n 's/^helm \(.*\)/\1\/helm/p'
fi
