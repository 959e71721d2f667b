# make demo   set up what is missing, build, and show it working
# make test   everything that has to hold
# make run    a server in the foreground, with redis.conf
# make bench  CL.TAKE against its rivals; REDIS_CELL=path adds redis-cell
# make fuzz   coverage-guided fuzzing of the pure crate, FUZZ seconds a target;
#             needs a nightly toolchain and cargo-fuzz
# make soak   the random tests for hours; SOAK=n times the usual length

SHELL := /bin/bash
MODULE := $(or $(CARGO_TARGET_DIR),target)/release/libredis_claw.so
SERVER := $(shell command -v redis-server || command -v valkey-server)
SOAK ?= 60
FUZZ ?= 300

export REDIS_CLAW_MODULE ?= $(abspath $(MODULE))

.PHONY: build demo run test lint unit server-tests bench microbench soak fuzz clean

build:
	@scripts/setup.sh build
	cargo build --release --locked

demo: build
	@scripts/demo.sh

run: build
	@mkdir -p target/run
	$(SERVER) redis.conf --loadmodule "$(REDIS_CLAW_MODULE)" --dir target/run

test: lint unit server-tests

lint:
	@scripts/setup.sh build test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The pure crate and the test kit; no server with the module.
unit:
	cargo test --locked --workspace --exclude redis-claw
	cargo test --locked --lib

# Real servers, the real module. What needs redis-cell is counted as ignored
# unless REDIS_CELL names its module file.
server-tests: build
	cargo test --locked --test '*' $(if $(REDIS_CELL),-- --include-ignored)

bench: build
	cargo run --release --locked -p claw-bench

microbench:
	cargo bench --locked -p claw-core

soak: build
	PROPTEST_CASES=$$(( $(SOAK) * 1000 )) cargo test --release --locked -p claw-core
	CLAW_SOAK=$(SOAK) cargo test --locked --test hostile --test replication --test durability --test cluster --test merge -- --nocapture

fuzz:
	@for target in text record blob; do \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ) || exit 1; \
	done

clean:
	cargo clean
