.PHONY: demo test build image

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
