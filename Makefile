# make demo   set up what is missing, build, and show it working
# make test   everything that has to hold
# make regions  two regions that share one limit, cut apart and healed
# make run    a server in the foreground; its configuration, made of redis.conf, and
#             its data are in target/run
# make edge   claw-edge in front of a private server: an HTTP rating API with limits, in
#             the foreground, with what to try
# make bench  CL.TAKE against its rivals; REDIS_CELL=path adds redis-cell
# make bench-instructions  instructions per command, compared with bench/instructions.txt;
#             BENCH=--update writes that
# make bench-edge  what a decision of claw-edge costs; LIMITADOR=path adds Limitador
# make bench-ratings  how late a rating is in another region, and how long one takes to join;
#             how many notifications a second there are, and how late they come
# make bench-sync  what region sync and each further region cost, and how fast it is;
#             both compare with another build of the module: AGAINST=path;
#             BENCH="--rounds 15" hands on options, see claw-bench --help
# make audit  the crates that this builds on: licences, origins, and what is known against
#             them; ADVISORY_DB=path, a clone of RustSec's, where that cannot be fetched
# make fuzz   coverage-guided fuzzing of the pure crate, FUZZ seconds a target;
#             needs a nightly toolchain and cargo-fuzz
# make newer-server-tests
#             what depends on the server, on Redis 8.6, Valkey 9.1 and Redict 7.3, and
#             what passes between these, Redis 8.0, Valkey 8.1 and this system's Redis
# make images container-tests
#             the Docker images, and the tests that need Docker
# make plots  the pictures of the documentation, of real runs; REDIS_CELL and BENCH
#             as for make bench
# make dist   the archives of a release, in target/dist
# make train  the weights of the adaptive policy; those off the path are byte for byte what is in
#             adapt/weights
# make adaptive  the adaptive policy at work on a small backend: live, and as a picture;
#             RUN=--real-time hands on options
# make adapt-gates SEEDS=from..to  what has to hold of the adaptive policy, on these
#             seeds of each family of simulated load; THREADS=n (2)
# make adapt-sockets SEEDS=from..to  simulated scenarios, the first of these seeds that are small
#             enough, played with real sockets and compared; ten minutes, for root
# make simulate  thousands of random runs of regions that share limits;
#             RUNS=n of each kind, SEED=n the first of them
# make soak   half an hour of three regions in which everything goes wrong in turn,
#             and the random tests for hours; SOAK=n times the usual length

SHELL := /bin/bash
MODULE := $(or $(CARGO_TARGET_DIR),target)/release/libredis_claw.so
# Looked up when it is used: `build` may have installed it by then.
SERVER = $(shell command -v redis-server || command -v valkey-server)
SOAK ?= 60
FUZZ ?= 300
RUNS ?= 600
SEED ?= 0
BENCH_OPTIONS = $(if $(AGAINST),--against "$(AGAINST)") $(BENCH)

export REDIS_CLAW_MODULE ?= $(abspath $(MODULE))

.PHONY: build demo regions run edge test lint audit manifests unit server-tests newer-server-tests container-tests images plots dist \
	bench bench-instructions bench-sync bench-edge bench-ratings microbench \
	simulate soak fuzz train adaptive adapt-gates adapt-sockets clean

build:
	@scripts/setup.sh build
	cargo build --release --locked

demo: build
	@scripts/demo.sh

regions: build
	@scripts/regions.sh

run: build
	@mkdir -p target/run
	scripts/serve.sh $(SERVER) redis.conf "$(abspath target/run)" "$(REDIS_CLAW_MODULE)"

edge: build
	cargo build --release --locked -p claw-edge
	@scripts/edge.sh

test: lint manifests unit bench-instructions server-tests newer-server-tests container-tests

lint:
	@scripts/setup.sh build test edge
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@# The fuzz targets are a workspace of their own.
	cargo check --locked --manifest-path fuzz/Cargo.toml
	@scripts/audit.sh crates

# All but the advisories is part of `lint`: those can come up in any minute, whatever the change.
audit:
	@scripts/audit.sh crates advisories

# What deploy/kubernetes comes to, without a cluster.
manifests:
	@scripts/check-manifests.sh

# Every crate but the module; the transport's tests load the module too.
unit: build
	@scripts/setup.sh edge
	cargo test --locked --workspace --exclude redis-claw
	cargo test --locked --lib

# Real servers, the real module. What needs redis-cell is counted as ignored
# unless REDIS_CELL names its module file, and what needs Docker always: it comes
# after.
server-tests: build
	cargo test --locked --test '*' $(if $(REDIS_CELL),-- --include-ignored --skip docker:: --skip newer::)

