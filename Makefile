# x402-envoy. `make demo` shows it, `make test` proves it; `make help` lists the rest.
.DEFAULT_GOAL := help
BUILT  := target/wasm32-wasip1/release/x402_envoy.wasm
WASM   := target/x402_envoy.wasm
# Built apart, so that no file of it can be taken for the filter.
PANIC       := target/x402_envoy_panic.wasm
PANIC_BUILT := target/wasm32-wasip1/panic/x402_envoy.wasm
PYTEST := .local/venv/bin/python -m pytest

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## pay for a chat completion through Envoy, before your eyes; METERED=1 for a stream by the token, CREDITS=1 for an API key's balance, ONCE=1 ends by itself
	@python3 stack/demo.py

.PHONY: test
test: toolchain ## everything that CI runs
	@# Two at a time: most of a suite's time is waiting, and the link-time optimisation of the filter keeps one core busy.
	@echo "some twenty-five minutes; what runs on Envoy is shown when it has ended"
	@$(MAKE) --no-print-directory -j2 --output-sync=line TOOLCHAIN=there test-code test-gateways
	@echo "all tests passed"
	@# A report: it fails on no figure.
	@.local/venv/bin/python -m bench.ci

.PHONY: test-code
test-code: lint
	@$(MAKE) --no-print-directory test-native
	@$(MAKE) --no-print-directory test-wasm
	@$(MAKE) --no-print-directory mutations
	@$(MAKE) --no-print-directory test-clients

.PHONY: test-gateways
test-gateways: wasm wasm-panic venv packages
	@# The first needs nothing that cargo is still compiling in the other lane.
	@$(MAKE) --no-print-directory test-configs
	@# Some wait a minute for a payment to run out, and do nothing meanwhile: beside the others they cost no time.
	@$(MAKE) --no-print-directory -j2 test-envoy-quick test-envoy-patient
	@$(MAKE) --no-print-directory test-chaos

.PHONY: wasm
wasm: toolchain ## build the filter
	cargo build --release --lib --target wasm32-wasip1
	@node stack/optimise.mjs $(BUILT) $(WASM)

.PHONY: wasm-panic
wasm-panic: toolchain ## build the filter with a switch that ends a worker's VM: for tests only
	cargo build --profile panic --lib --target wasm32-wasip1 --features panic-switch
	@cp $(PANIC_BUILT) $(PANIC)

.PHONY: ledger
ledger: toolchain ## build the ledger, as the demo runs it; `cargo build --profile ledger -p x402-ledger` is what to install
	cargo build -p x402-ledger

.PHONY: tested-ledger
tested-ledger: toolchain
	@# As test-native compiles it: built alone it has dependencies with other features, which takes two minutes more.
	cargo test --workspace --no-run --quiet

.PHONY: lint
lint: toolchain ## formatting, and what clippy denies: whatever could panic
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p x402-secp256k1 --tests --target wasm32-wasip1 -- -D warnings
	@# With the switch in it there is more of the filter, and nothing less.
	cargo clippy --lib --target wasm32-wasip1 --features panic-switch -- -D warnings

.PHONY: test-native
test-native: toolchain ## the filter's own modules, and the ledger's, natively
	cargo test --workspace

.PHONY: test-wasm
test-wasm: toolchain ## the signatures' arithmetic as it is shipped, in V8: what oracles say, and Project Wycheproof
	cargo test --release --target wasm32-wasip1 --lib -p x402-secp256k1 -- --nocapture

.PHONY: sim
sim: ## play the simulator again as it failed: make sim SEED=n [RUNS=n] [STEPS=n]; all of it without
	SEED=$(SEED) RUNS=$(RUNS) STEPS=$(STEPS) cargo test --test simulation what_must_hold -- --nocapture

.PHONY: mutations
mutations: ## make mistakes in a copy of the sources, and require that the simulator sees each
	python3 tests/simulation/mutations.py

.PHONY: test-envoy
test-envoy: venv wasm wasm-panic tested-ledger ## the filter on a real Envoy, against scripted backends and facilitators: make test-envoy [T="-k claims"]
	$(PYTEST) tests/e2e $(T)

PATIENT := tests/e2e/test_twins.py tests/e2e/test_metered_ends.py tests/e2e/test_flood.py
.PHONY: test-envoy-quick test-envoy-patient
test-envoy-quick: venv wasm wasm-panic tested-ledger
	$(PYTEST) tests/e2e $(PATIENT:%=--ignore=%)

test-envoy-patient: venv wasm wasm-panic tested-ledger
	$(PYTEST) $(PATIENT)

.PHONY: test-clients
test-clients: venv packages wasm tested-ledger ## official clients and facilitators on a local chain
	$(PYTEST) tests/clients $(T)

.PHONY: test-configs
test-configs: venv wasm ## the configurations below envoy/, on each supported Envoy
	$(PYTEST) tests/configs $(T)

.PHONY: test-chaos
test-chaos: venv packages wasm tested-ledger ## whatever fails around four workers, on a local chain, and the sums agree: make test-chaos [T="-k random"]
	$(PYTEST) tests/chaos $(T)

.PHONY: test-docker
test-docker: venv wasm ## the compose file, with a Docker daemon of its own (three minutes; not part of `make test`)
	$(PYTEST) tests/docker $(T)

.PHONY: record-failures
record-failures: venv packages ## record anew how facilitators answer payments that fail: F="typescript python x402-rs" (ten minutes; x402-rs takes some more to build)
	.local/venv/bin/python -m tests.failures $(F)

.PHONY: bench
bench: venv wasm ## what the filter costs, beside Envoy and the peers, into docs/PERFORMANCE.md: make bench [FULL=1] [ONLY="paid parts"] [PEERS=no]
	.local/venv/bin/python -m bench $(if $(FULL),--full) $(if $(ONLY),--only $(ONLY)) $(if $(filter no,$(PEERS)),--no-peers)

.PHONY: bench-report
bench-report: venv ## the cheap part of it, for CI's log: half a minute, and fails on no figure
	@.local/venv/bin/python -m bench.ci

.PHONY: bench-streaming
bench-streaming: venv wasm ## what metering adds to a stream, beside the backend alone (two minutes)
	.local/venv/bin/python -m bench.streaming

.PHONY: packages
packages: tools
	@node stack/install.mjs

.PHONY: venv
venv: tools
	@python3 -m stack.tools venv >/dev/null

.PHONY: toolchain
toolchain: tools
	@# Before anything that runs beside something: two of rustup at once come in each other's way.
	@[ -n "$(TOOLCHAIN)" ] || rustup target add wasm32-wasip1
	@[ -n "$(TOOLCHAIN)" ] || rustup component add rustfmt clippy

.PHONY: tools
tools: ## say what is missing, and how to get it
	@missing=; \
	need() { command -v $$1 >/dev/null 2>&1 || { missing=1; echo "missing: $$1. $$2" >&2; }; }; \
	need cargo "Install Rust with rustup: see rustup.rs"; \
	need rustup "Install Rust with rustup: see rustup.rs"; \
	need python3 "Install Python 3.11 or later, with its venv module"; \
	need node "Install Node.js 20 or later: see nodejs.org"; \
	need npm "It comes with Node.js"; \
	[ -z "$$missing" ] || exit 1; \
	python3 -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python 3.11 or later with its venv module; this is $$(python3 -V)" >&2; exit 1; }; \
	node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "missing: Node.js 20 or later; this is $$(node -v)" >&2; exit 1; }
