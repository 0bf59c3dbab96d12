#!/bin/bash
# Tests the build entry point of the image this runs in, without network. Prints TAP. Started by scripts/test.sh.
set -uo pipefail
NUMBER=0 FAILURES=0 RUNTIME=$1

ok() { # ok <what> <status>
    NUMBER=$((NUMBER + 1))
    if [[ $2 == 0 ]]; then echo "ok $NUMBER - $RUNTIME: $1"; else FAILURES=$((FAILURES + 1)); echo "not ok $NUMBER - $RUNTIME: $1"; sed 's/^/# /' /tmp/build.log; fi
}
# upload <folder>: makes it the source of the next build, with a fresh /davit.
upload() {
    find /davit -mindepth 1 -delete
    mkdir -p /davit/out
    tar -C "$1" -cf /davit/source.tar .
}
build() { /opt/davit/build > /tmp/build.log 2>&1; }
# Not a pipe: `grep -q` would end it early, and the listing with a failure.
has() { tar -tf /davit/out/bundle.tar > /tmp/names && grep -qxF -- "$1" /tmp/names; }

mkdir -p /tmp/one/sub && cd /tmp/one || exit 1
printf 'def handler(event, context):\n    return 1\n' > app.py
printf 'exports.handler = async () => 1;\n' > index.js
printf '#!/bin/sh\n' > bootstrap
printf 'x' > 'sub/a name with spaces'
long=$(printf 'n%.0s' {1..120})
mkdir -p "$long" && printf 'x' > "$long/$long"

upload /tmp/one; build; ok "a folder without dependencies builds" $?
has "sub/a name with spaces" && has "$long/$long"; ok "odd and long names are kept" $?
first=$(sha256sum < /davit/out/bundle.tar)
sleep 1.1; touch app.py; chmod g+w app.py
upload /tmp/one; build
[[ $(sha256sum < /davit/out/bundle.tar) == "$first" ]]; ok "the same content gives the same bytes at another time" $?
tar --numeric-owner -tvf /davit/out/bundle.tar | awk '$2 != "0/0" || $4 != "1970-01-01" { exit 1 }'; ok "no owner and no time in the bundle" $?

upload /tmp/one; rm /davit/source.tar; ! build; ok "a missing upload is an error" $?

case $RUNTIME in
python3.13)
    upload /tmp/one; build; has '__pycache__/app.cpython-313.pyc'; ok "code is compiled ahead" $?
    printf 'def (:' > broken.py; upload /tmp/one; build; ok "code that does not compile is not the build's error" $?
    rm broken.py
    printf 'helper==1.0\n' > requirements.txt
    mkdir -p /tmp/deps && printf 'VALUE = 1\n' > /tmp/deps/helper.py
    upload /tmp/one; tar -C /tmp/deps -cf /davit/deps.tar .; build; status=$?
    [[ $status == 0 ]] && has helper.py; ok "dependencies come from the cache" $?
    printf 'VALUE = 2\n' > helper.py; upload /tmp/one; tar -C /tmp/deps -cf /davit/deps.tar .; build
    [[ $(tar -xOf /davit/out/bundle.tar helper.py) == 'VALUE = 2' ]]; ok "the user's own files win over dependencies" $?
    printf '# nothing\n' > requirements.txt; upload /tmp/one; build; ok "an empty requirements file needs no index" $?
    printf 'no-such-package-anywhere==0\n' > requirements.txt; upload /tmp/one
    ! PIP_RETRIES=0 build; ok "a dependency that cannot be had is an error" $? ;;
node20)
    printf '{"dependencies":{"left":"1.0.0"}}' > package.json
    mkdir -p /tmp/deps/node_modules/left && printf 'module.exports = 1;' > /tmp/deps/node_modules/left/index.js
    upload /tmp/one; tar -C /tmp/deps -cf /davit/deps.tar .; build; status=$?
    [[ $status == 0 ]] && has node_modules/left/index.js; ok "dependencies come from the cache" $?
    mkdir -p node_modules/own && printf '1' > node_modules/own/index.js; upload /tmp/one; build; status=$?
    [[ $status == 0 ]] && has node_modules/own/index.js; ok "an uploaded node_modules is kept" $? ;;
provided)
    upload /tmp/one; build; grep -q '^-rwx.* bootstrap$' <(tar -tvf /davit/out/bundle.tar); ok "bootstrap is made executable" $?
    printf '#!/bin/sh\r\n' > bootstrap; upload /tmp/one; ! build; ok "a bootstrap with Windows line endings is refused" $? ;;
esac
echo "1..$NUMBER"
[[ $FAILURES == 0 ]]
