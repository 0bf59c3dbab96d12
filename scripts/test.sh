#!/usr/bin/env bash
# Runs the tests and ends with one line, `N passed, N failed, N skipped`, summed over what every runner itself printed.
# Usage: scripts/test.sh [fmt clippy doc deny scripts chart unit crates python node builds e2e cluster kubernetes install]
# Without groups: all of them, but for `unit`, which is the part of `crates` that needs no engine.
# A static check that prints no counts of its own counts as one test. Exit status 0 only if nothing failed.
source "$(dirname "$0")/lib.sh"
cd "$ROOT"
LOGS=$WORK_DIR/test-logs
mkdir -p "$LOGS"
PASSED=0 FAILED=0 SKIPPED=0 TOOK=0
SUMMARY=()

# count <name> <exit status> <passed> <failed> <skipped>: a runner that failed without a failed test counts as one.
count() {
    local name=$1 status=$2 passed=$3 failed=$4 skipped=$5
    if [[ $status != 0 && $failed == 0 ]]; then failed=1; fi
    PASSED=$((PASSED + passed)) FAILED=$((FAILED + failed)) SKIPPED=$((SKIPPED + skipped))
    SUMMARY+=("$(printf '%-18s %5d passed %4d failed %4d skipped %6d s' "$name" "$passed" "$failed" "$skipped" "$TOOK")")
}
# run <name> <command...>: output to the terminal and to a log; the status is left in STATUS, the seconds in TOOK.
run() {
    local name=$1 begun=$SECONDS
    shift
    printf '\n%s== %s%s  %s\n' "$BOLD" "$name" "$PLAIN" "$*"
    STATUS=0
    "$@" 2>&1 | tee "$LOGS/$name.log" || STATUS=${PIPESTATUS[0]}
    TOOK=$((SECONDS - begun))
}
check() {
    run "$@"
    if [[ $STATUS == 0 ]]; then count "$1" 0 1 0 0; else count "$1" "$STATUS" 0 1 0; fi
}
# sum <log> <sed expression that leaves numbers>
sum() { sed -nE "$2" "$LOGS/$1.log" | awk '{ n += $1 } END { print n + 0 }'; }

# Cargo prints one `test result:` line for each test binary.
cargo_tests() {
    run "$@"
    count "$1" "$STATUS" "$(sum "$1" 's/^test result: .* ([0-9]+) passed;.*/\1/p')" \
        "$(sum "$1" 's/^test result: .* ([0-9]+) failed;.*/\1/p')" "$(sum "$1" 's/^test result: .* ([0-9]+) ignored;.*/\1/p')"
}

# Python's unittest says at the end how many it ran, and how many of them failed.
count_unittest() {
    local ran failed skipped
    ran=$(sum "$1" 's/^Ran ([0-9]+) tests? in.*/\1/p')
    failed=$(($(sum "$1" 's/^FAILED .*failures=([0-9]+).*/\1/p') + $(sum "$1" 's/^FAILED .*errors=([0-9]+).*/\1/p')))
    skipped=$(sum "$1" 's/^(OK|FAILED) .*skipped=([0-9]+).*/\2/p')
    count "$1" "$STATUS" $((ran - failed - skipped)) "$failed" "$skipped"
}

# In the runtime's image, so that it is the interpreter that functions get, and without network.
in_image() {
    local image=$1 folder=$2
    shift 2
    docker run --rm --init --network none --user 993:993 --env HOME=/tmp \
        --volume "$ROOT/runtime-images/$folder:/src:ro" --entrypoint "$1" "$image" "${@:2}"
}

