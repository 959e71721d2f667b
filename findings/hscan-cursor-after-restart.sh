#!/usr/bin/env bash
# A cursor of HSCAN that is kept over a restart of the server leaves fields out, without an error.
#
# Redis 7.0.15 (Debian 5:7.0.15-1~deb12u10), a hash of 5,000 fields, half of it scanned; SHUTDOWN SAVE,
# start again from the same dump, and the scan goes on with the cursor that it had. It ends with
# cursor 0, as if all had been seen, but of the 5,000 fields some 1,200 were never returned: each
# process has a hash seed of its own, and so another order. Within one process nothing is left out.
# The documentation of SCAN says what is guaranteed from the start of a scan to its end, and nothing
# of a restart between. Whoever keeps a cursor has to keep `run_id` of INFO with it.
#
# usage: findings/hscan-cursor-after-restart.sh     (Debian 12 on amd64, apt-get, dpkg-deb)
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download redis-server=5:7.0.15-1~deb12u10 \
    redis-tools=5:7.0.15-1~deb12u10 liblzf1=3.6-3 libjemalloc2=5.3.0-1 libatomic1=12.2.0-14+deb12u1
for package in *.deb; do dpkg-deb -x "$package" root; done
lib=$dir/root/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$lib
cli() { root/usr/bin/redis-cli -s "$dir/socket" "$@"; }
start() {
    root/usr/bin/redis-server --port 0 --unixsocket "$dir/socket" --dir "$dir" --save '' >>log &
    server=$!
    until [ "$(cli PING 2>/dev/null)" = PONG ]; do kill -0 "$server"; done
}
# Adds the fields from a cursor on to a file, up to so many or to the end, and prints where it stands.
scan() { # scan CURSOR FIELDS FILE
    local cursor=$1
    while :; do
        cli HSCAN h "$cursor" COUNT 100 >reply
        cursor=$(head -n 1 reply)
        tail -n +2 reply | awk 'NR % 2 == 1' >>"$3"
        if [ "$cursor" = 0 ] || [ "$(wc -l <"$3")" -ge "$2" ]; then break; fi
    done
    echo "$cursor"
}
seen() { sort -u "$1" | wc -l; }

start
cli EVAL "for i = 1, 5000 do redis.call('HSET', 'h', 'field' .. i, 1) end" 0 >/dev/null
cursor=$(scan 0 2500 one)
[ "$cursor" != 0 ]
cp one two
[ "$(scan "$cursor" 9999 one)" = 0 ]
echo "in one process: $(seen one) of 5000 fields"
cli SHUTDOWN SAVE
wait "$server"
start
[ "$(cli HLEN h)" = 5000 ]
[ "$(scan "$cursor" 9999 two)" = 0 ]
echo "over a restart: $(seen two) of 5000 fields"
[ "$(seen one)" = 5000 ] && [ "$(seen two)" -lt 4500 ]
