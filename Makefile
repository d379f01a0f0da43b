# Everything that is done with this project, by name.  `make` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro test soak check fix bench report clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: $(READY)  ## Make .venv with everything that is needed (about 3 minutes, once)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lgr-pipe needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	@echo "Installing into .venv ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  -c constraints.txt -e '.[dvc,dev]'
	@touch $@

repro: $(READY)  ## Run the whole pipeline on the embedded data set and print the result table
	@dvc repro
	@echo && cat runs/report/table.md

test: $(READY)  ## Run the tests
	@python -m pytest

soak: $(READY)  ## Kill commands 100 times (SOAK_KILLS=1000: more) at random moments; some minutes
	@python -m pytest -m soak -s tests/test_soak.py

check: $(READY)  ## Look at formatting, lint and types; change nothing
	@ruff format --check .
	@ruff check .
	@mypy

fix: $(READY)  ## Mend formatting and what lint can mend
	@ruff format .
	@ruff check --fix .

bench: $(READY)  ## Time the parts against their floors; writes bench.json
	@OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) python -m pytest -m bench -s tests/bench

report: $(READY)  ## Make the table of runs/study again, into runs/report
	@lgr-pipe report runs/study --out runs/report

clean:  ## Remove data, runs and tools' caches; keep .venv and DVC's cache
	rm -rf data runs dvc_plots bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
