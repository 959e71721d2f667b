#!/usr/bin/env bash
# Starts a private server with the module, shows what it does, and leaves
# nothing running. `make demo` builds the module first.
set -euo pipefail
cd "$(dirname "$0")/.."

module=${REDIS_CLAW_MODULE:-$PWD/target/release/libredis_claw.so}
server=$(command -v redis-server || command -v valkey-server)
client=$(command -v redis-cli || command -v valkey-cli)
dir=$(mktemp -d)
pid=
cleanup() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# No port is opened: everything goes through a socket in a private directory.
"$server" --port 0 --unixsocket "$dir/redis.sock" --dir "$dir" --save '' \
    --logfile "$dir/server.log" --loadmodule "$module" &
pid=$!
cli() { "$client" -s "$dir/redis.sock" "$@"; }
for _ in $(seq 100); do
    [ "$(cli PING 2>/dev/null)" = PONG ] && break
    if ! kill -0 "$pid" 2>/dev/null; then
        cat "$dir/server.log" >&2
        exit 1
    fi
    sleep 0.1
done

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { # runs a command as one would type it
    printf 'redis> %s\n' "$*"
    cli --no-raw "$@"
}
check() { # check WHAT EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        printf 'demo: %s: expected %s, got %s\n' "$1" "$2" "$3" >&2
        exit 1
    fi
}
field() { sed -n "${1}p"; }

say 'Replies are: taken, capacity, remaining, retry_after and reset_after in ms.'

say '1. Three tokens, one more every 500 ms: take until refused.'
options=(CAPACITY 3 REFILL 1 INTERVAL 500)
for _ in 1 2 3; do show CL.TAKE user:1 1 "${options[@]}"; done
printf 'redis> CL.TAKE user:1 1 %s\n' "${options[*]}"
refused=$(cli CL.TAKE user:1 1 "${options[@]}")
echo "$refused" | awk '{ printf "%d) (integer) %s\n", NR, $0 }'
check 'the fourth take' 0 "$(echo "$refused" | field 1)"

say '2. Wait exactly retry_after, and the same call is granted.'
wait_ms=$(echo "$refused" | field 4)
echo "(sleeping $wait_ms ms)"
sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
granted=$(cli CL.TAKE user:1 1 "${options[@]}")
printf 'redis> CL.TAKE user:1 1 %s\n' "${options[*]}"
echo "$granted" | awk '{ printf "%d) (integer) %s\n", NR, $0 }'
check 'the take after the wait' 1 "$(echo "$granted" | field 1)"

say '3. The bucket is a plain hash, and its key expires when it is full again.'
show HGETALL user:1
show PTTL user:1

say '4. A bucket made by hand works too; an RFC 3339 time is fine.'
show HSET token_bucket:user123 tokens 200 timestamp "$(date -u +%Y-%m-%dT%H:%M:%SZ)" userWeight 1
show CL.TAKE token_bucket:user123 50
show HGETALL token_bucket:user123

say '5. All or none: the second bucket refuses, so the first is not charged.'
show CL.TAKE ip:9 3 CAPACITY 5 REFILL 0
both=(user:2 3 CAPACITY 100 REFILL 0 AND ip:9 3)
show CL.TAKEALL "${both[@]}"
all=$(cli CL.TAKEALL "${both[@]}")
check 'taking from both' 0 "$(echo "$all" | field 1)"
check 'the refusing key' 1 "$(echo "$all" | field 2)"
show EXISTS user:2
check 'user:2 was not charged' 0 "$(cli EXISTS user:2)"

say '6. Give back what was not used.'
show CL.GIVE ip:9 2

say '7. Reserve what work may cost, and settle when it is known: here more, and there is a debt.'
show CL.TAKE model:1 400 CAPACITY 500 REFILL 500 INTERVAL 3600000
show CL.SETTLE model:1 400 650
check 'what is left' -150 "$(cli CL.PEEK model:1 0 | field 3)"
check 'a take in debt' 0 "$(cli CL.TAKE model:1 100 | field 1)"
show CL.SETTLE model:1 300 0

say '8. A pinned policy, changed while traffic flows (50 calls a second).'
show CL.POLICY api CAPACITY 2 REFILL 5
cli --csv -r 150 -i 0.02 CL.TAKE api >"$dir/traffic" &
traffic=$!
sleep 1.5
changed=$(wc -l <"$dir/traffic")
show CL.POLICY api CAPACITY 20 REFILL 30
wait "$traffic"
granted_in() { awk -F, -v from="$1" -v to="$2" 'NR > from && NR <= to { n += $1 } END { print n + 0 }' "$dir/traffic"; }
before=$(granted_in 0 "$changed")
after=$(granted_in "$changed" 150)
echo "granted before the change: $before of $changed calls"
echo "granted after the change:  $after of $((150 - changed)) calls"
if [ "$after" -le "$before" ]; then
    echo 'demo: the raised policy granted no more than the old one' >&2
    exit 1
fi

say '9. Limits by key pattern: written once, on the server.'
show CONFIG SET claw.policies 'login:* 5 5/900000; report:* 100 100/60000'
show CL.TAKE login:ann
check 'the capacity by a rule' 5 "$(cli CL.PEEK login:ann 0 | field 2)"
check 'where it comes from' rule "$(cli CL.POLICY_RO login:ann | field 12)"

say '10. What the server counts.'
cli INFO claw | tr -d '\r' | grep -E '^claw_(version|taken|refused|given|settled|tokens)'

say 'Done; the private server is stopped. Try your own: make run, then redis-cli.'
