# Every target works on a bare Debian machine with make and a Rust toolchain, as root where an
# engine is involved; the scripts install the rest. A checkout keeps all it makes in target/,
# .run/ and .cache/.

.DEFAULT_GOAL := help
# The targets share one engine and one cargo lock; side by side they would only wait.
.NOTPARALLEL:
.PHONY: help run test test-v2 clients fuzz coverage bench backtest build fmt lint deny engine-start engine-stop clean

help: ## This list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

run: ## Engine, server, an example team with two users, and what to try; Ctrl-C ends it
	@scripts/run.sh

test: ## Everything CI runs, on a real engine
	@scripts/test.sh

test-v2: ## The cgroup v2 tests alone, in a guest of their own
	@cargo build --locked --package plimsoll
	@scripts/test-v2.sh --binary "$${CARGO_TARGET_DIR:-target}/debug/plimsoll"

clients: ## docker-py's own tests and testcontainers, through the gateway
	@scripts/clients.sh

fuzz: ## Fuzz what reads requests, FUZZ_SECONDS (20) a target
	@scripts/fuzz.sh

coverage: ## Line coverage of the tests; fails under 85 %
	@scripts/coverage.sh

bench: ## The figures in docs/benchmarks.md, measured on this machine
	@scripts/bench.sh

backtest: ## How well forecasts do on made-up series, as in docs/forecasting.md
	@cargo run --locked --release --quiet --package plimsoll-core --example backtest

build: ## A release binary in target/release
	@cargo build --locked --release --package plimsoll

fmt: ## Format the code
	@cargo fmt --all

lint: ## Formatting and clippy, as CI judges them
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets -- -D warnings

deny: ## Licences, bans and sources of the dependencies
	@scripts/deny.sh

engine-start: ## Start a Docker Engine, where none runs
	@scripts/engine.sh start

engine-stop: ## Stop the one that engine-start started
	@scripts/engine.sh stop

clean: engine-stop ## Remove what was built, downloaded and run here
	@rm -rf .run .cache
	@cargo clean --quiet
