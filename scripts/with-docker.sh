#!/usr/bin/env bash
# Runs a command with a Docker engine: the one that is running, or else one that is
# started for it, as root, and stopped afterwards.
#
# usage: scripts/with-docker.sh COMMAND [ARGUMENT..]
set -euo pipefail

if docker info >/dev/null 2>&1; then
    exec "$@"
fi

fail() {
    echo "with-docker.sh: $*" >&2
    exit 1
}
command -v dockerd >/dev/null || fail "no Docker engine is running, and there is no dockerd"
[ "$(id -u)" = 0 ] || fail "no Docker engine is running, and starting one needs root"

log=$(mktemp)
engine=
stop() {
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" 2>/dev/null || true
    fi
    rm -f "$log"
}
trap stop EXIT
trap 'exit 130' INT TERM

start() { # start OPTION..: whether the engine comes up
    dockerd "$@" >"$log" 2>&1 &
    engine=$!
    for _ in $(seq 300); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.2
    done
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    engine=
    return 1
}

# Not every machine that may start containers may write firewall rules. Without
# them ports are still published, by a proxy.
start || start --iptables=false --ip6tables=false || {
    tail -n 20 "$log" >&2
    fail "the engine did not start"
}
"$@"
