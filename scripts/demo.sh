#!/usr/bin/env bash
# From a fresh clone to functions that answer: installs what is missing, builds davit, starts it in the background, deploys
# three examples, calls them, shows the clock and scale to zero, and leaves it all running. Safe to run again: then it
# takes seconds. `make stop` stops what this started. With DAVIT_BIN that binary is used and none is built.
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

DAVIT=${DAVIT_BIN:-$ROOT/target/release/davit}
PID_FILE=$WORK_DIR/davit.pid
LOG=$WORK_DIR/davit.log
STATE=${DAVIT_STATE_DIR:-$([[ $(id -u) == 0 ]] && echo /var/lib/davit || echo "${XDG_DATA_HOME:-$HOME/.local/share}/davit")}
BEGAN=$(now_ms)
STEPS=()

seconds_since() { local ms=$(($(now_ms) - $1)); printf '%d.%01d s' $((ms / 1000)) $((ms % 1000 / 100)); }
# step <title> <function>: says what happens, does it, and how long it took.
step() {
    local title=$1 began
    began=$(now_ms)
    printf '\n%s== %s%s\n' "$BOLD" "$title" "$PLAIN"
    "$2"
    STEPS+=("$(printf '%-44s %10s' "$title" "$(seconds_since "$began")")")
}
# show <command...>: prints the command as a user would type it, then runs it.
show() {
    local word line='$'
    for word in "$@"; do
        [[ $word != "$DAVIT" ]] || word=davit
        if [[ $word =~ ^[A-Za-z0-9_./:=@-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
    done
    printf '%s%s%s\n' "$DIM" "$line" "$PLAIN"
    "$@"
}
# until_true <seconds> <what for> <function>
until_true() {
    local deadline=$(($(now_ms) + $1 * 1000))
    until "$3"; do
        [[ $(now_ms) -lt $deadline ]] || fail "$2 did not happen within $1 s; see $LOG"
        sleep 0.3
    done
}
setting() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$STATE/endpoint.json"; }

prepare() {
    scripts/setup-packages.sh rust cc curl postgres
    scripts/setup-docker.sh
    say "engine $(docker version -f '{{.Server.Version}}'), $(rustc --version | cut -d' ' -f1,2)"
}

build() {
    if [[ -n ${DAVIT_BIN:-} ]]; then
        say "using $DAVIT_BIN"
        return
    fi
    say "the first time this compiles everything and takes some minutes"
    cargo build --release --bin davit
}

images() {
    scripts/build-agent.sh
    # What the examples below are written in; other languages' images are made when they are wanted.
    scripts/images.sh python3.13
}

is_ready() { alive "$PID_FILE" davit || { tail -n 20 "$LOG" >&2; fail "davit ended; full log: $LOG"; }
    [[ -f $STATE/endpoint.json ]] && curl -sf -o /dev/null -m 2 "$(setting admin_url)/readyz"; }

start() {
    local running=''
    if alive "$PID_FILE" davit; then
        running=$(cat "$WORK_DIR/davit.build" 2> /dev/null || true)
        if [[ $running == "$(stat -c '%i %Y' "$DAVIT")" ]]; then
            until_true 60 "readiness" is_ready
            say "davit runs already (pid $(cat "$PID_FILE"))"
            return
        fi
        say "davit has been built anew: restarting it"
        kill -TERM "$(cat "$PID_FILE")"
        until_true 60 "the end of the old one" gone
    fi
    rm -f "$STATE/endpoint.json"
    setsid "$DAVIT" up > "$LOG" 2>&1 < /dev/null &
    echo $! > "$PID_FILE"
    stat -c '%i %Y' "$DAVIT" > "$WORK_DIR/davit.build"
    until_true 90 "readiness" is_ready
    say "davit is ready (pid $(cat "$PID_FILE"), log $LOG): $(setting gateway_url)"
}
gone() { ! alive "$PID_FILE" davit; }

deploy() {
    for example in user-auth orders-api nightly-report; do
        show "$DAVIT" deploy "examples/$example"
    done
}

call() {
    local gateway
    gateway=$(setting gateway_url)
    note "# a function written for AWS Lambda, by the command line and over HTTP with a token"
    show "$DAVIT" invoke user-auth '{"request": {"type": "login"}}'
    show "$DAVIT" invoke user-auth '{"request": {"type": "nonsense"}}'
    printf '%s$ curl -H "Authorization: Bearer $(cat %s/token)" -d … %s/default/user-auth%s\n' "$DIM" "$STATE" "$gateway" "$PLAIN"
    curl -sS -i -H "Authorization: Bearer $(cat "$STATE/token")" -d '{"request": {"type": "register"}}' "$gateway/default/user-auth" |
        tr -d '\r' | sed -n '1p;$p'
    echo
    note "# a public API behind routes of its own"
    show curl -sS "$gateway/orders"
    echo
    show curl -sS -X POST -d '{"item": "rope", "quantity": 2}' "$gateway/orders"
    echo
    show curl -sS -X POST -d '{"quantity": -1}' "$gateway/orders"
    echo
}

logged() { "$DAVIT" logs nightly-report 2> /dev/null | grep -q .; }
fired() { "$DAVIT" -o json schedule history nightly-report demo 2> /dev/null | grep -q '"invocation_id": *"'; }
clock() {
    "$DAVIT" -o json schedule list nightly-report | grep -q '"demo"' ||
        show "$DAVIT" schedule add nightly-report demo '* * * * *'
    show "$DAVIT" schedule list nightly-report
    fired || say "waiting for the next full minute ..."
    until_true 100 "the first fire" fired
    show "$DAVIT" schedule history nightly-report demo --limit 3
    until_true 10 "the line in its log" logged
    show "$DAVIT" logs nightly-report --lines 3
}

awake() { "$DAVIT" list | grep -E '^nightly-report ' | grep -vE ' zero ' > /dev/null; }
at_zero() { "$DAVIT" list | grep -E '^nightly-report .*zero' > /dev/null; }
zero() {
    show "$DAVIT" invoke nightly-report '{"report": "demo"}' --verbose
    until_true 20 "an instance in the list" awake
    show "$DAVIT" list
    say "nightly-report is let go after 5 idle seconds ..."
    until_true 60 "zero" at_zero
    show "$DAVIT" list
    note "# and back: the call itself wakes it"
    show "$DAVIT" invoke nightly-report '{"report": "demo"}' --verbose --timing
}

step "What this machine needs" prepare
step "davit (release build)" build
step "Runtime images" images
step "Starting davit" start
step "Deploying examples" deploy
step "Calling them" call
step "The clock" clock
step "To zero and back" zero

printf '\n%s== What it took%s\n' "$BOLD" "$PLAIN"
printf '%s\n' "${STEPS[@]}"
printf '%-44s %10s\n' "all of it" "$(seconds_since "$BEGAN")"
cat << END

It keeps running. To go on:
  export PATH=$(dirname "$DAVIT"):\$PATH
  davit list                                    what there is, and what runs of it
  davit init hello && cd hello && davit deploy  a function of your own
  scripts/images.sh node20                      another language: java21 ruby3.3 php8.4 go rust provided, or all
  davit schedule pause nightly-report demo      the demo's clock fires every minute until then
  make stop                                     stops what this started; nothing is lost
END
