# Everything a person needs is a target here. `make demo` is the place to begin.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help demo run test check bench lock clean simulate sabotage chaos

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# The files that say what to install are the stamps' only reasons to be made again.
$(VENV)/runtime.stamp: requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "GPU Shopper needs Python 3.11 or newer. Say which one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "installing what the service needs (about 20 s the first time) ..."
	@$(PIP) install --require-hashes --no-deps -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/runtime.stamp
	@echo "installing what the tests need ..."
	@$(PIP) install --require-hashes --no-deps -r requirements/dev.txt
	@touch $@

demo: $(VENV)/runtime.stamp ## the whole job on the sandbox, then leave the service up (ONCE=1: end after the tour)
	@$(BIN)/python -m gpushopper.demo $(if $(ONCE),--once)

run: $(VENV)/runtime.stamp ## the service on http://127.0.0.1:8080
	@$(BIN)/python manage.py run

test: $(VENV)/dev.stamp ## the whole suite
	@$(BIN)/python -m pytest -n 3 --dist loadgroup $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types, import rules, dependencies, missing migrations, settings
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(PIP) check
	@$(BIN)/python manage.py makemigrations --check --dry-run
	@$(BIN)/python manage.py check --fail-level ERROR

bench: $(VENV)/dev.stamp ## the figures, as one JSON object
	@$(BIN)/python -m tests.bench

simulate: $(VENV)/dev.stamp ## a death at every boundary (FULL=1: of every life, with pauses, and samples of pairs and all weathers, MINUTES=n at most; HOURS=n or SEEDS=n: long random lives)
	@$(BIN)/python -m tests.simulation $(if $(or $(HOURS),$(SEEDS)),random $(if $(HOURS),--wall-hours $(HOURS)) $(if $(SEEDS),--number $(SEEDS)) $(if $(SEED),--seed $(SEED)),$(if $(FULL),full $(if $(MINUTES),--minutes $(MINUTES)),kill))

sabotage: $(VENV)/dev.stamp ## make known mistakes one at a time; each has to be caught (ARGS=NAME ...)
	@$(BIN)/python -m tests.sabotage $(ARGS)

chaos: $(VENV)/dev.stamp ## kill everything at random, with real servers (MINUTES=10 SEED=n ENGINE=celery|guardian|both)
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) --engine $(or $(ENGINE),both)

lock: $(VENV)/dev.stamp ## pin every dependency anew
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 \
	  pyproject.toml --extra build -o requirements/runtime.txt
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 \
	  pyproject.toml --extra build --extra production --extra test --extra dev \
	  -c requirements/runtime.txt -o requirements/dev.txt
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 \
	  pyproject.toml --extra build --extra production -c requirements/runtime.txt -o requirements/production.txt

clean: ## forget the virtual environment and the data of the demo
	@rm -rf $(VENV) data/demo staticfiles
