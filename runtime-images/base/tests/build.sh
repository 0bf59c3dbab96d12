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
# A build that fails, and says these words.
refuses() { local word; ! build || return 1; for word in "$@"; do grep -qF -- "$word" /tmp/build.log || return 1; done; }
digest() { sha256sum < /davit/out/bundle.tar; }
# Not a pipe: `grep -q` would end it early, and the listing with a failure.
has() { tar -tf /davit/out/bundle.tar > /tmp/names && grep -qxF -- "$1" /tmp/names; }

# What a compiled language's build does the same way; the folder is a program without dependencies.
compiled() { # compiled <folder> <source> <comment> <broken> <place that the compiler names>
    cd "$1" || exit 1
    printf 'x' > data.txt
    upload "$1"; build; ok "a program without dependencies builds, without network" $?
    has bootstrap && has data.txt && ! has "$2"; ok "the bundle has the program and data, and no sources" $?
    grep -q '^-rwx.* bootstrap$' <(tar -tvf /davit/out/bundle.tar); ok "the program may be executed" $?
    local first
    first=$(digest)
    sleep 1.1; touch "$2"; printf '%s\n' "$3" >> "$2"
    upload "$1"; build; [[ $(digest) == "$first" ]]; ok "the same program gives the same bytes at another time" $?
    cp "$2" /tmp/good; printf '%s\n' "$4" >> "$2"
    upload "$1"; refuses "$5"; ok "what does not compile is named with its place" $?
    [[ ! -e /davit/out/bundle.tar ]]; ok "a failed build leaves no bundle" $?
    cp /tmp/good "$2"
    printf '#!/bin/sh\n' > bootstrap; upload "$1"; refuses "bootstrap" "provided"; ok "an uploaded bootstrap is not overwritten" $?
    rm bootstrap
    upload "$1"; rm /davit/source.tar; ! build; ok "a missing upload is an error" $?
}

case $RUNTIME in
go)
    mkdir -p /tmp/go && cd /tmp/go || exit 1
    printf 'module example.com/f\n\ngo 1.24\n' > go.mod
    printf 'package main\n\nimport "net/http"\n\nfunc main() { _ = http.ListenAndServe(":1", nil) }\n' > main.go
    compiled /tmp/go main.go '// more' 'var x = nothing' './main.go:7:9'
    mkdir -p cmd/api && printf 'package api\n' > cmd/api/api.go
    upload /tmp/go; DAVIT_HANDLER=cmd/api refuses 'package api, not main'; ok "a package that is no program is named" $?
    upload /tmp/go; DAVIT_HANDLER=cmd/none refuses 'handler: cmd/none'; ok "a folder that is not there is named" $?
    upload /tmp/go; DAVIT_HANDLER=../go refuses 'handler: ../go'; ok "a folder outside is refused" $?
    printf 'require example.com/other v1.0.0\n' >> go.mod
    upload /tmp/go; refuses 'go.sum: there is none' 'go mod tidy'; ok "a missing go.sum is named" $?
    mkdir -p vendor/example.com/other && printf 'package other\n\nconst X = 1\n' > vendor/example.com/other/other.go
    printf '# example.com/other v1.0.0\n## explicit\nexample.com/other\n' > vendor/modules.txt
    printf 'package main\n\nimport "example.com/other"\n\nfunc main() { println(other.X) }\n' > main.go
    upload /tmp/go; build && ! has vendor/modules.txt; ok "vendored modules need no network" $?
    rm -r vendor; printf 'example.com/other v1.0.0 h1:AAAA=\n' > go.sum
    upload /tmp/go; GOPROXY=off refuses 'example.com/other'; ok "a module that cannot be had is named" $?
    printf 'module example.com/f\n\ngo 9.99\n' > go.mod; rm go.sum
    upload /tmp/go; refuses 'go.mod' '9.99'; ok "a newer Go than there is is named" $?
    rm go.mod; upload /tmp/go; refuses 'go.mod: there is none'; ok "a missing go.mod is named" $?
    echo "1..$NUMBER"; [[ $FAILURES == 0 ]]; exit ;;
