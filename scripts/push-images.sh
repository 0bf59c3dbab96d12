#!/usr/bin/env bash
# Pushes davit's image and those that functions run in to a registry, and writes their digests down as values of the chart.
# Usage: scripts/push-images.sh <registry>[/<path>] [name...]     names as scripts/images.sh takes them; default: all
#   scripts/push-images.sh registry.example.com/tools && helm install davit charts/davit -f target/images.yaml …
# The images must be there: scripts/davit-image.sh and scripts/images.sh all build them. Credentials are the engine's (docker login).
# DAVIT_IMAGE_TAG (default: davit's version) is their tag, DAVIT_IMAGE_VALUES (default: target/images.yaml) the file, and
# DAVIT_IMAGE_PULL_REGISTRY what the cluster calls the registry, when that is something else.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/images-lib.sh"

[[ $# -gt 0 ]] || fail "which registry? Usage: scripts/push-images.sh <registry>[/<path>] [name...]"
registry=${1%/}
shift
tag=${DAVIT_IMAGE_TAG:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")}
values=${DAVIT_IMAGE_VALUES:-$ROOT/target/images.yaml}
need_engine

every=()
for file in "$ROOT"/runtime-images/*/runtime.toml; do every+=("$(basename "$(dirname "$file")")"); done
names=()
for name in "${@:-all}"; do
    case $name in
        all) names+=("${every[@]}") ;;
        default) names+=(python3.13 node20 provided) ;;
        *) names+=("$name") ;;
    esac
done

# push <name without registry>: leaves the digest in DIGEST.
push() {
    local local_name=$1:latest remote=$registry/$1:$tag log=$WORK_DIR/push.log
    docker image inspect "$local_name" > /dev/null 2>&1 || fail "there is no image $local_name; build it with scripts/davit-image.sh or scripts/images.sh"
    docker tag "$local_name" "$remote"
    docker push "$remote" > "$log" 2>&1 || { tail -n 5 "$log" >&2; fail "$remote was not pushed (full log: $log)"; }
    DIGEST=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$log" | tail -n 1)
    [[ -n $DIGEST ]] || fail "the registry did not say the digest of $remote (full log: $log)"
    say "$remote@$DIGEST"
}
# entry <kind> <name>: a line of the values; or that the chart's own is not wanted.
entry() {
    if [[ " ${names[*]} " == *" $2 "* ]]; then
        push "davit/$1-$2"
        printf '  %s: {repository: davit/%s-%s, digest: "%s"}\n' "$2" "$1" "$2" "$DIGEST" >&3
    else
        printf '  %s: null\n' "$2" >&3
    fi
}

exec 3> "$values.new"
printf '# Images of davit %s, as pushed. Written by scripts/push-images.sh.\nimages:\n  registry: "%s"\n  tag: "%s"\n' "$tag" "${DAVIT_IMAGE_PULL_REGISTRY:-$registry}" "$tag" >&3
push davit/davit
printf '  davit: {digest: "%s"}\n' "$DIGEST" >&3
for kind in runtime build; do
    printf '%s:\n' "${kind/build/builder}s" >&3
    for name in "${every[@]}"; do
        builds=$(sed -n 's/^builds_for = .*/build/p' "$ROOT/runtime-images/$name/runtime.toml")
        [[ ${builds:-runtime} == "$kind" ]] || continue
        entry "$kind" "$name"
    done
done
exec 3>&-
mv "$values.new" "$values"
say "values for the chart: $values"
