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

test: setup ## everything that must hold: format, lints, docs, all rings of tests, the proof, schemathesis, faults
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	scripts/ensure-docker.sh
	scripts/ensure-sample-image.sh
	$(CARGO) test --locked --workspace
	scripts/schemathesis.sh 25
	$(MAKE) faults

check: test ## the same as test

MINUTES ?= 10
walk: ## random walks for MINUTES, each of a new seed; a failure names it
	WALK_MINUTES=$(MINUTES) $(CARGO) test --locked --test flow walk -- --nocapture

proof: ## walks through all states of small clusters, further than make test does: some minutes
	PROOF=large $(CARGO) test --locked -p kubeleet-proof -- --nocapture --test-threads=1

SECONDS ?= 60
fuzz: ## hostile input for every parser, SECONDS for each; a failure names its seed
	BOLERO_RANDOM_TEST_TIME_MS=$(SECONDS)000 $(CARGO) test --locked --lib fuzz

schemathesis: ## requests made from the OpenAPI document, sound and broken, against a real API
	scripts/schemathesis.sh

# Namespaces need root.
AS_ROOT ?= $(shell [ "$$(id -u)" = 0 ] || echo sudo)
SEED ?= 1
FAULTS = target/faults-$(SEED)
faults: setup ## clusters of real processes, broken in every way, as root; about 5 minutes
	$(CARGO) build --locked --workspace --bins
	$(AS_ROOT) rm -rf $(FAULTS)
	$(AS_ROOT) target/debug/faults run --in-turn --seconds 230 --clusters 2 --seed $(SEED) --dir $(FAULTS)

blind: setup ## without any one remedy the fault suite must see a promise break, as root; about 5 minutes
	$(CARGO) build --locked --workspace --bins
	$(AS_ROOT) rm -rf target/faults-blind
	$(AS_ROOT) target/debug/faults blind --dir target/faults-blind

HOURS ?= 1
soak: setup ## random faults for HOURS and then walks as long; SEED=s; a failure names its seed and keeps its logs
	$(CARGO) build --locked --workspace --bins
	$(AS_ROOT) rm -rf $(FAULTS)
	$(AS_ROOT) target/debug/faults run --seconds $$(( $(HOURS) * 3600 )) --clusters 4 --seed $(SEED) --dir $(FAULTS)
	$(MAKE) walk MINUTES=$$(( $(HOURS) * 60 ))

bench: build ## what this machine does: the table of docs/performance.md, beside the committed one
	git show HEAD:docs/performance.md > target/performance-before.md
	target/release/leet bench all --against target/performance-before.md --into docs/performance.md

image: ## the container image kubeleet:latest, which compose.yaml runs
	docker build -t kubeleet:latest .

.PHONY: help setup build demo test check walk proof fuzz schemathesis faults blind soak bench image
