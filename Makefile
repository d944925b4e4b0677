SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help install demo test test-slow lint format type train clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## Create .venv and install the project with what CI has

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,sweep]"
	touch $(STAMP)

demo: $(STAMP) ## Train the three stages on phantoms, evaluate, predict one study
	$(BIN)/python -m experiments.phantom.demo

test: $(STAMP) ## Run the test suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(if $(COVERAGE),--cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE))

test-slow: $(STAMP) ## Run the long tests, which `make test` leaves out
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

lint: $(STAMP) ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## Mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(STAMP) ## Check types
	$(BIN)/mypy

train: $(STAMP) ## Train a stage: make train ARGS="+experiment=stage3"
	$(BIN)/python -m cmrvlm.train $(ARGS)

clean: ## Remove environment, caches and runs
	rm -rf .venv cache runs multirun wandb .pytest_cache .mypy_cache .ruff_cache .coverage *.egg-info
