#!/bin/sh
# Makes the file system of davit's image: build.sh <sources> <new folder>. Runs in the first stage of the Dockerfile beside it.
# Where the sources hold prebuilt/davit and prebuilt/davit-agent, these are taken and nothing is compiled. What the site's network
# needs lies in davit-site/, as scripts/images.sh says.
set -eu
src=$1 out=$2
cp -r "$src/davit-site" /davit-site 2> /dev/null || true
if [ -x "$src/prebuilt/davit" ]; then
    davit=$src/prebuilt/davit agent=$src/prebuilt/davit-agent
    sh "$src/runtime-images/base/install.sh"
else
    sh "$src/runtime-images/base/install.sh" gcc libc6-dev binutils
    # Cargo asks its index; a site may have put an authority or another index in between.
    if [ -s /davit-site/ca-bundle.crt ]; then export CARGO_HTTP_CAINFO=/davit-site/ca-bundle.crt; fi
    if [ -s /davit-site/cargo.toml ]; then cp /davit-site/cargo.toml "${CARGO_HOME:-$HOME/.cargo}/config.toml"; fi
    cd "$src"
    export CARGO_TARGET_DIR=/build
    cargo build --release --locked --bin davit
    target=$(uname -m)-unknown-linux-gnu
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked -p davit-agent --profile agent --target "$target"
    davit=/build/release/davit agent=/build/$target/agent/davit-agent
    strip "$davit"
fi

mkdir -p "$out/usr/local/bin" "$out/opt/davit" "$out/etc/ssl/certs" "$out/tmp" "$out/var/lib/davit"
install -m 0755 "$davit" "$out/usr/local/bin/davit"
install -m 0755 "$agent" "$out/opt/davit/agent"
# The libraries, and the loader at the path that the program names.
ldd "$davit" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-[^ ]*\) .*/\1/p' | while read -r library; do
    mkdir -p "$out$(dirname "$library")"
    cp -L "$library" "$out$library"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$out/etc/ssl/certs/"
printf 'hosts: files dns\n' > "$out/etc/nsswitch.conf"
printf 'davit:x:993:993::/tmp:/sbin/nologin\n' > "$out/etc/passwd"
printf 'davit:x:993:\n' > "$out/etc/group"
chmod 1777 "$out/tmp"
chown 993:993 "$out/var/lib/davit"