group_fmt() { check fmt cargo fmt --all --check; }
group_clippy() { check clippy cargo clippy --workspace --all-targets -- -D warnings; }
group_doc() { RUSTDOCFLAGS='-D warnings' check doc cargo doc --workspace --no-deps --document-private-items; }
group_deny() {
    scripts/setup-packages.sh cargo-deny
    check deny cargo deny --workspace check bans licenses sources
}
group_scripts() { check scripts bash -c 'for file in scripts/*.sh tests/cluster/*.sh tests/cluster/postgres/start.sh tests/chart/*.sh runtime-images/base/*.sh runtime-images/*/build runtime-images/base/tests/*.sh images/davit/build.sh .ci/run; do bash -n "$file" || exit 1; done'; }
group_unit() {
    scripts/setup-packages.sh postgres
    cargo_tests unit cargo test --workspace --exclude davit-e2e --no-fail-fast
}
# The same, and those that need an engine and the images.
group_crates() {
    scripts/setup-packages.sh postgres
    need_images default ruby3.3 php8.4
    DAVIT_TEST_DOCKER=required cargo_tests crates cargo test --workspace --exclude davit-e2e --no-fail-fast -- --include-ignored
}
group_python() {
    need_images python3.13
    run python in_image davit/runtime-python3.13 python3.13 python3 -B -m unittest discover -s /src/tests
    count_unittest python
}
# The part that asks an API server is skipped where none is named.
group_chart() {
    scripts/setup-packages.sh python3-yaml
    DAVIT_HELM=$(scripts/helm.sh) || { TOOK=0; count chart 1 0 1 0; return; }
    export DAVIT_HELM
    run chart python3 -B -m unittest discover -v -s tests/chart
    count_unittest chart
}
group_node() {
    need_images node20
    run node in_image davit/runtime-node20 node20 node --test --test-reporter=tap /src/tests/
    count node "$STATUS" "$(sum node 's/^# pass ([0-9]+)/\1/p')" \
        "$(($(sum node 's/^# fail ([0-9]+)/\1/p') + $(sum node 's/^# cancelled ([0-9]+)/\1/p')))" \
        "$(($(sum node 's/^# skipped ([0-9]+)/\1/p') + $(sum node 's/^# todo ([0-9]+)/\1/p')))"
}
group_builds() {
    need_images all
    local runtime kind
    for runtime in python3.13 node20 provided java21 ruby3.3 php8.4 go rust; do
        kind=runtime
        if [[ $runtime == go || $runtime == rust ]]; then kind=build; fi
        run "build-$runtime" in_image "davit/$kind-$runtime" base bash /src/tests/build.sh "$runtime"
        count "build-$runtime" "$STATUS" "$(grep -c '^ok ' "$LOGS/build-$runtime.log" || true)" \
            "$(grep -c '^not ok ' "$LOGS/build-$runtime.log" || true)" 0
    done
}
group_e2e() {
    scripts/setup-packages.sh postgres curl strace
    need_images all
    # Through the binary that is shipped; each story has a davit of its own, so not all at once.
    cargo build --bin davit || { TOOK=0; count e2e 1 0 1 0; return; }
    cargo_tests e2e cargo test -p davit-e2e --no-fail-fast -- --test-threads "${DAVIT_E2E_THREADS:-2}"
}

# What was begun here and is not over goes when this ends, however it ends.
CLUSTER_BUILD='' CLUSTER_OURS='' CLUSTER_READY=''
clean_up() {
    [[ -z $CLUSTER_BUILD ]] || kill -- "-$CLUSTER_BUILD" 2> /dev/null || true
    [[ -z $CLUSTER_OURS ]] || scripts/cluster.sh down || true
    CLUSTER_BUILD='' CLUSTER_OURS=''
}
trap clean_up EXIT

# The parts of a Kubernetes take minutes of a compiler; most other groups leave it some time.
build_cluster_aside() {
    [[ " ${groups[*]} " =~ \ (cluster|kubernetes|install)\  ]] || return 0
    # Where the kernel weighs sessions against each other, a process's own niceness says nothing outside of its session.
    setsid sh -c 'echo 19 > /proc/self/autogroup; exec nice -n 19 "$@"' sh \
        tests/cluster/build.sh kubernetes coredns policies pause probe > "$LOGS/cluster-build.log" 2>&1 &
    CLUSTER_BUILD=$!
}
await_cluster_build() {
    [[ -n $CLUSTER_BUILD ]] || return 0
    # Nobody else wants the processor now. Should it fail, the cluster's start says so once more.
    echo 0 2> /dev/null > "/proc/$CLUSTER_BUILD/autogroup" || true
    renice -n 0 -g "$CLUSTER_BUILD" > /dev/null 2>&1 || true
    wait "$CLUSTER_BUILD" || true
    CLUSTER_BUILD=
}

# A whole run has to end in time: what comes last is left out, and counted as skipped, where a machine is so slow that it would not.
LIMIT_MINUTES=${DAVIT_TEST_LIMIT:-88}
# in_time <name> <minutes that it takes>
in_time() {
    ((SECONDS + $2 * 60 < LIMIT_MINUTES * 60)) && return
    say "$1 takes about $2 min, and $((SECONDS / 60)) of $LIMIT_MINUTES are gone: left out. Run it alone: scripts/test.sh $1"
    TOOK=0
    count "$1" 0 0 0 1
    return 1
}

