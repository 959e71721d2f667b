#!/usr/bin/env bash
# CONFIG REWRITE writes the arguments of a module without the quotes that they were given in: after a
# restart the module is handed other arguments than before.
#
# Redis 7.0.15 (Debian 5:7.0.15-1~deb12u10) with a module that logs what it is handed. Of
#   loadmodule /path/args.so "one two" three
# it gets 2 arguments; after CONFIG REWRITE and a restart 3. A module that takes a list in one argument
# has to put together what it is handed.
#
# usage: findings/config-rewrite-module-arguments.sh   (Debian 12 on amd64, apt-get, dpkg-deb, gcc)
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -qq -o APT::Sandbox::User=root download redis-server=5:7.0.15-1~deb12u10 \
    redis-tools=5:7.0.15-1~deb12u10 liblzf1=3.6-3 libjemalloc2=5.3.0-1 libatomic1=12.2.0-14+deb12u1
for package in *.deb; do dpkg-deb -x "$package" root; done
cat >args.c <<'C'
#include <stddef.h>

typedef int (*get_api_fn)(const char *, void *);

int RedisModule_OnLoad(void *ctx, void **argv, int argc) {
    get_api_fn get_api = *(get_api_fn *)ctx;
    void (*attribs)(void *, const char *, int, int);
    void (*log)(void *, const char *, const char *, ...);
    const char *(*text)(const void *, size_t *);
    if (get_api("RedisModule_SetModuleAttribs", &attribs) != 0) return 1;
    if (get_api("RedisModule_Log", &log) != 0) return 1;
    if (get_api("RedisModule_StringPtrLen", &text) != 0) return 1;
    attribs(ctx, "args", 1, 1);
    log(ctx, "warning", "%d arguments", argc);
    for (int at = 0; at < argc; at++) log(ctx, "warning", "argument '%s'", text(argv[at], NULL));
    return 0;
}
C
gcc -shared -fPIC -o args.so args.c
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu
cli() { root/usr/bin/redis-cli -s "$dir/socket" "$@"; }
# Starts the server, prints what the module was handed, and ends the server.
handed() {
    root/usr/bin/redis-server "$dir/redis.conf" >log &
    server=$!
    until [ "$(cli PING 2>/dev/null)" = PONG ]; do kill -0 "$server"; done
    "$@" >/dev/null
    cli SHUTDOWN NOSAVE
    wait "$server"
    grep -oE "[0-9]+ arguments|argument '.*'" log
}
printf 'port 0\nunixsocket %s\nsave ""\nloadmodule %s "one two" three\n' "$dir/socket" "$dir/args.so" >redis.conf
handed cli CONFIG REWRITE | tee before
grep "^loadmodule" redis.conf | sed "s|$dir|/path|"
handed true | tee after
diff before - <<'TEXT'
2 arguments
argument 'one two'
argument 'three'
TEXT
diff after - <<'TEXT'
3 arguments
argument 'one'
argument 'two'
argument 'three'
TEXT
