#!/usr/bin/env bash
# Makes the archives of a release: target/dist/redis-claw-VERSION-TARGET.tar.gz
#
# usage: scripts/dist.sh [--check] [TARGET..]     (default: this machine's)
#
# In each: the module, redis.conf, upgrade.sh, LICENSE, README.md, CHANGELOG.md, SHA256SUMS,
# and what is linked in, redis-claw.cdx.json (CycloneDX 1.5, by cargo-cyclonedx).
# The same source, toolchain and C toolchain give the same bytes: with --check the
# module is built once more, elsewhere, and compared.
#
# A target other than this machine's needs its Rust library (rustup target add) and
# a C compiler and linker that Cargo is told of.
set -euo pipefail
cd "$(dirname "$0")/.."

# The glibc that the module may need, documented in docs/servers.md.
floor=2.34
cyclonedx=0.5.9

fail() {
    echo "dist.sh: $*" >&2
    exit 1
}

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
targets=("$@")
[ $# -gt 0 ] || targets=("$(rustc -vV | sed -n 's/^host: //p')")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
out=${CARGO_TARGET_DIR:-$PWD/target}/dist
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
# cargo-cyclonedx writes beside every manifest of the workspace.
bills() { find . -maxdepth 2 -name redis-claw.cdx.json "$@"; }
trap 'rm -rf "$work"; bills -delete' EXIT
# The time that files in the archive have: that of the last change, if known.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

bill_of_materials() { # bill_of_materials TARGET FILE
    if ! "$out/tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -qF "$cyclonedx"; then
        echo "dist.sh: installing cargo-cyclonedx $cyclonedx" >&2
        cargo install --quiet --locked --root "$out/tools" --target-dir "$out/tools/build" \
            "cargo-cyclonedx@$cyclonedx" >&2
        rm -rf "$out/tools/build"
    fi
    "$out/tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 \
        --target "$1" --override-filename redis-claw.cdx >&2
    # Where the source was is nobody's business.
    sed "s|path+file://$PWD|path+file:///redis-claw|g" redis-claw.cdx.json >"$2"
    bills -delete
}

check_glibc() { # check_glibc MODULE
    local needed
    needed=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
    [ "$(printf '%s\n' "$needed" "$floor" | sort -V | tail -n 1)" = "$floor" ] ||
        fail "the module needs glibc $needed, more than $floor: build on an older system"
    echo "$needed"
}

rebuild() { # rebuild TARGET: in another place, and prints the checksum
    mkdir "$work/elsewhere"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- -c | tar -x -C "$work/elsewhere"
    (
        cd "$work/elsewhere"
        module=$(CARGO_TARGET_DIR=$work/build scripts/release-build.sh "$1")
        sha256sum <"$module"
    )
    rm -rf "$work/elsewhere" "$work/build"
}

for target in "${targets[@]}"; do
    name=redis-claw-$version-$target
    module=$(CARGO_TARGET_DIR=$out/build scripts/release-build.sh "$target")
    glibc=$(check_glibc "$module")
    if [ -n "$check" ]; then
        [ "$(sha256sum <"$module")" = "$(rebuild "$target")" ] ||
            fail "$target: built twice, and not the same"
        echo "dist.sh: $target: built twice, the same bytes" >&2
    fi
    dir=$work/$name
    mkdir "$dir"
    install -m 755 "$module" scripts/upgrade.sh "$dir"
    install -m 644 redis.conf LICENSE README.md CHANGELOG.md "$dir"
    bill_of_materials "$target" "$dir/redis-claw.cdx.json"
    (cd "$dir" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
    tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner -c "$name" | gzip -9n >"$out/$name.tar.gz"
    echo "$out/$name.tar.gz: $(stat -c %s "$out/$name.tar.gz") bytes, module $(stat -c %s "$module")" \
        "bytes, glibc $glibc or later"
done
