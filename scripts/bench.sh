#!/usr/bin/env bash
# Measures davit beside nginx and plain Docker, interleaved in one run. Arguments go to the bench (see --help).
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
scripts/setup-packages.sh rust cc curl postgres nginx
scripts/setup-docker.sh
scripts/build-agent.sh
scripts/images.sh
cargo build --release --bin davit
cargo run --release --quiet -p davit-bench -- "$@"
