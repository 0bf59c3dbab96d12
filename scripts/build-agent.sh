#!/bin/sh
# Builds the static agent and leaves it at target/agent/davit-agent, from where the images take it.
# Quick when nothing changed. The gnu target with a static C library does: there is no musl target everywhere.
set -eu
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-gnu
[ "$(uname -m)" = aarch64 ] && target=aarch64-unknown-linux-gnu
RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet -p davit-agent --profile agent --target "$target"
built="${CARGO_TARGET_DIR:-target}/$target/agent/davit-agent"
mkdir -p target/agent
# A new file only for new content: what copies it into images looks at the time.
if ! cmp -s "$built" target/agent/davit-agent; then
    cp "$built" target/agent/davit-agent.new
    mv target/agent/davit-agent.new target/agent/davit-agent
fi
