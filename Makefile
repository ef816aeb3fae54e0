# x402-envoy. `make demo` shows it, `make test` proves it; `make help` lists the rest.
.DEFAULT_GOAL := help
WASM := target/wasm32-wasip1/release/x402_envoy.wasm

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: wasm
wasm: ## build the filter
	rustup target add wasm32-wasip1
	cargo build --release --lib --target wasm32-wasip1
	@ls -l $(WASM) | awk '{printf "built %s, %d KiB\n", $$NF, $$5 / 1024}'

.PHONY: test-envoy
test-envoy: ## the filter on a real Envoy: make test-envoy [T="-k claims"]
	@python3 -m stack.tools venv >/dev/null
	.local/venv/bin/python -m pytest tests/e2e $(T)

.PHONY: demo
demo: ## pay for a chat completion through Envoy, before your eyes; ONCE=1 ends by itself
	@python3 stack/demo.py
