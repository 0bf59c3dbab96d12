#!/usr/bin/env bash
# Builds the runtime images `davit/runtime-<name>:latest` in the local engine. Skips what has not changed, so it may be
# run at every start. Usage: scripts/images.sh [name...|all|default]
# Without a name, or with `default`: what most functions need (python3.13, node20, provided). `all`: every folder in runtime-images with
# a runtime.toml. An image of a compiled language (`builds_for` in its runtime.toml) is called `davit/build-<name>:latest`, and what its
# functions run in is built with it.
#
# Needs no image registry: if debian:trixie-slim can neither be found nor pulled, mmdebstrap makes it.
# What the site's network needs is taken from the environment, nothing of it is kept in the final images:
#   DAVIT_BUILD_CA_BUNDLE     certificates to trust (default: the host's own bundle)
#   DAVIT_BUILD_APT_SOURCES   a sources.list for trixie to use instead of Debian's own
#   HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST NPM_CONFIG_REGISTRY DAVIT_BUILD_MAVEN_MIRROR
#   DAVIT_AGENT               the agent binary to put in (default: target/agent/davit-agent, built if missing)
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/images-lib.sh"

IMAGES=$ROOT/runtime-images
DEFAULT=(python3.13 node20 provided)

# What the image of a compiled language builds for; nothing for the others.
builds_for() { sed -n 's/^builds_for = "\(.*\)"$/\1/p' "$IMAGES/$1/runtime.toml"; }

build() {
    local kind=runtime
    [[ -z $(builds_for "$1") ]] || kind=build
    local name=$1 context=$WORK_DIR/context-$1
    rm -rf "$context"
    mkdir -p "$context"
    cp -a "$IMAGES/$name/." "$context/"
    cp -a "$IMAGES/base" "$context/base"
    rm -rf "$context/tests" "$context/base/tests"
    make_site "$context/davit-site"
    install -m 0755 "$AGENT" "$context/davit-agent"
    build_image "davit/$kind-$name:latest" "$context" "$WORK_DIR/image-$name.log" --label "davit.runtime-toml=$(cat "$context/runtime.toml")"
    rm -rf "$context"
}

need_engine
need_agent

every=()
for file in "$IMAGES"/*/runtime.toml; do every+=("$(basename "$(dirname "$file")")"); done
names=()
for name in "${@:-default}"; do
    case $name in
        default) names+=("${DEFAULT[@]}") ;;
        all) names+=("${every[@]}") ;;
        *)
            [[ -f $IMAGES/$name/runtime.toml ]] || fail "no runtime called $name; there are: ${every[*]}"
            names+=("$name" $(builds_for "$name")) ;;
    esac
done
make_base
done=' '
for name in "${names[@]}"; do
    [[ $done != *" $name "* ]] || continue
    build "$name"
    done+="$name "
done
