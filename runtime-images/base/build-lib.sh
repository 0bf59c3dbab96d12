# Shared by the build entry points (`/opt/davit/build`): sourced, not run. Bash.
#
# The contract with the controller: /davit/source.tar is the upload and /davit/deps.tar, if there, the dependencies of
# an earlier build with the same lock files. /davit/out/bundle.tar (what becomes /var/task) and /davit/out/deps.tar
# (for the next build) are left behind. Exit status 0 means built; everything printed is shown to the user.
set -euo pipefail

readonly SOURCE=/davit/source.tar CACHE=/davit/deps.tar OUT=/davit/out
readonly STAGE=/davit/stage UPLOAD=/davit/upload DEPS=/davit/deps
export HOME=/davit/home

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# What could not be fetched: whoever has no network has to bring it along, in a folder that the language knows.
fail_to_fetch() { # fail_to_fetch <what happened> <how to bring it along>
    if [[ -n ${DAVIT_BUILD_OFFLINE:-} ]]; then fail "$1; builds have no network here (DAVIT_BUILD_NETWORK=none): $2"; fi
    fail "$1"
}

# The operator's certificates, if the controller put some in, for every client that a build may use.
use_site_certificates() {
    local bundle=${DAVIT_BUILD_CA_BUNDLE:-/davit/ca-bundle.crt}
    [[ -s $bundle ]] || return 0
    export SSL_CERT_FILE=$bundle PIP_CERT=$bundle REQUESTS_CA_BUNDLE=$bundle CURL_CA_BUNDLE=$bundle
    export NODE_EXTRA_CA_CERTS=$bundle NPM_CONFIG_CAFILE=$bundle GIT_SSL_CAINFO=$bundle CARGO_HTTP_CAINFO=$bundle
}

unpack_upload() {
    [[ -f $SOURCE ]] || fail "no upload at $SOURCE"
    rm -rf "$STAGE" "$UPLOAD" "$DEPS"
    mkdir -p "$STAGE" "$UPLOAD" "$DEPS" "$OUT" "$HOME"
    tar -xf "$SOURCE" --no-same-owner --no-same-permissions -C "$UPLOAD"
}

# True if the dependencies of an earlier build could be taken.
take_cached_dependencies() {
    [[ -s $CACHE ]] || return 1
    tar -xf "$CACHE" --no-same-owner -C "$DEPS"
    say "dependencies: unchanged, taken from the cache"
}

# Packs directory $1 into $2: the same content gives the same bytes, whoever packs it and whenever.
pack() {
    (cd "$1" && find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z |
        tar --create --file "$2.part" --no-recursion --null --hard-dereference --format=posix \
            --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
            --mtime=@0 --owner=0 --group=0 --numeric-owner --mode='u+rw,go-w,a+rX' --files-from -)
    mv "$2.part" "$2"
}

# Dependencies first, the user's own files over them.
pack_bundle() {
    cp -a "$DEPS/." "$STAGE/"
    cp -a "$UPLOAD/." "$STAGE/"
    if [[ $(type -t before_pack) == function ]]; then before_pack; fi
    pack "$STAGE" "$OUT/bundle.tar"
    say "bundle: $(stat -c %s "$OUT/bundle.tar") bytes, $(find "$STAGE" -type f | wc -l) files"
}

# For languages whose sources are not needed to run: $STAGE holds the program; the upload's other files go beside it.
# The arguments are an expression of find that is true for sources.
pack_program() {
    [[ ! -e $UPLOAD/bootstrap ]] || fail "bootstrap: the upload has one, but this runtime builds it; use the runtime \`provided\` for programs that are built already"
    (cd "$UPLOAD" && find . -type f ! \( "$@" -o -path ./davit.toml \) -print0 | xargs -0r cp --parents -a -t "$STAGE")
    pack "$STAGE" "$OUT/bundle.tar"
    say "bundle: $(stat -c %s "$OUT/bundle.tar") bytes, $(find "$STAGE" -type f | wc -l) files"
}

# What was built elsewhere is only packed; the controller does that itself where no name is too long for it.
if [[ -n ${DAVIT_PREBUILT:-} ]]; then
    unpack_upload
    pack_bundle
    exit 0
fi
