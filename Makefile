PYTHON ?= python3
EXPERIMENT ?= minilm
ARGS ?=
BIN := .venv/bin
PYTEST := $(BIN)/pytest --numprocesses 2 --dist worksteal

.PHONY: help setup setup-transformers4 experiment sweep check test test-slow lint type build clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 21

setup: .venv/ready ## build .venv from requirements.lock (done by itself when missing or stale)

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "CPython 3.11+ is needed: make PYTHON=python3.11"'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup-transformers4: .venv-transformers4/ready ## build the environment that reads our checkpoints by transformers 4.57

.venv-transformers4/ready: tests/transformers4.txt
	$(PYTHON) -m venv --clear .venv-transformers4
	.venv-transformers4/bin/pip install --quiet --disable-pip-version-check -r tests/transformers4.txt
	@touch $@

experiment: setup ## run EXPERIMENT (minilm) with ARGS, print the table, name the report
	$(BIN)/compress run experiment=$(EXPERIMENT) $(ARGS)

check: lint ## style, imports, the tests that need no model, one run of a tiny one: three minutes
	$(PYTEST) -m "check and not slow" $(ARGS)

test: setup ## run the tests
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup setup-transformers4 ## run the long tests; ARGS="-m slow" for those that CI leaves out, too
	$(PYTEST) -m "slow and not exhaustive" $(ARGS)

sweep: setup ## run the grid of experiment minilm_sweep, draw the Pareto fronts
	$(BIN)/compress run -m experiment=minilm_sweep $(ARGS)

lint: setup ## check style, and who imports whom
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup ## check types
	$(BIN)/mypy

build: setup ## build the wheel
	$(BIN)/python -m build --no-isolation --wheel

clean: ## remove the environment and build files; outputs stay
	rm -rf .venv .venv-transformers4 dist build .mypy_cache .ruff_cache .pytest_cache
