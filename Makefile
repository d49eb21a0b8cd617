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

layers: $(STAMP) ## import-linter: main -> control -> handlers -> cluster -> core -> api
	$(BIN)/lint-imports

test-unit: $(STAMP) ## unit tests: no cluster, half a minute; ARGS='-k words' for some
	$(call pytest,tests/unit)

test-node: $(STAMP) ## agent, capper and plant on the real pynvml and our NVML library; no cluster
	$(call pytest,tests/node)

# They only compute, here behind everybody else: a test's usual five minutes would be a judgement on speed.
test-property: $(STAMP) ## hypothesis on the core; PENSTOCK_HISTORIES=100000 for a longer run
	$(call pytest,tests/property --timeout=7200)

test-packaging: $(STAMP) ## the Dockerfile's steps, without a container engine
	$(call pytest,tests/packaging)

# These tests mostly wait, so two processes take a file each at a time; ARGS='-n 0' for one.
test-cluster: $(STAMP) ## tests on a real control plane
	$(call pytest,tests/cluster --numprocesses=2 --dist=loadfile --no-loadscope-reorder)

CHECKS := lint types layers test-unit test-node test-packaging
BEHIND := build/test-property.log

test: $(STAMP) ## everything that CI runs, and at the end one line of totals
	@rm -rf $(REPORTS) && mkdir -p $(REPORTS)
	@for check in $(CHECKS); do echo "==> $$check"; $(MAKE) --no-print-directory $$check || exit 1; done
	@echo "==> fetch"; $(MAKE) --no-print-directory fetch
	@nice -n 19 $(MAKE) --no-print-directory test-property >$(BEHIND) 2>&1 & behind=$$!; \
		trap 'kill $$behind; exit 130' INT TERM; \
		echo "==> test-cluster, and behind it test-property"; $(MAKE) --no-print-directory test-cluster; code=$$?; \
		echo "==> test-property"; wait $$behind || code=1; cat $(BEHIND); \
		$(BIN)/python hack/totals.py $(REPORTS) || code=1; exit $$code

bench: $(STAMP) ## print every figure of speed and size beside its limit
	$(BIN)/python -m bench

demo: $(STAMP) ## play the story on a real control plane; KEEP=1 leaves it running
	$(BIN)/python -m demo

generate: $(STAMP) ## write crds/, the chart's copies and the generated pages of docs/ anew
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

LOCK := --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command 'make lock'

clean: ## remove what make made here; the user cache of binaries stays
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