rust)
    mkdir -p /tmp/rust/src && cd /tmp/rust || exit 1
    printf '[package]\nname = "f"\nversion = "0.1.0"\nedition = "2024"\n' > Cargo.toml
    printf 'version = 4\n\n[[package]]\nname = "f"\nversion = "0.1.0"\n' > Cargo.lock
    printf 'fn main() { println!("{}", 1) }\n' > src/main.rs
    compiled /tmp/rust src/main.rs '// more' 'fn f() { nothing() }' 'src/main.rs:3:10'
    mkdir -p src/bin && printf 'fn main() {}\n' > src/bin/other.rs
    upload /tmp/rust; refuses 'handler:' 'f, other'; ok "several programs without a handler are named" $?
    upload /tmp/rust; DAVIT_HANDLER=other build; ok "the handler names one" $?
    upload /tmp/rust; DAVIT_HANDLER=none refuses 'handler: the package has no program called none' 'f, other'; ok "one that is not there is named" $?
    rm -r src/bin
    printf '\n[dependencies]\nserde = "1"\n' >> Cargo.toml
    upload /tmp/rust; CARGO_NET_OFFLINE=true refuses 'serde'; ok "what a lock file lacks is named" $?
    rm Cargo.lock; upload /tmp/rust; refuses 'Cargo.lock: there is none' 'cargo generate-lockfile'; ok "a missing lock file is named" $?
    printf 'nonsense\n' > Cargo.toml; printf 'version = 4\n' > Cargo.lock
    upload /tmp/rust; refuses 'Cargo.toml'; ok "a manifest that cannot be read is named" $?
    rm Cargo.toml; upload /tmp/rust; refuses 'Cargo.toml: there is none'; ok "a missing manifest is named" $?
    echo "1..$NUMBER"; [[ $FAILURES == 0 ]]; exit ;;
esac

mkdir -p /tmp/one/sub && cd /tmp/one || exit 1
printf 'def handler(event, context):\n    return 1\n' > app.py
printf 'exports.handler = async () => 1;\n' > index.js
printf '#!/bin/sh\n' > bootstrap
printf "<?php\nfunction handler() {}\n" > app.php
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

for file in requirements.txt package.json Gemfile composer.json pom.xml; do printf 'nonsense' > $file; done
upload /tmp/one; DAVIT_PREBUILT=1 build && has requirements.txt; ok "what was built elsewhere is only packed" $?
rm requirements.txt package.json Gemfile composer.json pom.xml

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
    # A wheel by hand: three files in a zip archive.
    mkdir -p /tmp/wheel/tally-1.0.dist-info wheelhouse && printf 'VALUE = 7\n' > /tmp/wheel/tally.py
    printf 'Metadata-Version: 2.1\nName: tally\nVersion: 1.0\n' > /tmp/wheel/tally-1.0.dist-info/METADATA
    printf 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n' > /tmp/wheel/tally-1.0.dist-info/WHEEL
    printf 'tally.py,,\ntally-1.0.dist-info/METADATA,,\ntally-1.0.dist-info/WHEEL,,\ntally-1.0.dist-info/RECORD,,\n' > /tmp/wheel/tally-1.0.dist-info/RECORD
    (cd /tmp/wheel && python3 -m zipfile -c /tmp/one/wheelhouse/tally-1.0-py3-none-any.whl tally.py tally-1.0.dist-info)
    printf 'tally==1.0\n' > requirements.txt; upload /tmp/one; DAVIT_BUILD_OFFLINE=1 build && has tally.py && ! has wheelhouse/tally-1.0-py3-none-any.whl; ok "wheels of the upload need no network" $?
    first=$(digest); sleep 1.1; upload /tmp/one; build; [[ $(digest) == "$first" ]]; ok "they are installed to the same bytes at another time" $?
    rm -r wheelhouse; upload /tmp/one; PIP_RETRIES=0 DAVIT_BUILD_OFFLINE=1 refuses 'DAVIT_BUILD_NETWORK=none' 'pip download'; ok "what would need the network is told how to do without" $?
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
esac
# What only the runtimes that have it do.
case $RUNTIME in
node20)
    rm -rf /tmp/one/node_modules /tmp/one/package.json
    mkdir -p /tmp/ts/src && cd /tmp/ts || exit 1
    printf 'export const handler = async (n: number) => n;\n' > src/app.ts
    upload /tmp/ts; DAVIT_HANDLER=src/app.handler refuses 'src/app.ts: TypeScript needs a compiler' 'npm install --save-dev typescript'; ok "TypeScript without a compiler is named" $?
    printf '{"devDependencies":{"typescript":"1.0.0"}}' > package.json
    # A compiler that does what this one's arguments ask for; the real one is in the end-to-end stories.
    mkdir -p /tmp/tsdeps/all/node_modules/.bin /tmp/tsdeps/run
    printf '#!/bin/sh\nwhile [ "$1" != --outDir ]; do shift; done\nmkdir -p "$2/src" && echo "exports.handler = 1" > "$2/src/app.js"\n' > /tmp/tsdeps/all/node_modules/.bin/tsc
    chmod +x /tmp/tsdeps/all/node_modules/.bin/tsc
    upload /tmp/ts; tar -C /tmp/tsdeps -cf /davit/deps.tar .; DAVIT_HANDLER=src/app.handler build; status=$?
    [[ $status == 0 ]] && has src/app.js && ! has src/app.ts && ! has node_modules/.bin/tsc; ok "TypeScript becomes JavaScript, and the compiler stays behind" $?
    cp src/app.ts src/other.ts
    upload /tmp/ts; tar -C /tmp/tsdeps -cf /davit/deps.tar .; DAVIT_HANDLER=src/other.handler refuses 'no src/other.js'; ok "a handler that the compiler does not make is named" $?
    printf '{"name":' > package.json; upload /tmp/ts; refuses 'package.json:'; ok "a package.json that cannot be read is named" $?
    printf '{}' > package.json; : > pnpm-lock.yaml; printf '{}' > package-lock.json
    upload /tmp/ts; refuses 'package-lock.json and pnpm-lock.yaml'; ok "two lock files are too many" $? ;;
