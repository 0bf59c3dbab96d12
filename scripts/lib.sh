# Shared by the scripts in this folder: sourced, not run. Bash.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything these scripts remember between runs; removed by `make clean`.
WORK_DIR=$ROOT/target/davit-scripts
mkdir -p "$WORK_DIR"

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' DIM='' RED='' PLAIN=''; fi
say() { printf '%s\n' "$*"; }
note() { printf '%s%s%s\n' "$DIM" "$*" "$PLAIN"; }
fail() { printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }
now_ms() { date +%s%3N; }

# as_root <what for> <command...>: runs it as root, asking sudo if there is one; otherwise says what is needed.
as_root() {
    local why=$1
    shift
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif have sudo && sudo -n true 2> /dev/null; then
        sudo "$@"
    elif have sudo && [[ -t 0 ]]; then
        say "root is needed to $why: $*"
        sudo "$@"
    else
        fail "root is needed to $why. Run this as root, then try again:  $*"
    fi
}

# alive <pid file> [<text its command line holds>]: true if the process recorded there still runs and is the one meant.
alive() {
    local pid
    pid=$(cat "$1" 2> /dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ && -r /proc/$pid/cmdline ]] || return 1
    # A zombie keeps its /proc entry until its parent looks at it.
    ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2> /dev/null || return 1
    # While a process takes on another program it has no command line for a moment.
    [[ -z ${2:-} ]] || tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline" | grep -qF -- "$2"
}
