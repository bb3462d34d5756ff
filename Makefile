# Two commands: `make reproduce` and `make test`. `make help` lists the others.

PYTHON  ?= python3
PROFILE ?= phantom
DATA    ?=
CORES   ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# For example PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" where there is no GPU.
PIP_ARGS ?=

VENV := .venv
BIN  := $(VENV)/bin
export PYTHONHASHSEED := 0
RUN  := $(BIN)/python reproduce/run.py --profile $(PROFILE) --cores $(CORES) $(if $(DATA),--data "$(DATA)")

.DEFAULT_GOAL := help
.PHONY: help setup reproduce compare readme test test-all mutations lab bench clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=name (now $(PROFILE); see reproduce/profiles), DATA=folder, CORES=n (now $(CORES))"

setup: $(VENV)/.reproduce ## make .venv with the pinned dependencies

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, {v.major}.{v.minor} was found: make PYTHON=python3.11 ...")'
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.%: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies ($*) into $(VENV): one to three minutes, once ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -q $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@

reproduce: $(VENV)/.reproduce ## regenerate the figure and the table of PROFILE
	@$(RUN)

compare: $(VENV)/.reproduce ## is a fresh run's table the committed one?
	@$(BIN)/python reproduce/compare.py --profile $(PROFILE)

readme: $(VENV)/.reproduce ## put the results table and the metrics' contracts into README.md
	@$(BIN)/python reproduce/readme.py

test: $(VENV)/.test ## ruff, types, unit tests, and the smoke profile end to end
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -m "not slow" --durations=5

test-all: $(VENV)/.test ## the tests, the slow ones too, and the mutations
	@$(BIN)/python -m pytest
	@$(BIN)/python tests/mutate.py

mutations: $(VENV)/.test ## break the code in each listed way and see a test go red
	@$(BIN)/python tests/mutate.py

lab: $(VENV)/.lab ## the notebooks in JupyterLab
	@$(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(VENV)/.test ## measure time against the alternatives, and memory: about an hour, on an idle machine
	@$(BIN)/python reproduce/benchmarks/speed.py
	@$(BIN)/python reproduce/benchmarks/memory.py

clean: ## remove PROFILE's results; the committed figures stay
	rm -rf results/$(PROFILE)
