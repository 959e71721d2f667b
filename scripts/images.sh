#!/usr/bin/env bash
# Builds redis-claw on every server that is tested, and claw-edge, and prints the sizes.
#
# usage: scripts/images.sh [NAME..]     (default: all)
#
#   NAME       image                 base, and the variable that names another
#   redis-7    redis-claw:redis-7    redis:7          BASE_REDIS_7
#   redis-8    redis-claw:redis-8    redis:8          BASE_REDIS_8
#   valkey-8   redis-claw:valkey-8   valkey/valkey:8  BASE_VALKEY_8
#   valkey-9   redis-claw:valkey-9   valkey/valkey:9  BASE_VALKEY_9
#   edge       redis-claw:edge       debian:bookworm-slim  BASE_EDGE
#
# and provides those that compose.yaml, and deploy/compose/, build their services on or run:
#
#   compose                          python:3-slim    BASE_PYTHON
#                                    node:20-slim     BASE_NODE
#                                    nginx:1          BASE_NGINX
#                                    envoyproxy/envoy:v1.40-latest  BASE_ENVOY
#                                    prom/prometheus:latest  BASE_PROMETHEUS
#
# The image of the build stage is BASE_RUST. A base that is neither here nor in a
# registry that can be reached is made by scripts/stand-in-images.sh, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
rust=${BASE_RUST:-$(sed -n 's/^ARG RUST=//p' Dockerfile)}
names=("$@")
[ $# -gt 0 ] || names=(redis-7 redis-8 valkey-8 valkey-9 edge compose)

base_of() {
    case $1 in
    redis-7) echo "${BASE_REDIS_7:-redis:7}" ;;
    redis-8) echo "${BASE_REDIS_8:-redis:8}" ;;
    valkey-8) echo "${BASE_VALKEY_8:-valkey/valkey:8}" ;;
    valkey-9) echo "${BASE_VALKEY_9:-valkey/valkey:9}" ;;
    edge) echo "${BASE_EDGE:-debian:bookworm-slim}" ;;
    *)
        echo "images.sh: there is no $1" >&2
        return 1
        ;;
    esac
}

provide() { # provide IMAGE: sees to it that it is here
    if ! docker image inspect "$1" >/dev/null 2>&1 &&
        ! timeout 300 docker pull --quiet "$1" >/dev/null 2>&1; then
        scripts/stand-in-images.sh "$1"
    fi
    if [ "$(docker image inspect --format '{{index .Config.Labels "stand-in"}}' "$1")" = true ]; then
        echo "images.sh: $1 is a local stand-in, not the official image" >&2
    fi
}

size() { # size IMAGE: in MB
    docker image inspect --format '{{.Size}}' "$1" | awk '{ printf "%.1f", $1 / 1e6 }'
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
build() { # build IMAGE [OPTION..]
    local image=$1
    shift
    docker build --network host --build-arg HTTP_PROXY --build-arg HTTPS_PROXY \
        --build-arg NO_PROXY --build-arg "RUST=$rust" --tag "$image" "$@" . >"$log" 2>&1 && return
    tail -n 40 "$log" >&2
    echo "images.sh: $image was not built" >&2
    exit 1
}

provide "$rust"
# By a name, so that it stays in the cache when the older ones are removed.
build redis-claw:build --target build
case " ${names[*]} " in
*" edge "*) build redis-claw:build-edge --file edge/Dockerfile --target build ;;
esac
for name in "${names[@]}"; do
    if [ "$name" = compose ]; then
        provide "${BASE_PYTHON:-python:3-slim}"
        provide "${BASE_NODE:-node:20-slim}"
        provide "${BASE_NGINX:-nginx:1}"
        provide "${BASE_ENVOY:-envoyproxy/envoy:v1.40-latest}"
        provide "${BASE_PROMETHEUS:-prom/prometheus:latest}"
        continue
    fi
    base=$(base_of "$name")
    provide "$base"
    file=Dockerfile
    [ "$name" != edge ] || file=edge/Dockerfile
    build "redis-claw:$name" --file "$file" --build-arg "BASE=$base" --build-arg "VERSION=$version"
    echo "redis-claw:$name: $(size "redis-claw:$name") MB, of which $base $(size "$base") MB"
done
docker image prune --force --filter label=redis-claw=build >/dev/null