# A Kubernetes is started and used, gets a second node, and leaves nothing behind. One that runs already is used, and left running.
group_cluster() {
    in_time cluster 7 || return 0
    scripts/setup-packages.sh curl
    await_cluster_build
    run cluster tests/cluster/test.sh
    count cluster "$STATUS" "$(grep -c '^ok ' "$LOGS/cluster.log" || true)" "$(grep -c '^not ok ' "$LOGS/cluster.log" || true)" 0
}

# need_cluster: one that runs, with davit's images of this tree. Started here, it is taken down at the end.
need_cluster() {
    [[ -z $CLUSTER_READY ]] || return 0
    need_images default
    await_cluster_build
    if ! scripts/cluster.sh status > /dev/null 2>&1; then
        CLUSTER_OURS=yes
        scripts/cluster.sh up || return
    fi
    eval "$(scripts/cluster.sh env)"
    cargo build --bin davit || return
    DAVIT_BIN=${DAVIT_BIN:-$ROOT/target/debug/davit} scripts/davit-image.sh || return
    scripts/cluster.sh load davit/davit davit/runtime-python3.13 davit/runtime-node20 davit/runtime-provided || return
    CLUSTER_READY=yes
}

# A story of each kind, as they are told on the engine; the whole of them takes longer than all else here.
CLUSTER_STORIES=(first_function::a_lambda first_function::versions first_function::where isolation:: http::a_plain_http scale_to_zero:: schedule::a_moment asynchronous::outcomes
    tokens::secrets_reach kill::call roles::a_standby nodes:: other_sizes::)
# Pods instead of containers: the backend's own tests, and stories from one source with those of e2e.
group_kubernetes() {
    in_time kubernetes 13 || return 0
    TOOK=0
    need_cluster || { count kubernetes 1 0 1 0; return; }
    cargo_tests kubernetes cargo test --workspace --exclude davit-e2e --lib --no-fail-fast -- backend::kubernetes::tests
    cargo_tests cluster-stories cargo test -p davit-e2e --no-fail-fast --test stories -- \
        --test-threads "${DAVIT_CLUSTER_THREADS:-1}" "${CLUSTER_STORIES[@]}"
}
# davit by its chart, on the same cluster.
group_install() {
    in_time install 7 || return 0
    TOOK=0
    need_cluster || { count install 1 0 1 0; return; }
    # What the chart's own tests ask an API server.
    DAVIT_HELM=$(scripts/helm.sh) run chart-cluster python3 -B -m unittest discover -v -s tests/chart -p test_cluster.py
    count_unittest chart-cluster
    tests/cluster/postgres/build.sh
    DAVIT_BIN=${DAVIT_BIN:-$ROOT/target/debug/davit} run install tests/chart/install.sh
    count install "$STATUS" "$(grep -c '^ok ' "$LOGS/install.log" || true)" "$(grep -c '^not ok ' "$LOGS/install.log" || true)" 0
}

# need_images [name...]: as scripts/images.sh takes them; each at most once a run.
IMAGES_DONE=' '
need_images() {
    local name missing=()
    for name in "${@:-default}"; do
        [[ $IMAGES_DONE == *" $name "* || $IMAGES_DONE == *' all '* ]] || missing+=("$name")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    scripts/setup-docker.sh
    scripts/build-agent.sh
    scripts/images.sh "${missing[@]}"
    IMAGES_DONE+="${missing[*]} "
}

groups=("$@")
[[ ${#groups[@]} -gt 0 ]] || groups=(fmt clippy doc deny scripts chart crates python node builds e2e cluster kubernetes install)
for group in "${groups[@]}"; do
    declare -F "group_$group" > /dev/null || fail "no group of tests called $group"
done
scripts/setup-packages.sh rust cc
build_cluster_aside
for group in "${groups[@]}"; do
    "group_$group"
done
# Before the last line, which is the sum.
clean_up

printf '\n'
printf '%s\n' "${SUMMARY[@]}"
printf 'all of it, with what had to be installed and built first, took %d min\n' $((SECONDS / 60))
printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
[[ $FAILED == 0 ]]
