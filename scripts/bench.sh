#!/usr/bin/env bash
# Measures davit beside nginx, plain Docker and bare interpreters, interleaved in one run, and leaves bench/results/latest.json
# and latest.svg. Usage: scripts/bench.sh [--list] [scenario...] [--repeats N]; what a scenario compares: docs/performance.md
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

build_bench() {
    scripts/setup-packages.sh rust cc
    cargo build --release --quiet -p davit-bench
}

# AWS's own emulator is the control for handlers where Go can build it; it is fetched, never committed. Prints its path.
emulator() {
    local folder=$WORK_DIR/emulator module=github.com/aws/aws-lambda-runtime-interface-emulator
    local binary=$folder/aws-lambda-rie
    if [[ ! -x $binary ]]; then
        have go || return 0
        GOBIN=$folder CGO_ENABLED=0 GOFLAGS=-mod=mod timeout 180 go install "$module/cmd/aws-lambda-rie@latest" \
            > "$WORK_DIR/emulator.log" 2>&1 || return 0
    fi
    printf '%s\n' "$binary"
}

for argument in "$@"; do
    case $argument in
        --list | --help | -h) build_bench; exec "$TARGET/release/davit-bench" "$@" ;;
    esac
done

scripts/setup-packages.sh rust cc curl postgres nginx wrk
scripts/setup-docker.sh
scripts/build-agent.sh
scripts/images.sh
say "building davit and the bench (release)"
cargo build --release --quiet --bin davit
build_bench
# Static, so that it runs in every image.
machine=$(uname -m)-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --quiet -p davit-bench-native --target "$machine"
options=(--davit "$TARGET/release/davit" --native "$TARGET/$machine/release/davit-bench-native")
emulator=$(emulator)
[[ -z $emulator ]] || options+=(--emulator "$emulator")
exec "$TARGET/release/davit-bench" "${options[@]}" "$@"
