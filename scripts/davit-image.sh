#!/usr/bin/env bash
# Builds davit's own image, `davit/davit:latest`, in the local engine: the one binary and the agent. Skips what has not changed.
# Usage: scripts/davit-image.sh [--from-source]
# Around binaries of this machine: DAVIT_BIN (default: target/release/davit, built if missing) and DAVIT_AGENT. With --from-source everything
# is compiled in the image's first stage, DAVIT_BUILDER_IMAGE (default: what images/davit/Dockerfile says); the site's network: images.sh.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/images-lib.sh"
cd "$ROOT"

context=$WORK_DIR/context-davit
log=$WORK_DIR/image-davit.log
need_engine
rm -rf "$context"
mkdir -p "$context"
make_site "$context/davit-site"
if [[ ${1:-} == --from-source ]]; then
    args=()
    [[ -z ${DAVIT_BUILDER_IMAGE:-} ]] || args+=(--build-arg "BUILDER=$DAVIT_BUILDER_IMAGE")
    make_base
    # What is committed or about to be, and nothing that was built.
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp -a --parents -t "$context"
    # Where Cargo is to look, if this site has its own index.
    if [[ -n ${DAVIT_BUILD_CARGO_INDEX:-} ]]; then
        printf '[source.crates-io]\nreplace-with = "site"\n[source.site]\nregistry = "%s"\n' "$DAVIT_BUILD_CARGO_INDEX" > "$context/davit-site/cargo.toml"
    fi
else
    davit=${DAVIT_BIN:-$ROOT/target/release/davit}
    if [[ ! -x $davit ]]; then
        scripts/setup-packages.sh rust cc
        say "building davit (release)"
        cargo build --release --quiet --bin davit
    fi
    need_agent
    make_base
    args=(--build-arg "BUILDER=$BASE")
    mkdir -p "$context/prebuilt"
    # Without what only a debugger reads.
    if have strip; then strip -o "$context/prebuilt/davit" "$davit"; else cp "$davit" "$context/prebuilt/davit"; fi
    cp "$AGENT" "$context/prebuilt/davit-agent"
    cp -a --parents images/davit runtime-images/base/install.sh "$context"
fi
build_image davit/davit:latest "$context" "$log" "${args[@]}" --file "$context/images/davit/Dockerfile"
rm -rf "$context"
