# What can be done here. `make` alone lists it.

CARGO ?= cargo

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: ## install what building, testing and the demo need (Debian, Ubuntu)
	scripts/setup.sh test

build: ## all four programs, into target/release
	$(CARGO) build --release --locked

demo: ## a cluster of three nodes on this machine with the sample service; ONCE=1 ends by itself
	@ONCE=$(ONCE) scripts/demo.sh

test: setup ## everything that must hold: format, lints, docs, all rings of tests
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	scripts/ensure-docker.sh
	scripts/ensure-sample-image.sh
	$(CARGO) test --locked

check: test ## the same as test

MINUTES ?= 10
soak: ## random walks for MINUTES, each of a new seed; a failure names it
	WALK_MINUTES=$(MINUTES) $(CARGO) test --locked --test flow walk -- --nocapture

bench: build ## how fast this machine places pods, beside the floor
	target/release/leet bench place --nodes 100 --pods 100000
	target/release/leet bench place --nodes 5000 --pods 100000

image: ## the container image kubeleet:latest, which compose.yaml runs
	docker build -t kubeleet:latest .

.PHONY: help setup build demo test check soak bench image