ruby3.3)
    gem=/tmp/gem; mkdir -p $gem/lib && cd $gem || exit 1
    printf 'module Tally; VALUE = 7; end\n' > lib/tally.rb
    printf 'Gem::Specification.new { |g| g.name = "tally"; g.version = "1.0.0"; g.summary = "s"; g.authors = ["a"]; g.files = ["lib/tally.rb"] }\n' > tally.gemspec
    HOME=/tmp gem build -q tally.gemspec > /dev/null 2>&1
    cd /tmp/one || exit 1
    mkdir -p vendor/cache && cp $gem/tally-1.0.0.gem vendor/cache/
    printf 'source "https://gems.test"\ngem "tally"\n' > Gemfile
    upload /tmp/one; refuses 'Gemfile.lock: there is none' 'bundle lock'; ok "a missing lock file is named" $?
    printf 'GEM\n  remote: https://gems.test/\n  specs:\n    tally (1.0.0)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n  tally\n' > Gemfile.lock
    upload /tmp/one; build && has vendor/bundle/ruby/3.3.0/gems/tally-1.0.0/lib/tally.rb && ! has vendor/cache/tally-1.0.0.gem; ok "vendored gems need no network" $?
    first=$(digest); sleep 1.1; upload /tmp/one; build; [[ $(digest) == "$first" ]]; ok "gems are installed to the same bytes at another time" $?
    rm -r vendor; upload /tmp/one; refuses 'gems.test'; ok "a gem that cannot be had is named" $?
    mkdir -p /tmp/deps/vendor/bundle/ruby/3.3.0/gems/x && printf '1' > /tmp/deps/vendor/bundle/ruby/3.3.0/gems/x/x.rb
    upload /tmp/one; tar -C /tmp/deps -cf /davit/deps.tar .; build && has vendor/bundle/ruby/3.3.0/gems/x/x.rb; ok "dependencies come from the cache" $?
    printf 'gem "other"\n' >> Gemfile; upload /tmp/one; refuses 'other'; ok "a lock file that does not fit is named" $? ;;
php8.4)
    upload /tmp/one; printf '<?php\nfunction (\n' > app.php; upload /tmp/one; refuses 'app.php' 'line 3'; ok "what is not valid PHP is named with its line" $?
    printf '<?php\n' > app.php
    mkdir -p packages/tally/src && printf '<?php\nnamespace Tally;\nclass T {}\n' > packages/tally/src/T.php
    printf '{"name":"x/tally","version":"1.0.0","autoload":{"psr-4":{"Tally\\\\":"src/"}}}' > packages/tally/composer.json
    printf '{"require":{"x/tally":"1.0.0"},"repositories":[{"type":"path","url":"packages/tally"},{"packagist":false}]}' > composer.json
    upload /tmp/one; refuses 'composer.lock: there is none' 'composer update'; ok "a missing lock file is named" $?
    (cp -r /tmp/one /tmp/lock && cd /tmp/lock && COMPOSER_HOME=/tmp/c HOME=/tmp composer update -q --no-interaction 2> /dev/null; cp composer.lock /tmp/one/)
    upload /tmp/one; build && has vendor/x/tally/src/T.php && has vendor/autoload.php; ok "packages of the upload need no network" $?
    first=$(digest); sleep 1.1; upload /tmp/one; build; [[ $(digest) == "$first" ]]; ok "packages are installed to the same bytes at another time" $?
    sed -i 's/"require":{/"require":{"y\/other":"1.0.0",/' composer.json
    upload /tmp/one; refuses 'composer.lock does not fit composer.json'; ok "a lock file that does not fit is named" $? ;;
