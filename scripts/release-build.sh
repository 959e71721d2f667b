#!/usr/bin/env bash
# Builds the module, or claw-edge, as it is released, for the Dockerfiles and scripts/dist.sh:
# the same source, toolchain and C toolchain give the same bytes, wherever the
# source and Cargo's directories are.
#
# usage: scripts/release-build.sh [--edge] [TARGET]
#
# What makes it so: dependencies only from Cargo.lock, one codegen unit, no path
# of this machine in messages, line tables or C objects, no time of day, and no
# line tables at all in the end. The path of what was built is printed last.
set -euo pipefail
cd "$(dirname "$0")/.."

what=(--package redis-claw --lib)
built=libredis_claw.so
if [ "${1:-}" = --edge ]; then
    what=(--package claw-edge --bin claw-edge)
    built=claw-edge
    shift
fi
# Named even when it is this machine's own: Cargo makes a difference.
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
out=${CARGO_TARGET_DIR:-target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Nothing the caller's environment or Cargo configuration adds.
unset RUSTFLAGS RUSTC_WRAPPER
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$PWD=/redis-claw"$'\x1f'"--remap-path-prefix=$cargo_home/registry/src=/crates"
export CFLAGS="-ffile-prefix-map=$PWD=/redis-claw -ffile-prefix-map=$cargo_home/registry/src=/crates"

cargo build --release --locked "${what[@]}" --target "$target" >&2
echo "$out/$target/release/$built"
