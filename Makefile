.PHONY: demo test build image bench bench-counts bench-counts-keep bench-profile bench-peers bench-compare

# Builds, serves, trains and deploys examples/iris, calls it, and keeps the server in the foreground.
# DEMO_EXIT=1 ends after the answer. DEMO_LISTEN=ADDR:PORT chooses another address.
demo: build
	@deploy/demo.sh

# All checks and tests.
test:
	@deploy/test.sh

build:
	@deploy/setup.sh build
	cargo build --release --bins --locked

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
