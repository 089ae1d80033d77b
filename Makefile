# Two commands on a machine with Python 3.11+ and make:  make demo  ·  make test
#
# Every target prepares the environment it needs; `make setup` only does it ahead of time.
# PYTHON=3.13 uses that interpreter, in an environment of its own (.venv-3.13).

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON_BOOT ?= python3
PYTHON ?=
N ?= 50
WORKERS ?= 2
ARGS ?=

ifeq ($(PYTHON),)
VENV := .venv
INTERPRETER = $(PYTHON_BOOT)
else
VENV := .venv-$(PYTHON)
# pyenv's shims answer only for the selected versions, so look behind them.
INTERPRETER = $(or $(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/$(PYTHON).*/bin/python3))),$(PYTHON))
endif

UV := .uv/bin/uv
RUN := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest
STAMP := $(VENV)/.stamp
PYPROJECTS := pyproject.toml $(wildcard stem-*/pyproject.toml)

export UV_PYTHON_DOWNLOADS ?= never
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_LINK_MODE ?= copy

.PHONY: help setup demo test check test-long faults flaky soak security bench peers docs build clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Prepare the environment (.venv); needs only Python 3.11+

$(UV):
	@$(PYTHON_BOOT) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stem needs Python 3.11 or newer: make PYTHON_BOOT=/path/to/python3.11")'
	$(PYTHON_BOOT) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): $(PYPROJECTS) | $(UV)
	$(UV) sync --quiet --all-packages --all-extras --python $(INTERPRETER)
	@touch $@

demo: $(STAMP) ## Hundreds of real tasks over this repository's own files, under 30 s
	$(RUN) examples/demo.py $(ARGS)

test: $(STAMP) ## Every quick test, against real servers started for it
	$(PYTEST) -n $(WORKERS) -m "not long" $(ARGS)

check: $(STAMP) ## Format, lint, types (mypy strict, pyright on tests/typing), layers
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy $(wildcard stem-*/src) $(wildcard tests/typing) tests/servers.py conftest.py
	@if ! compgen -G 'tests/typing/*.py' > /dev/null; then echo "pyright: nothing in tests/typing yet"; \
	elif $(VENV)/bin/pyright --version > /dev/null 2>&1; then set -x; $(VENV)/bin/pyright --pythonpath $(RUN) tests/typing; \
	else echo "pyright: skipped, it cannot run on this platform"; fi
	$(PYTEST) -q tests/test_layers.py tests/test_hygiene.py

test-long: $(STAMP) ## Every test, long ones too, with the long hypothesis profile
	STEM_TEST_PROFILE=long STEM_CONTRACT_PROFILE=full $(PYTEST) -n $(WORKERS) --timeout=3600 $(ARGS)

faults: $(STAMP) ## The conformance suite against adapters with planted defects
	$(PYTEST) -n $(WORKERS) -m "not long" tests/faults $(ARGS)

flaky: $(STAMP) ## The contract tests of memory and SQLite, N=50 times over
	@failed=0; for run in $$(seq $(N)); do \
		$(PYTEST) -q -n $(WORKERS) -m "not long" stem-core/tests -k "memory or sqlite" $(ARGS) || failed=$$((failed + 1)); \
	done; echo "flaky: $$failed of $(N) runs failed"; test $$failed = 0

soak: $(STAMP) ## A million messages through each server: memory, sizes and latency at the end against the start
	$(RUN) -m benchmarks.soak $(ARGS)

security: $(STAMP) ## The tables of hostile input, and what each was answered
	$(PYTEST) -s -m "not long" tests/security $(ARGS)

bench: $(STAMP) ## Benchmarks, with the physical limits measured in the same run
	$(RUN) -m benchmarks $(ARGS)

peers: $(STAMP) ## Celery, Dramatiq, Taskiq, arq, RQ, Procrastinate and Stem in one run (installs them apart)
	$(RUN) -m benchmarks.peers $(ARGS)

docs: $(STAMP) ## Run what the documentation shows
	$(PYTEST) tests/docs $(ARGS)

build: $(STAMP) ## A wheel and an sdist of every package, into dist/
	$(UV) build --quiet --all-packages

clean: ## Remove environments, caches and builds
	rm -rf .uv .venv .venv-* dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache uv.lock
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