java21)
    mkdir -p /tmp/jar/lib && cd /tmp/jar || exit 1
    printf 'x' > lib/a.jar; printf 'y' > f.jar
    upload /tmp/jar; build && has lib/a.jar && has lib/f.jar && ! has f.jar; ok "jars that are built already go where they are looked for" $?
    printf 'class F {}\n' > F.java; upload /tmp/jar; refuses 'pom.xml: there is none' 'F.java'; ok "sources without a pom.xml are named" $?
    printf '<project>\n<modelVersion>4.0.0</modelVersion>\n<oops>\n</project>\n' > pom.xml
    upload /tmp/jar; refuses 'pom.xml' 'line 3'; ok "a pom.xml that cannot be read is named with its line" $?
    printf '<project><modules><module>a</module></modules></project>\n' > pom.xml
    upload /tmp/jar; refuses 'pom.xml: a project of several modules'; ok "a project of several modules is told what to do" $?
    mkdir -p /tmp/gradle/src/main/java/f /tmp/gradle/src/main/resources && cd /tmp/gradle || exit 1
    printf "plugins { id 'java' }\nrepositories { maven { url \"\$projectDir/repository\" } }\n" > build.gradle
    printf 'package f;\n\npublic record F(int n) {\n    String name(Object o) { return switch (o) { case F f -> "é" + f.n(); default -> ""; }; }\n}\n' > src/main/java/f/F.java
    printf 'x' > src/main/resources/data.txt
    upload /tmp/gradle; build && has f/F.class && has data.txt && ! has src/main/java/f/F.java; ok "a Gradle project builds as Java 21, without network" $?
    first=$(digest); sleep 1.1; printf '// more\n' >> src/main/java/f/F.java; upload /tmp/gradle; build; [[ $(digest) == "$first" ]]; ok "it is built to the same bytes at another time" $?
    upload /tmp/gradle; build; cp /davit/out/deps.tar /tmp/gradle-deps.tar; upload /tmp/gradle; cp /tmp/gradle-deps.tar /davit/deps.tar; build && grep -q 'taken from the cache' /tmp/build.log && [[ $(digest) == "$first" ]]; ok "with the dependencies of an earlier build, too" $?
    # A dependency that the project brings along.
    mkdir -p /tmp/tally/t repository/x/tally/1.0 && printf 'package t;\npublic class T {}\n' > /tmp/tally/t/T.java
    (cd /tmp/tally && javac t/T.java && jar --create --file /tmp/gradle/repository/x/tally/1.0/tally-1.0.jar t/T.class)
    printf '<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>tally</artifactId><version>1.0</version></project>\n' > repository/x/tally/1.0/tally-1.0.pom
    printf "dependencies { implementation 'x:tally:1.0' }\n" >> build.gradle
    upload /tmp/gradle; DAVIT_BUILD_OFFLINE=1 build && has lib/tally-1.0.jar; ok "a repository of the upload needs no network" $?
    rm -r repository; upload /tmp/gradle; refuses 'x:tally:1.0'; ok "a dependency that cannot be had is named" $?
    upload /tmp/gradle; DAVIT_BUILD_OFFLINE=1 refuses 'DAVIT_BUILD_NETWORK=none' '--zip'; ok "what would need the network is told how to do without" $?
    sed -i '/^dependencies/d' build.gradle; printf 'class G { int f() { return nothing; } }\n' > src/main/java/f/G.java
    upload /tmp/gradle; refuses 'G.java:1: error'; ok "what does not compile is named with its place" $?
    [[ ! -e /davit/out/bundle.tar ]]; ok "a failed build leaves no bundle" $?
    rm src/main/java/f/G.java; printf 'nonsense nonsense\n' >> build.gradle; upload /tmp/gradle; refuses 'build.gradle' 'line: 3'; ok "a build.gradle that cannot be read is named with its line" $?
    printf '\n' > build.gradle; upload /tmp/gradle; refuses "plugins { id 'java' }"; ok "a build without Java is told what is missing" $?
    printf "include 'a'\n" > settings.gradle; upload /tmp/gradle; refuses 'settings.gradle: a project of several modules'; ok "several modules are told what to do" $?
    rm settings.gradle; mv build.gradle build.gradle.kts; upload /tmp/gradle; refuses 'build.gradle.kts' '--zip'; ok "what this Gradle does not read is named" $? ;;
provided)
    upload /tmp/one; build; grep -q '^-rwx.* bootstrap$' <(tar -tvf /davit/out/bundle.tar); ok "bootstrap is made executable" $?
    printf '#!/bin/sh\r\n' > bootstrap; upload /tmp/one; ! build; ok "a bootstrap with Windows line endings is refused" $? ;;
esac
echo "1..$NUMBER"
[[ $FAILURES == 0 ]]
