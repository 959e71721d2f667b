#!/usr/bin/env bash
# Two regions on this machine that share one limit, with more load on both than it
# allows: what each grants, second by second, while they hear each other, while
# they do not, and after. Leaves nothing running. `make regions` builds the
# module first.
#
# usage: scripts/regions.sh [seconds of each of the three phases]     (default: 8)
set -euo pipefail
cd "$(dirname "$0")/.."

phase=${1:-8}
capacity=100 refill=50 # tokens, and tokens per second, of both together
timeout_ms=2000        # claw.partition-timeout-ms, the default

module=${REDIS_CLAW_MODULE:-$PWD/target/release/libredis_claw.so}
server=$(command -v redis-server || command -v valkey-server)
client=$(command -v redis-cli || command -v valkey-cli)
dir=$(mktemp -d)
pids=() # eu, us, and then who asks them
tell_of_the_dead() {
    local n names=(eu us)
    for n in "${!names[@]}"; do
        if [ -n "${pids[n]:-}" ] && ! kill -0 "${pids[n]}" 2>/dev/null; then
            echo "regions: the server of ${names[n]} has ended; the last lines of its log:" >&2
            tail -n 20 "$dir/${names[n]}/server.log" >&2 || true
        fi
    done
}
cleanup() {
    local status=$?
    # Interrupted, the servers end as well.
    if [ "$status" != 0 ] && [ "$status" != 130 ]; then tell_of_the_dead; fi
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Peers need ports. Those that are taken are passed over.
free_port() {
    local port
    while port=$((20000 + RANDOM % 20000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
eu_port=$(free_port)
us_port=$(free_port)
cli() { "$client" -p "$@"; }
start() { # start NAME PORT PEER_PORT
    mkdir "$dir/$1"
    "$server" --bind 127.0.0.1 --port "$2" --dir "$dir/$1" --save '' \
        --logfile "$dir/$1/server.log" --loadmodule "$module" \
        replica-id "$1" peers "redis://127.0.0.1:$3" &
    pids+=($!)
}
start eu "$eu_port" "$us_port"
start us "$us_port" "$eu_port"
ports=("$eu_port" "$us_port")
for n in "${!ports[@]}"; do
    port=${ports[n]}
    for _ in $(seq 100); do
        [ "$(cli "$port" PING 2>/dev/null)" = PONG ] && break
        kill -0 "${pids[n]}" 2>/dev/null || exit 1
        sleep 0.1
    done
    cli "$port" CL.SYNC STATUS >/dev/null
done
sleep 0.5

# Each region is asked for about as much as both together may grant, and twice.
for port in "$eu_port" "$us_port"; do
    "$client" -p "$port" -r 1000000 -i 0.01 \
        CL.TAKE shared 1 CAPACITY "$capacity" REFILL "$refill" >/dev/null &
    pids+=($!)
done
began=$(date +%s%3N)

granted() { cli "$1" INFO claw | sed -n 's/^claw_tokens_taken:\([0-9]*\).*/\1/p'; }
status() { # status PORT FIELD
    cli "$1" INFO claw | sed -n "s/^claw_$2:\([0-9]*\).*/\1/p"
}
left() { cli "$1" CL.PEEK shared 0 CAPACITY "$capacity" REFILL "$refill" | sed -n 3p; }
eu_before=0 us_before=0
watch() { # watch SECONDS
    local eu us elapsed
    for _ in $(seq "$1"); do
        sleep 1
        eu=$(granted "$eu_port")
        us=$(granted "$us_port")
        elapsed=$(($(date +%s%3N) - began))
        printf '%6d.%d %8d %8d %10d %10d %7d %7d %6d %6d\n' \
            $((elapsed / 1000)) $((elapsed % 1000 / 100)) \
            $((eu - eu_before)) $((us - us_before)) \
            $((eu + us)) $((capacity + refill * elapsed / 1000)) \
            "$(left "$eu_port")" "$(left "$us_port")" \
            "$(status "$eu_port" sync_share_permille)" "$(status "$us_port" sync_share_permille)"
        eu_before=$eu us_before=$us
    done
}
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Nothing listens on port 1: neither region can reach the other.
link() { # link EU_PEER_PORT US_PEER_PORT
    cli "$eu_port" CONFIG SET claw.peers "redis://127.0.0.1:$1" >/dev/null
    cli "$us_port" CONFIG SET claw.peers "redis://127.0.0.1:$2" >/dev/null
}

say "One limit of $capacity tokens and $refill a second; each region is asked for about 100 a second."
echo '            granted in         granted  one bucket    tokens left    share (permille)'
printf '%8s %8s %8s %10s %10s %7s %7s %6s %6s\n' seconds eu us together would eu us eu us
say 'The regions hear each other.'
watch "$phase"
say 'The link is cut.'
link 1 1
watch "$phase"
say 'The link is healed.'
link "$us_port" "$eu_port"
watch "$phase"

kill "${pids[2]}" "${pids[3]}"
sleep 1
elapsed=$(($(date +%s%3N) - began))
together=$(($(granted "$eu_port") + $(granted "$us_port")))
one=$((capacity + refill * elapsed / 1000))
# (N-1)*(C + r*d) + r*d: until the cut is noticed, nothing is known of the other.
late_ms=$((timeout_ms + 300))
most=$((one + capacity + 2 * refill * late_ms / 1000))
tokens="$(left "$eu_port") in eu, $(left "$us_port") in us"
say "Granted $together; one bucket would have granted up to $one, and the bound is $most. Left: $tokens."
if [ "$together" -gt "$most" ]; then
    echo 'regions: more was granted than the bound allows' >&2
    exit 1
fi
if [ "$together" -lt $((one * 8 / 10)) ]; then
    echo 'regions: less was granted than the limit allows' >&2
    exit 1
fi
