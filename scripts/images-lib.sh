# What the scripts that build images share: sourced after lib.sh, not run. Bash.

BASE=debian:trixie-slim
AGENT=${DAVIT_AGENT:-$ROOT/target/agent/davit-agent}
# Of the environment, what builds of images get; images.sh says what each is.
PASSED_ON=(HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST NPM_CONFIG_REGISTRY
    DAVIT_BUILD_MAVEN_MIRROR)
export DOCKER_BUILDKIT=0 # the classic builder is in every engine; BuildKit needs a plugin

make_base() {
    docker image inspect "$BASE" > /dev/null 2>&1 && return
    say "base image: pulling $BASE (giving up after ${DAVIT_PULL_TIMEOUT:-20} s)"
    if timeout "${DAVIT_PULL_TIMEOUT:-20}" docker pull -q "$BASE" > "$WORK_DIR/pull.log" 2>&1; then return; fi
    note "  no image registry answered ($(tail -n 1 "$WORK_DIR/pull.log" | cut -c1-120))"
    "$ROOT/scripts/setup-packages.sh" mmdebstrap
    say "base image: making $BASE from Debian packages"
    local tar=$WORK_DIR/base.tar log=$WORK_DIR/mmdebstrap.log
    local -a mirror=()
    [[ -z ${DAVIT_BUILD_APT_SOURCES:-} ]] || mirror=("$DAVIT_BUILD_APT_SOURCES")
    as_root "make the base image" mmdebstrap --quiet --variant=minbase trixie "$tar" "${mirror[@]}" > "$log" 2>&1 ||
        { tail -n 20 "$log" >&2; fail "mmdebstrap could not make the base image (full log: $log)"; }
    docker import "$tar" "$BASE" > /dev/null
    rm -f "$tar"
}

# The site's settings, laid out as the Dockerfiles expect them.
make_site() {
    local site=$1 bundle=${DAVIT_BUILD_CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt} proxy
    mkdir -p "$site"
    echo "settings of this site for the image build; see scripts/images.sh" > "$site/README"
    if [[ -s $bundle ]]; then cp -L "$bundle" "$site/ca-bundle.crt"; fi
    if [[ -n ${DAVIT_BUILD_APT_SOURCES:-} ]]; then cp "$DAVIT_BUILD_APT_SOURCES" "$site/sources.list"; fi
    # A host that reaches its packages by a proxy has told its own apt about it.
    if have apt-config; then
        for proxy in http https; do
            apt-config dump --no-empty --format '%f "%v";%n' "Acquire::$proxy::Proxy" >> "$site/apt.conf" 2> /dev/null || true
        done
    fi
    chmod -R a+rX "$site"
}

need_engine() { have docker && docker info > /dev/null 2>&1 || fail "no container engine answers; run scripts/setup-docker.sh first"; }

need_agent() {
    if [[ ! -x $AGENT ]]; then "$ROOT/scripts/build-agent.sh"; fi
    [[ -s $AGENT ]] || fail "no agent at $AGENT"
}

# build_image <tag> <context> <log> [<argument of docker build>...]: skips what has not changed.
build_image() {
    local tag=$1 context=$2 log=$3 started=$(now_ms) hash before variable
    shift 3
    local -a args=()
    for variable in "${PASSED_ON[@]}"; do
        [[ -z ${!variable:-} ]] || args+=(--build-arg "$variable=${!variable}")
    done
    hash=$( (docker image inspect -f '{{.Id}}' "$BASE"; printf '%s\n' "${args[@]}"
        cd "$context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        find . -type f -perm -u+x | LC_ALL=C sort) | sha256sum | cut -c1-32)
    if [[ $(docker image inspect -f '{{index .Config.Labels "davit.content"}}' "$tag" 2> /dev/null) == "$hash" ]]; then
        say "$tag: unchanged"
        return
    fi
    before=$(docker image inspect -f '{{.Id}}' "$tag" 2> /dev/null || true)
    say "$tag: building"
    docker build --force-rm --label "davit.content=$hash" -t "$tag" "${args[@]}" "$@" "$context" > "$log" 2>&1 ||
        { tail -n 30 "$log" >&2; fail "$tag was not built (full log: $log)"; }
    # The one before goes, unless it has another name: davit gives one to what versions run in. Containers that still run from it
    # keep it, too.
    [[ -z $before || $(docker image inspect -f '{{len .RepoTags}}' "$before" 2> /dev/null) != 0 ]] || docker image rm "$before" > /dev/null 2>&1 || true
    say "$tag: built in $((($(now_ms) - started + 500) / 1000)) s, $(($(docker image inspect -f '{{.Size}}' "$tag") / 1000000)) MB"
}
