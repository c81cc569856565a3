.PHONY: demo test test-cgroup2 build runtimes image fuzz bench bench-counts bench-counts-keep bench-profile bench-peers bench-compare bench-programs \
	load-gateway load-runtime load-control

# Builds, serves, trains and deploys examples/iris, calls it, and keeps the server in the foreground.
# DEMO_EXIT=1 ends after the answer. DEMO_LISTEN=ADDR:PORT chooses another address.
demo: build
	@deploy/demo.sh

# All checks and tests.
test:
	@deploy/test.sh

# The tests of what holds replicas in where control groups are of version 2, which needs a kernel of its own: in a virtual
# machine, some minutes. Not part of `make test`.
test-cgroup2:
	@deploy/cgroup2.sh

build:
	@deploy/setup.sh build
	cargo build --release --bins --locked

# What must hold of any bytes from outside, tried for so long by a fuzzer: `make fuzz FUZZ_SECONDS=600`.
fuzz:
	@deploy/fuzz.sh

# The runtimes of further Pythons, for `millgate runtimes add`: of all that are found here and can be embedded.
# PYTHONS="/path/to/python3.12 …" names some that are not found, or are preferred to what is.
runtimes: build
	deploy/runtimes.sh build $(PYTHONS)

# A container image, where there is an engine (docker or podman).
image:
	@deploy/image/build.sh

# Every stage of a call: its time, its instructions, its allocations, beside the figures kept in bench/counts.txt.
bench: bench-counts
	cargo bench --locked -p millgate-bench --bench stages -- --warm-up-time 0.5 --measurement-time 2 --noplot

bench-counts:
	@deploy/setup.sh bench
	cargo bench --locked -p millgate-bench --bench counts

# Keeps the figures of now as those to compare with.
bench-counts-keep:
	@deploy/setup.sh bench
	cargo bench --locked -p millgate-bench --bench counts -- --keep

# System calls and instructions of one call on the real server. OPTIONS="--instructions" for the latter.
bench-profile: bench-programs
	cd bench && python3 -m peers.profile $(OPTIONS)

# Millgate beside its peers and the limits of this machine: writes bench/RESULTS.md. About half an hour.
# OPTIONS="--peers fastapi,nginx --cases add64 --rounds 1 --extras idle" for a part of it; --minutes 25 for so long at most.
bench-peers: bench-programs
	cd bench && python3 -m peers $(OPTIONS)

# This tree beside another commit, in turns: make bench-compare BASE=HEAD~3 [OPTIONS="--cases add64,add8"]
bench-compare: bench-programs
	@test -n "$(BASE)" || { echo "error: which commit? make bench-compare BASE=main" >&2; exit 2; }
	bench/build_base.sh "$(BASE)"
	cd bench && python3 -m peers --compare .peers/base/target/release $(OPTIONS)

bench-programs:
	@deploy/setup.sh bench
	cargo build --release --locked -p millgate -p millgate-replica-runtime -p millgate-bench --bins --examples

# Load, faults and attacks against a real server, scenario after scenario, and one table of what was met: about half an
# hour, a quarter, and half an hour. OPTIONS="--duration 10s" for a look. One alone: target/release/millgate-loadtests SCENARIO
load-gateway load-runtime load-control: load-%: build
	cargo build --release --locked -p millgate-replica-runtime --example json_side_by_side
	target/release/millgate-loadtests $* $(OPTIONS)
