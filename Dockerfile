# Redis or Valkey with redis-claw. One file for all of them:
#
#   docker build --build-arg BASE=redis:8 --tag redis-claw .
#   docker build --build-arg BASE=valkey/valkey:9 --tag redis-claw .
#   docker run --rm --publish 127.0.0.1:6379:6379 redis-claw
#   docker run --rm redis-claw --claw.max-tokens 50 --io-threads 4
#
# Arguments of `docker run` are directives, and override /data/redis.conf, which is
# made of redis.conf with the first start, and written by CONFIG REWRITE. BASE is an
# image with glibc, so not one of the alpine tags. `make images` builds all that
# is tested.
#
# Nothing here needs more than the builder that every Docker engine has.

# The oldest Debian that is supported: what is linked here loads on every newer
# system, see docs/servers.md. The version is that of rust-toolchain.toml.
ARG RUST=rust:1.95.0-bookworm
ARG BASE=redis:8

FROM ${RUST} AS build
LABEL redis-claw=build
# bindgen reads the server's header with libclang.
RUN dpkg -s libclang-dev >/dev/null 2>&1 || { \
        apt-get update \
        && apt-get install -y --no-install-recommends libclang-dev \
        && rm -rf /var/lib/apt/lists/*; \
    }
WORKDIR /build
COPY . .
RUN module=$(scripts/release-build.sh) && mv "$module" / \
    && rm -rf target "${CARGO_HOME:?}/registry"

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="redis-claw" \
      org.opencontainers.image.description="Token-bucket rate limiting on Redis and Valkey" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /libredis_claw.so /usr/local/lib/redis/libredis_claw.so
COPY redis.conf /usr/local/etc/redis-claw/redis.conf
COPY scripts/serve.sh /usr/local/bin/redis-claw-serve
COPY LICENSE /usr/local/share/doc/redis-claw/LICENSE

# The user of the server and the owner of /data, in the images of Redis and of
# Valkey alike. By number, for the names differ.
USER 999
WORKDIR /data
EXPOSE 6379

# The server that is there, as process 1, so that it gets the signals. Whoever can
# reach a container's port is let in, as with the images this is built on: publish
# the port only where you want it, or set requirepass.
ENTRYPOINT ["/bin/sh", "-c", "exec redis-claw-serve \"$(command -v valkey-server || command -v redis-server)\" /usr/local/etc/redis-claw/redis.conf /data /usr/local/lib/redis/libredis_claw.so --bind '*' '-::*' --protected-mode no \"$@\"", "server"]
CMD []

# Healthy: it has loaded its data and the module. With a password, give the
# container REDISCLI_AUTH.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/bin/sh", "-c", "cli=$(command -v valkey-cli || command -v redis-cli) && [ \"$(\"$cli\" PING)\" = PONG ] && \"$cli\" INFO claw | grep -q ^claw_version:"]
