#!/usr/bin/env bash
# Builds what the test cluster runs, unless it is there already: Kubernetes, CoreDNS, Helm, and the images that the cluster itself
# needs. Prints the folder of each, a line `name folder`. Needs no root. Usage: tests/cluster/build.sh [name...]: all of it, or
# only what is named, such as helm.
# Built things are kept by the hash of what they are made from in ${XDG_CACHE_HOME:-~/.cache}/davit/cluster, so that only the first run
# of all checkouts pays.
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/davit/cluster
export CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' GOWORK=off

# content_of <folder> <function>: a hash of the folder's files and of what else the result depends on.
content_of() {
    (cd "$CLUSTER_SOURCES/$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        go env GOVERSION GOOS GOARCH
        declare -f "$2" make_image
        printf '%s\n' "$GOFLAGS" "$PAUSE_IMAGE" "$COREDNS_IMAGE" "$PROBE_IMAGE") | sha256sum | cut -c1-32
}

WANTED=("$@")
# cached <name> <source folder> <what it is> <function>: the function is called with a folder to write to and only if needed.
cached() {
    local name=$1 source=$2 what=$3 make=$4 target begun=$SECONDS
    [[ ${#WANTED[@]} == 0 || " ${WANTED[*]} " == *" $name "* ]] || return 0
    target=$CACHE/$(content_of "$source" "$make")
    if [[ ! -d $target ]]; then
        say "building $what" >&2
        local new=$target.new.$$ log=$WORK_DIR/cluster-$name.log
        rm -rf "$new"
        mkdir -p "$new"
        (cd "$CLUSTER_SOURCES/$source" && "$make" "$new") > "$log" 2>&1 || { tail -n 20 "$log" >&2; fail "$name was not built (full log: $log)"; }
        # Another checkout may have built the same meanwhile; either will do.
        mv -T "$new" "$target" 2> /dev/null || rm -rf "$new"
        say "  built in $((SECONDS - begun)) s" >&2
    fi
    printf '%s %s\n' "$name" "$target"
}

make_kubernetes() {
    local version major minor
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
    IFS=. read -r major minor _ <<< "${version#v}"
    # Without these, nodes say that they are v0.0.0.
    local stamp=k8s.io/component-base/version
    go build -o "$1/kubernetes" \
        -ldflags "-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor -X $stamp.gitTreeState=clean" .
}
make_policies() { go build -o "$1/kube-router" -ldflags '-s -w' github.com/cloudnativelabs/kube-router/v2/cmd/kube-router; }
make_helm() { go build -o "$1/helm" -ldflags '-s -w' helm.sh/helm/v4/cmd/helm; }
# Its part of a container runtime ends where it may not protect itself from the kernel's choice when memory is short, which a host need
# not allow (no CAP_SYS_RESOURCE). So it does not try.
make_sandbox() {
    local sources=$1/sources service=$1/sources/vendor/gvisor.dev/gvisor/pkg/shim/v1/service.go
    mkdir "$sources"
    cp go.mod go.sum "$sources"
    (cd "$sources" && go mod vendor) || return
    sed -i "s/oomScoreMaxKillable = -999$/oomScoreMaxKillable = 0/" "$service"
    grep -q "oomScoreMaxKillable = 0$" "$service" || return
    (cd "$sources" && go build -mod vendor -o "$1/" -ldflags '-s -w' gvisor.dev/gvisor/runsc gvisor.dev/gvisor/shim) || return
    mv "$1/shim" "$1/containerd-shim-runsc-v1"
    rm -rf "$sources"
}
make_coredns() {
    go build -o "$1/coredns" -ldflags '-s -w' . || return
    make_image "$1" coredns "$COREDNS_IMAGE" 65532
}
make_probe() {
    go build -o "$1/probe" -ldflags '-s -w' . || return
    make_image "$1" probe "$PROBE_IMAGE" 65532
}
make_pause() {
    cc -static -Os -s -o "$1/pause" pause.c || return
    make_image "$1" pause "$PAUSE_IMAGE" 65535
}

# make_image <folder> <program> <name> <user id>: an image with one static program, as `docker save` would write it, into
# <folder>/<program>.tar. So the cluster itself needs no container engine to be built.
make_image() {
    local folder=$1 program=$2 name=$3 user=$4 parts=$1/parts arch layer config
    arch=$(go env GOARCH)
    mkdir -p "$parts/root/etc"
    install -m 0755 "$folder/$program" "$parts/root/$program"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$parts/root" -cf "$parts/layer.tar" .
    layer=$(sha256sum < "$parts/layer.tar" | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":{"User":"%s:%s","Entrypoint":["/%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$arch" "$user" "$user" "$program" "$layer" > "$parts/config.json"
    config=$(sha256sum < "$parts/config.json" | cut -d' ' -f1)
    mv "$parts/config.json" "$parts/$config.json"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$name" > "$parts/manifest.json"
    tar -C "$parts" -cf "$folder/$program.tar" manifest.json "$config.json" layer.tar
    rm -rf "$parts"
}

have go || fail 'Go is missing. Install Go 1.21 or newer (it fetches the version that is needed by itself), then try again.'
"$ROOT/scripts/setup-packages.sh" cc >&2
# The functions run where a failed command does not end them by itself, hence their `|| return`.
cached kubernetes kubernetes 'Kubernetes from its Go modules (4 min on 2 idle cores, once)' make_kubernetes
cached coredns coredns 'CoreDNS from its Go module (about 1 min, once)' make_coredns
cached helm helm 'Helm from its Go module (about 2 min, once)' make_helm
cached pause images/pause 'the pause image' make_pause
cached probe images/probe "the image of the cluster's own tests" make_probe
cached sandbox sandbox 'gVisor from its Go module (about 2 min, once)' make_sandbox
cached policies policies 'kube-router from its Go module (about 1 min, once)' make_policies
