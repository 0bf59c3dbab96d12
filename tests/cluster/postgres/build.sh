#!/usr/bin/env bash
# Builds davit/postgres:latest in the local engine, for clusters that cannot pull the official image. Skips what has not changed.
source "$(dirname "$0")/../../../scripts/lib.sh"
source "$ROOT/scripts/images-lib.sh"

context=$WORK_DIR/context-postgres
need_engine
make_base
rm -rf "$context"
mkdir -p "$context/base"
make_site "$context/davit-site"
cp "$ROOT/tests/cluster/postgres/Dockerfile" "$ROOT/tests/cluster/postgres/start.sh" "$context"
cp "$ROOT/runtime-images/base/install.sh" "$context/base"
build_image davit/postgres:latest "$context" "$WORK_DIR/image-postgres.log"
rm -rf "$context"
