#!/usr/bin/env bash
# Makes sure that a container engine answers: installs it if it is missing, starts it if nothing runs. An engine that
# was started here is recorded, so that `make stop` stops that one and no other.
source "$(dirname "$0")/lib.sh"

have docker && docker info > /dev/null 2>&1 && exit 0
if have docker && docker info 2>&1 | grep -qi 'permission denied'; then
    fail "the container engine runs, but $(id -un) may not use it. Run as root, or join the group:  sudo usermod -aG docker $(id -un)"
fi
# A remote engine is somebody's decision; starting a local one beside it would hide that it is down.
[[ -z ${DOCKER_HOST:-} ]] || fail "DOCKER_HOST is set to $DOCKER_HOST, but no engine answers there"

"$ROOT/scripts/setup-packages.sh" docker
docker info > /dev/null 2>&1 && exit 0 # installing it may have started it

# An engine that was killed leaves its pid file, and the next one refuses to start when some other program has that number.
for name in docker containerd; do
    file=/var/run/$([[ $name == docker ]] || echo docker/containerd/)$name.pid
    pid=$(cat "$file" 2> /dev/null || true)
    [[ -z $pid || $(cat "/proc/$pid/comm" 2> /dev/null) == "${name/%docker/dockerd}" ]] ||
        as_root "remove the pid file that a killed $name left" rm -f "$file"
done

say "starting the container engine (log: $WORK_DIR/dockerd.log)"
# The log is opened by the caller, the pid is written by the engine's own shell: a session of its own, no controlling terminal.
as_root "start the container engine" setsid sh -c 'echo $$ > "$1"; exec dockerd' sh "$WORK_DIR/dockerd.pid" \
    > "$WORK_DIR/dockerd.log" 2>&1 < /dev/null &
for _ in $(seq 150); do
    docker info > /dev/null 2>&1 && exit 0
    sleep 0.2
done
tail -n 15 "$WORK_DIR/dockerd.log" >&2
fail "the container engine did not answer within 30 s (full log: $WORK_DIR/dockerd.log)"
