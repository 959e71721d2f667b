#!/usr/bin/env bash
# Unpacks servers other than this machine's system has, from Debian's packages
# with all the libraries that they need, down to the C library. Nothing is installed,
# and no root is needed.
#
# usage: scripts/newer-servers.sh     (prints what there is)
#
#   target/servers/bin/redis-server    Redis 8.6     Debian experimental
#   target/servers/bin/valkey-server   Valkey 9.1    Debian sid
#   target/servers/bin/redict-server   Redict 7.3    Debian sid
#   target/servers/bin/redis8-server   Redis 8.0     Debian trixie
#   target/servers/bin/valkey8-server  Valkey 8.1    Debian trixie
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

work=
# Unpacks packages of some suites with what they need, into a root of their own.
unpack() { # unpack ROOT 'SUITE..' PACKAGE..
    local root=$1 suites=$2 suite package apt
    mkdir -p "$work/$root"/{lists,archives}/partial
    touch "$work/$root/status" # as if nothing were installed
    for suite in $suites; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done >"$work/$root/sources"
    apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/$root/sources" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/$root/lists" -o "Dir::State::Status=$work/$root/status"
        -o "Dir::Cache::Archives=$work/$root/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Sandbox::User=root
        -o Debug::NoLocking=1)
    "${apt[@]}" update
    "${apt[@]}" install --download-only --yes --no-install-recommends "${@:3}" >/dev/null
    for package in "$work/$root"/archives/*.deb; do
        dpkg-deb -x "$package" "$work/new/$root"
    done
}
# Makes a server and its client of a root runnable.
offer() { # offer ROOT NAME AS
    local kind
    for kind in server cli; do
        wrapper "$work/new/$1" "$2-$kind" | sed "s|$work/new|$place|g" >"$work/new/bin/$3-$kind"
        chmod 755 "$work/new/bin/$3-$kind"
    done
}

if [ ! -x "$place/bin/valkey8-server" ]; then
    for program in apt-get dpkg-deb; do
        command -v "$program" >/dev/null || {
            echo "newer-servers.sh: $program is missing: this needs a Debian or Ubuntu" >&2
            exit 1
        }
    done
    mkdir -p target
    work=$PWD/$(mktemp -d -p target servers.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/new/bin"
    unpack newest 'sid experimental' \
        redis-server/experimental redis-tools/experimental valkey-server redict-server
    unpack trixie trixie redis-server valkey-server
    for name in redis valkey redict; do offer newest "$name" "$name"; done
    for name in redis valkey; do offer trixie "$name" "${name}8"; done
    rm -rf "$place"
    mv "$work/new" "$place"
fi
for server in "$place"/bin/*-server; do
    echo "$server: $("$server" --version)"
done
