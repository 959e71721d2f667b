#!/usr/bin/env bash
# Makes the archives of a release, of the module and of claw-edge, in target/dist:
# redis-claw-VERSION-TARGET.tar.gz and claw-edge-VERSION-TARGET.tar.gz; and, where `make
# images` has made it, the image of claw-edge: claw-edge-VERSION-image.tar.gz, for docker load
#
# usage: scripts/dist.sh [--check] [TARGET..]     (default: this machine's)
#
# In the module's: the module, redis.conf, upgrade.sh, LICENSE, README.md, CHANGELOG.md,
# SHA256SUMS, and what is linked in, redis-claw.cdx.json (CycloneDX 1.5, by cargo-cyclonedx).
# In claw-edge's: the program, deploy/, its README.md, and the same of the others.
# The same source, toolchain and C toolchain give the same bytes: with --check both are built
# once more, elsewhere, and compared.
#
# A target other than this machine's needs its Rust library (rustup target add) and
# a C compiler and linker that Cargo is told of.
set -euo pipefail
shopt -s inherit_errexit
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
bills() { find . -maxdepth 2 -name bill.cdx.json "$@"; }
trap 'rm -rf "$work"; bills -delete' EXIT
# The time that files in the archive have: that of the last change, if known.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

bill_of_materials() { # bill_of_materials TARGET MANIFEST FILE
    if ! "$out/tools/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null | grep -qF "$cyclonedx"; then
        echo "dist.sh: installing cargo-cyclonedx $cyclonedx" >&2
        cargo install --quiet --locked --root "$out/tools" --target-dir "$out/tools/build" \
            "cargo-cyclonedx@$cyclonedx" >&2
        rm -rf "$out/tools/build"
    fi
    "$out/tools/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 \
        --target "$1" --override-filename bill.cdx >&2
    # Where the source was is nobody's business.
    sed "s|path+file://$PWD|path+file:///redis-claw|g" "${2%Cargo.toml}bill.cdx.json" >"$3"
    bills -delete
}

check_glibc() { # check_glibc FILE
    local needed
    needed=$(objdump -T "$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
    [ "$(printf '%s\n' "$needed" "$floor" | sort -V | tail -n 1)" = "$floor" ] ||
        fail "$1 needs glibc $needed, more than $floor: build on an older system"
    echo "$needed"
}

rebuild() { # rebuild ARGUMENT..: builds in another place, and prints the checksum
    mkdir "$work/elsewhere"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- -c | tar -x -C "$work/elsewhere"
    (
        cd "$work/elsewhere"
        built=$(CARGO_TARGET_DIR=$work/build scripts/release-build.sh "$@")
        sha256sum <"$built"
    )
    rm -rf "$work/elsewhere" "$work/build"
}

archive() { # archive PRODUCT MANIFEST TARGET BUILT: of the folder of that name, with the rest added
    local name=$1-$version-$3 glibc
    glibc=$(check_glibc "$4")
    install -m 755 "$4" "$work/$name"
    install -m 644 LICENSE CHANGELOG.md "$work/$name"
    bill_of_materials "$3" "$2" "$work/$name/$1.cdx.json"
    (cd "$work/$name" && find . -type f ! -name SHA256SUMS -printf '%P\0' | LC_ALL=C sort -z |
        xargs -0 sha256sum -- >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
    tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner -c "$name" | gzip -9n >"$out/$name.tar.gz"
    echo "$out/$name.tar.gz: $(stat -c %s "$out/$name.tar.gz") bytes," \
        "$(basename "$4") $(stat -c %s "$4") bytes, glibc $glibc or later"
}

built() { # built ARGUMENT..: builds, and prints where it is
    local file
    file=$(CARGO_TARGET_DIR=$out/build scripts/release-build.sh "$@")
    if [ -n "$check" ]; then
        [ "$(sha256sum <"$file")" = "$(rebuild "$@")" ] || fail "$*: built twice, and not the same"
        echo "dist.sh: $*: built twice, the same bytes" >&2
    fi
    echo "$file"
}

for target in "${targets[@]}"; do
    module=$(built "$target")
    dir=$work/redis-claw-$version-$target
    mkdir "$dir"
    install -m 755 scripts/upgrade.sh "$dir"
    install -m 644 redis.conf README.md "$dir"
    archive redis-claw Cargo.toml "$target" "$module"

    program=$(built --edge "$target")
    dir=$work/claw-edge-$version-$target
    mkdir "$dir"
    install -m 644 docs/edge/README.md "$dir"
    cp -r deploy "$dir/deploy"
    find "$dir/deploy" -name __pycache__ -prune -exec rm -r {} +
    # Whatever the umask here is.
    chmod -R u=rwX,go=rX "$dir/deploy"
    archive claw-edge edge/Cargo.toml "$target" "$program"
done

if docker image inspect redis-claw:edge >/dev/null 2>&1; then
    docker save redis-claw:edge | gzip -n >"$out/claw-edge-$version-image.tar.gz"
    echo "$out/claw-edge-$version-image.tar.gz: $(stat -c %s "$out/claw-edge-$version-image.tar.gz") bytes"
fi