# What depends on the server most, on servers that are newer than this system's, and
# what needs one. They come from Debian, so elsewhere this is left out.
DEPENDING = $(addprefix --test ,cluster conventions durability listeners replication serve upgrade)
newer-server-tests: build
	@if command -v dpkg-deb >/dev/null; then \
		scripts/newer-servers.sh && for name in redis valkey redict; do \
			export REDIS_SERVER=target/servers/bin/$$name-server REDIS_CLI=target/servers/bin/$$name-cli; \
			cargo test --locked $(DEPENDING) || exit 1; \
			[ $$name = redict ] || cargo test --locked --test '*' -- --ignored newer:: || exit 1; \
		done; \
	else \
		printf '\n%s\n\n' 'SKIPPED: newer-server-tests: they come from Debian packages.' >&2; \
		[ -z "$$CI" ]; \
	fi

# The images on every supported server, and the archive. Where Docker has to be
# there, as in CI, its absence is an error.
container-tests:
	@if docker info >/dev/null 2>&1; then \
		scripts/images.sh && scripts/dist.sh && \
		cargo test --locked --test servers -- --include-ignored docker::; \
	else \
		printf '\n%s\n%s\n\n' 'SKIPPED: container-tests: no Docker engine is running.' \
			'scripts/with-docker.sh make container-tests starts one for the time being.' >&2; \
		[ -z "$$CI" ]; \
	fi

# Without PING, INCR and merges, which the picture does not show.
PLOTTED = policy,throttle,lua,rule,take,refused,pinned,hset$(if $(REDIS_CELL),$(comma)cell)
comma := ,
plots: build
	scripts/plot-bucket.py $(SERVER) "$(REDIS_CLAW_MODULE)"
	scripts/plot-regions.py $(SERVER) "$(REDIS_CLAW_MODULE)"
	cargo run --release --locked -p claw-bench -- --only $(PLOTTED) $(BENCH) >target/bench.txt
	scripts/plot-bench.py target/bench.txt

images:
	@scripts/images.sh

dist:
	@scripts/dist.sh

bench: build
	cargo run --release --locked -p claw-bench -- $(BENCH_OPTIONS)

bench-instructions: build
	@scripts/setup.sh count
	cargo run --release --locked -p claw-bench -- instructions $(BENCH)

bench-edge: build
	cargo build --release --locked -p claw-edge --bin claw-edge --example rls_load
	scripts/bench-edge.py $(BENCH_EDGE)

bench-ratings: build
	cargo build --release --locked -p claw-edge
	CLAW_EDGE=$(dir $(REDIS_CLAW_MODULE))claw-edge \
		cargo test --locked -p claw-edge --test regions --test notify -- --ignored --nocapture --test-threads 1 measure

bench-sync: build
	cargo run --release --locked -p claw-bench -- sync $(BENCH_OPTIONS)

microbench:
	cargo bench --locked -p claw-core

simulate:
	cargo run --release --locked -p claw-sim -- --runs $(RUNS) --seed $(SEED)

soak: build
	PROPTEST_CASES=$$(( $(SOAK) * 1000 )) cargo test --release --locked -p claw-core
	CLAW_SOAK=$(SOAK) cargo test --locked --test hostile --test replication --test durability --test cluster --test merge --test regions -- --nocapture

# Each file is written when it is whole.
TRAINED := off-path-1 off-path-2 off-path-3 on-path-1
SEEDS ?= 4100000..4100040
train:
	cargo build --release --locked -p claw-train
	@mkdir -p target/train
	@for name in $(TRAINED); do \
		corrects=$${name%-*} && iterations=$$([ $$corrects = on-path ] && echo 60 || echo 100) && \
		$(dir $(MODULE))claw-train train $$corrects $${name##*-} $$iterations >target/train/$$name.txt && \
		mv target/train/$$name.txt adapt/weights/ || exit 1; \
	done

adaptive: build
	cargo build --release --locked -p claw-edge
	scripts/adaptive.py $(RUN)

adapt-sockets: build
	cargo build --release --locked -p claw-edge -p claw-train
	scripts/adapt-sockets.py --seed $(firstword $(subst ., ,$(SEEDS)))

adapt-gates:
	cargo run --release --locked -p claw-train -- gates $(SEEDS)

fuzz:
	@for target in text record blob debits; do \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ) || exit 1; \
	done

clean:
	cargo clean
