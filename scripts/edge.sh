#!/usr/bin/env bash
# Starts a private server with the module and claw-edge in front of it, says what to try,
# and runs until Ctrl-C. `make edge` builds both first.
#
# usage: scripts/edge.sh            in the foreground
#        scripts/edge.sh --check    tries what it would print, and ends
#
# Every setting of claw-edge can be in the environment: USER_CAPACITY=100 make edge
# PORTS are those to begin with, of Redis, HTTP, gRPC and operators: the next that is free is
# taken.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
module=${REDIS_CLAW_MODULE:-$PWD/target/release/libredis_claw.so}
edge=${CLAW_EDGE:-$target/release/claw-edge}
server=$(command -v redis-server || command -v valkey-server)
client=$(command -v redis-cli || command -v valkey-cli)
dir=$(mktemp -d)
pids=()
cleanup() {
    # claw-edge first: it lets open requests end.
    local place
    for ((place = ${#pids[@]} - 1; place >= 0; place--)); do
        kill "${pids[place]}" 2>/dev/null || true
        wait "${pids[place]}" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
used=
port() { # port WANTED: that one, or the next that is free
    local port=$1
    while [[ " $used " == *" $port "* ]] || ! is_free "$port"; do port=$((port + 1)); done
    used="$used $port"
    found=$port
}
read -ra wanted <<<"${PORTS:-6379 8080 8081 9102}"
port "${wanted[0]}"; redis=$found
port "${wanted[1]}"; http=$found
port "${wanted[2]}"; grpc=$found
port "${wanted[3]}"; ops=$found

fail() {
    echo "edge: $1" >&2
    cat "$dir"/*.log >&2
    exit 1
}
start() { # start NAME COMMAND..
    local name=$1
    shift
    # Ctrl-C does not reach what a script starts like this: it ends by cleanup.
    "$@" >"$dir/$name.log" 2>&1 &
    pids+=($!)
}
await() { # await NAME CONDITION..
    local name=$1
    shift
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        kill -0 "${pids[-1]}" 2>/dev/null || fail "$name has ended"
        sleep 0.1
    done
    fail "$name does not answer"
}

start redis "$server" --port "$redis" --bind 127.0.0.1 --dir "$dir" --save '' --loadmodule "$module"
await redis "$client" -p "$redis" CL.PEEK ready

# Three ratings at once by each user, and one more every ten seconds.
export USER_CAPACITY=${USER_CAPACITY:-3} USER_REFILL=${USER_REFILL:-1} USER_INTERVAL=${USER_INTERVAL:-10s}
export REDIS_URL="redis://127.0.0.1:$redis" HTTP_ADDR="127.0.0.1:$http" GRPC_ADDR="127.0.0.1:$grpc" OPS_ADDR="127.0.0.1:$ops"
# Nobody has to be told that this one ends, and the machine may be busy with a build.
export DRAIN_NOTICE=0s DECISION_TIMEOUT=${DECISION_TIMEOUT:-2s}
start edge "$edge"
listens() { ! is_free "$http" && ! is_free "$ops"; }
await claw-edge listens

base=http://127.0.0.1:$http
json="-H 'Content-Type: application/json'"
rate="curl -i $base/rating $json -d '{\"user_id\": \"ann\", \"item_id\": \"tea\", \"rating\": 4.5}'"
read="curl $base/items/tea"
take="curl -i $base/v1/take $json -d '{\"key\": \"ann\", \"limit\": \"user\", \"tokens\": 2}'"

if [ "${1:-}" = --check ]; then
    command -v curl >/dev/null || fail 'there is no curl'
    status() { # status EXPECTED COMMAND
        local told
        told=$(eval "${2/curl/curl -sS -o $dir/body -w '%{http_code\}'}") || fail "failed: $2"
        [[ $told == *$1 ]] || fail "$told and not $1: $2"
    }
    plain=${rate/ -i/}
    for expected in 200 200 200 429; do status "$expected" "$plain"; done
    status 200 "$read"
    [ "$(cat "$dir/body")" = '{"item_id":"tea","count":1,"mean":4.5}' ] || fail "$(cat "$dir/body")"
    status 429 "${take/ -i/}"
    grep -q '"violated-policies":\["user"\]' "$dir/body" || fail "$(cat "$dir/body")"
    echo 'edge: 3 ratings passed and the fourth was refused; the item has one; nothing is left to take'
    exit 0
fi

cat <<END

claw-edge limits each user to $USER_CAPACITY ratings at once, and $USER_REFILL more every $USER_INTERVAL. Try:

  # rate, until it says 429
  $rate

  # what all think of it
  $read

  # the same bucket for any program
  $take

The page for operators: http://127.0.0.1:$ops/admin
Metrics: http://127.0.0.1:$ops/metrics    The API: http://127.0.0.1:$ops/openapi.json
Envoy's rate limit service: 127.0.0.1:$grpc    Redis: redis-cli -p $redis
Ctrl-C ends it all, and nothing is kept.

END
wait "${pids[-1]}" || fail 'claw-edge has ended'
