#!/usr/bin/env bash
# Installs what is missing, and only that, from Debian's packages. Usage: scripts/setup-packages.sh <tool>...
# Tools: docker postgres mmdebstrap cc curl strace nginx wrk rust cargo-deny etcd containerd runc cni docker-registry iptables ip
# conntrack ipset python3-yaml
source "$(dirname "$0")/lib.sh"

# Where Debian keeps the programs of its Postgres, beside PATH.
postgres_is_there() { have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null; }

is_there() {
    case $1 in
        docker) have docker && { have dockerd || docker info > /dev/null 2>&1; } && have iptables ;;
        postgres) postgres_is_there ;;
        rust) have cargo ;;
        cni) [[ -x /usr/lib/cni/bridge || -x /opt/cni/bin/bridge ]] ;;
        python3-yaml) have python3 && python3 -c 'import yaml' 2> /dev/null ;;
        *) have "$1" || [[ -x /usr/sbin/$1 ]] ;;
    esac
}

packages_for() {
    case $1 in
        docker) echo docker.io iptables ca-certificates ;;
        postgres) echo postgresql ;;
        cc) echo build-essential ;;
        etcd) echo etcd-server ;;
        cni) echo containernetworking-plugins ;;
        ip) echo iproute2 ;;
        *) echo "$1" ;;
    esac
}

missing=()
packages=()
for tool in "$@"; do
    is_there "$tool" && continue
    missing+=("$tool")
    case $tool in
        rust)
            fail "Rust is missing. Install it with rustup (toolchain $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml") or newer, with clippy and rustfmt), then try again." ;;
        cargo-deny) ;;
        *) read -ra more <<< "$(packages_for "$tool")"; packages+=("${more[@]}") ;;
    esac
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ ${#packages[@]} -gt 0 ]]; then
    have apt-get || fail "missing: ${missing[*]}. There is no apt-get here; install the equivalents of: ${packages[*]}"
    say "installing ${packages[*]}"
    if [[ " ${missing[*]} " == *" postgres "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
        # Only the programs are wanted: davit runs a Postgres of its own, and no service is to be started here.
        as_root "install packages" sh -c \
            'mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf'
    fi
    log=$WORK_DIR/apt.log
    # Another package manager may be at work, such as the machine's own updates: wait for it instead of giving up.
    apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    as_root "install packages" "${apt[@]}" update > "$log" 2>&1 ||
        note "  the package lists could not be refreshed; trying with those that are there"
    as_root "install packages" "${apt[@]}" install -y --no-install-recommends "${packages[@]}" \
        >> "$log" 2>&1 || { tail -n 15 "$log" >&2; fail "the packages could not be installed (full log: $log)"; }
    for tool in etcd docker-registry; do
        # Of these, too, only the programs are wanted.
        [[ " ${missing[*]} " != *" $tool "* || ! -d /run/systemd/system ]] ||
            as_root "not leave a service running that was only just installed" systemctl disable --quiet --now "$tool"
    done
fi

if [[ " ${missing[*]} " == *" cargo-deny "* ]]; then
    say "installing cargo-deny (compiles for some minutes, once)"
    log=$WORK_DIR/cargo-deny.log
    cargo install --locked cargo-deny > "$log" 2>&1 || { tail -n 15 "$log" >&2; fail "cargo-deny could not be installed (full log: $log)"; }
fi
