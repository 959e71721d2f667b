#!/usr/bin/env bash
# Unpacks servers that are newer than this machine's system, from Debian's packages
# with all the libraries that they need, down to the C library. Nothing is installed,
# and no root is needed.
#
# usage: scripts/newer-servers.sh     (prints what there is)
#
#   target/servers/bin/redis-server    Redis 8.6     Debian experimental
#   target/servers/bin/valkey-server   Valkey 9.1    Debian sid
#   target/servers/bin/redict-server   Redict 7.3    Debian sid
#
# and a -cli of each. The tests run on one of them by
#
#   REDIS_SERVER=target/servers/bin/valkey-server REDIS_CLI=target/servers/bin/valkey-cli
#
# and `make newer-server-tests` runs those that depend on the server on each. What is
# there already is left alone: remove target/servers to fetch what is newest.
#
# Environment: DEBIAN_MIRROR (http://deb.debian.org/debian). Needs apt-get and
# dpkg-deb, on Linux.
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
place=$PWD/target/servers

# What is printed by a program of the packages, by their own loader and libraries:
# those of the system may be too old.
wrapper() { # wrapper ROOT PROGRAM
    local loader
    loader=$(find "$1/usr/lib" -name 'ld-linux*.so.*' -type f | head -n 1)
    printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' \
        "$loader" "$(dirname "$loader")" "$1/usr/bin/$2"
}

if [ ! -d "$place/bin" ]; then
    for program in apt-get dpkg-deb; do
        command -v "$program" >/dev/null || {
            echo "newer-servers.sh: $program is missing: this needs a Debian or Ubuntu" >&2
            exit 1
        }
    done
    mkdir -p target
    work=$(mktemp -d -p target servers.XXXXXX)
    work=$PWD/$work
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/apt/{lists,archives}/partial "$work/new/bin"
    touch "$work/apt/status" # as if nothing were installed
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    for suite in sid experimental; do
        echo "deb [signed-by=$keys] $mirror $suite main"
    done >"$work/apt/sources"
    apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/apt/lists" -o "Dir::State::Status=$work/apt/status"
        -o "Dir::Cache::Archives=$work/apt/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Sandbox::User=root
        -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install --download-only --yes --no-install-recommends \
        redis-server/experimental redis-tools/experimental valkey-server redict-server >/dev/null
    for package in "$work"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$work/new/root"
    done
    for name in redis valkey redict; do
        for program in "$name-server" "$name-cli"; do
            wrapper "$work/new/root" "$program" | sed "s|$work/new|$place|g" >"$work/new/bin/$program"
            chmod 755 "$work/new/bin/$program"
        done
    done
    rm -rf "$place"
    mv "$work/new" "$place"
fi
for server in "$place"/bin/*-server; do
    echo "$server: $("$server" --version)"
done
