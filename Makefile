# Every target carries its help text after `##`; `make help` prints them and tests/unit/test_house.py demands them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REPORTS := build/reports
# Run as `$(call pytest,FOLDER)`: each run leaves a report named for its target, and `make test` adds them up.
pytest = $(BIN)/python -m pytest --junitxml=$(REPORTS)/$@.xml $(1) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help venv fetch lint types layers test-unit test-node test-property test-packaging test-cluster test bench demo generate \
	verify lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## make .venv from the pinned constraints

$(STAMP): constraints-dev.txt pyproject.toml
	@echo "==> virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "penstock needs Python 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

fetch: $(STAMP) ## fetch or build the pinned cluster binaries into the user cache
	$(BIN)/python -m rig fetch

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

layers: $(STAMP) ## import-linter: main -> handlers -> cluster -> core -> api
	$(BIN)/lint-imports

test-unit: $(STAMP) ## unit tests: no cluster, under 15 s; ARGS='-k words' for some
	$(call pytest,tests/unit)

test-node: $(STAMP) ## agent, capper and plant on the real pynvml and our NVML library; no cluster
	$(call pytest,tests/node)

test-property: $(STAMP) ## hypothesis on the core; PENSTOCK_HISTORIES=100000 for a longer run
	$(call pytest,tests/property)

test-packaging: $(STAMP) ## the Dockerfile's steps, without a container engine
	$(call pytest,tests/packaging)

test-cluster: $(STAMP) ## tests on a real control plane
	$(call pytest,tests/cluster)

CHECKS := lint types layers test-unit test-node test-property test-packaging

test: $(STAMP) ## everything that CI runs, and at the end one line of totals
	@rm -rf $(REPORTS)
	@for check in $(CHECKS); do echo "==> $$check"; $(MAKE) --no-print-directory $$check || exit 1; done
	@echo "==> fetch"; $(MAKE) --no-print-directory fetch || test "$(CI)" != true
	@echo "==> test-cluster"; $(MAKE) --no-print-directory test-cluster; code=$$?; \
		$(BIN)/python hack/totals.py $(REPORTS) || code=1; exit $$code

bench: $(STAMP) ## print every figure of speed and size beside its limit
	$(BIN)/python -m bench

demo: $(STAMP) ## play the story on a real control plane; KEEP=1 leaves it running
	$(BIN)/python -m demo

generate: $(STAMP) ## write crds/ and the chart's copies anew
	$(BIN)/python hack/generate.py

verify: generate lint types layers test-unit ## generate, check, and demand that nothing changed
	git diff --exit-code

lock: ## pin the newest versions, with hashes, into constraints*.txt
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile $(LOCK) pyproject.toml --output-file constraints.txt
	$(VENV)-lock/bin/uv pip compile $(LOCK) --group build --output-file constraints-build.txt
	$(VENV)-lock/bin/uv pip compile $(LOCK) pyproject.toml --group dev --output-file constraints-dev.txt
	rm -rf $(VENV)-lock

LOCK := --quiet --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock'

clean: ## remove what make made here; the user cache of binaries stays
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
