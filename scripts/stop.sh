#!/usr/bin/env bash
# Stops what `make demo` started: davit, then the container engine if it was started here. Nothing else is touched, and
# nothing is lost: functions, schedules and logs are there again at the next start.
source "$(dirname "$0")/lib.sh"

# stop_recorded <what> <pid file> <text its command line holds> <seconds>
stop_recorded() {
    local what=$1 file=$2 text=$3 seconds=$4 pid
    if ! alive "$file" "$text"; then
        rm -f "$file"
        return 0
    fi
    pid=$(cat "$file")
    say "stopping $what (pid $pid)"
    kill -TERM "$pid" 2> /dev/null || as_root "stop $what" kill -TERM "$pid"
    for _ in $(seq $((seconds * 10))); do
        alive "$file" "$text" || break
        sleep 0.1
    done
    alive "$file" "$text" && fail "$what (pid $pid) did not stop within $seconds s"
    rm -f "$file"
}

stop_recorded davit "$WORK_DIR/davit.pid" davit 60
stop_recorded "the container engine" "$WORK_DIR/dockerd.pid" dockerd 60
