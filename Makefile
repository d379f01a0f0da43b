# Everything that is done with this project, by name.  `make` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
RUNTIMES := .venv/ready-bench
AVALANCHE := .venv-bench/ready
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
	@# Python compiles what it imports, once; where it may not write that down, as containers often
	@# say, each command would do it again: 1.3 s for torch alone.
	@test -z "$$PYTHONDONTWRITEBYTECODE" || \
	  $(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true  # templates do not compile
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

bench: $(READY) $(RUNTIMES) $(AVALANCHE)  ## Time the parts (about 16 minutes; QUICK=1: 4); writes bench.json
	@OMP_NUM_THREADS=$$(getconf _NPROCESSORS_ONLN) python -m pytest -m bench -s tests/bench

# What only the benchmark compares with.  Where it cannot be had, its rows are left out.
$(RUNTIMES): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  -c constraints.txt -e '.[bench]' || echo "ONNX Runtime or OpenVINO cannot be installed here."
	@touch $@

# A Python of its own, which sees ours: its package brings a folder "tests" that would hide this one.
$(AVALANCHE): $(READY)
	@rm -rf .venv-bench && $(BIN)/python -m venv --without-pip .venv-bench
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$(.venv-bench/bin/python \
	  -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lgr-pipe.pth"
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  -c constraints.txt 'avalanche-lib==0.6.0' 'wandb<0.31' || echo "Avalanche cannot be installed here."
	@touch $@

report: $(READY)  ## Make the table of runs/study again, into runs/report
	@lgr-pipe report runs/study --out runs/report

clean:  ## Remove data, runs and tools' caches; keep .venv and DVC's cache
	rm -rf data runs dvc_plots bench bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
