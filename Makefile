# Two commands: `make reproduce` and `make test`. `make help` lists the others.

PYTHON  ?= python3
PROFILE = phantom
DATA    =
DEVICE  = auto
GPUS    =
EXECUTOR = local
CORES   := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# For example PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" where there is no GPU.
PIP_ARGS ?=
# For example LAB_ARGS="--no-browser --port 9999".
LAB_ARGS ?=

# The user's environment changes nothing: no other modules, options or folders of Python, and of pip's settings only
# those that say where packages come from.
unexport $(filter-out PYTHON,$(filter PYTHON%,$(.VARIABLES)))
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_REQUIREMENT PIP_EDITABLE
unexport PIP_NO_DEPS PIP_DRY_RUN PIP_PYTHON PIP_PRE PIP_NO_BINARY PIP_ONLY_BINARY PIP_REPORT PIP_LOG PIP_QUIET
export PYTHONPATH := $(CURDIR)
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1
export PYTHONHASHSEED := 0
# As they were typed, with spaces, quotes and dollars, which the shell takes from its environment.
export RUN_PROFILE := $(value PROFILE)
export RUN_DATA := $(value DATA)
export RUN_CORES := $(CORES)
export RUN_DEVICE := $(value DEVICE)
export RUN_GPUS := $(value GPUS)
export RUN_EXECUTOR := $(value EXECUTOR)

VENV := .venv
PY   := $(VENV)/bin/python
RUN  := $(PY) reproduce/run.py --profile="$$RUN_PROFILE" --cores="$$RUN_CORES" --data="$$RUN_DATA" \
	--device="$$RUN_DEVICE" --gpus="$$RUN_GPUS" --executor="$$RUN_EXECUTOR"
# what else the steps need where a cluster runs them
CLUSTER := $(if $(filter-out local,$(value EXECUTOR)),$(VENV)/.cluster)

.DEFAULT_GOAL := help
.PHONY: help setup reproduce compare readme quick test test-all mutations mutants chaos wheel versions lab workshop-html explorer test-browser test-cluster docs bench bench-check bench-memory clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PROFILE=name (now $$RUN_PROFILE; see reproduce/profiles), DATA=folder, CORES=n (now $$RUN_CORES),"
	@echo "  DEVICE=auto, cpu, cuda, cuda:1 or mps (now $$RUN_DEVICE), GPUS=trainings on GPUs at a time (one on each),"
	@echo "  EXECUTOR=local, slurm, or a folder with a Snakemake profile (now $$RUN_EXECUTOR; see docs/cluster.md)"

setup: $(VENV)/.reproduce ## make .venv with the pinned dependencies

ifneq ($(origin ALONE),command line)
# One make at a time sets the environment up; another waits, and finds it made.
ALONE_NOW = @$(PYTHON) -I reproduce/python_check.py && $(PYTHON) -I reproduce/alone.py $(MAKE) --no-print-directory ALONE=1 $@
$(VENV)/.made:
	$(ALONE_NOW)

$(VENV)/.%: pyproject.toml constraints.txt
	$(ALONE_NOW)
else
# The mark .made exists only when the environment is whole: one that broke off is completed by the next call.
$(VENV)/.made:
	@echo "Making $(VENV) ..."
	@$(PYTHON) -I -m venv $(VENV)
	@$(PY) -I -m pip --version > /dev/null || { echo "error: $(VENV) has no working pip: remove it (rm -r $(VENV)), and run make again" >&2; exit 1; }
	@touch $@

$(VENV)/.%: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing the pinned dependencies ($*) into $(VENV): one to three minutes, once ..."
	@$(PY) -m pip install --disable-pip-version-check --progress-bar on -q --no-user $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@
endif

reproduce: $(VENV)/.reproduce $(CLUSTER) ## regenerate the figure and the table of PROFILE
	@$(RUN)

compare: $(VENV)/.reproduce ## is a fresh run's table the committed one?
	@$(PY) reproduce/compare.py --profile="$$RUN_PROFILE"

readme: $(VENV)/.reproduce ## put results and metric definitions into README.md and docs
	@$(PY) reproduce/readme.py

quick: $(VENV)/.test ## ruff, types and the unit tests: under two minutes
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -m "unit and not slow" -n "$$RUN_CORES" --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test ## ruff, types, unit tests, and the smoke profile end to end
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -m "not slow" --durations=5 -n "$$RUN_CORES" --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.test ## the tests, the slow ones too, and the mutations
	@$(PY) -m pytest
	@$(PY) tests/mutate.py

mutations: $(VENV)/.test ## break the code in each listed way and see a test go red
	@$(PY) tests/mutate.py

mutants: $(VENV)/.mutants ## mutate the core by mutmut and count what its tests notice: about an hour
	@$(PY) tests/jobs/mutants.py --jobs="$$RUN_CORES"

chaos: $(VENV)/.test ## kill, starve and damage the smoke profile, and see it go on: about an hour, as root
	@PYTHONPATH="$(CURDIR):$(CURDIR)/tests" $(PY) tests/jobs/chaos.py $(CHAOS)

wheel: $(VENV)/.test ## install the wheel with each extra in a bare environment: about ten minutes
	@$(PY) tests/jobs/wheel.py

versions: $(VENV)/.versions ## unit tests with the lowest and newest allowed dependencies, on each Python that is here
	@$(PY) tests/jobs/versions.py --jobs="$$RUN_CORES"

lab: $(VENV)/.lab ## the workshop and the other notebooks in JupyterLab
	@$(PY) -m jupyterlab --notebook-dir=notebooks --LabApp.default_url=/lab/tree/workshop/0_index.ipynb \
		--LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(LAB_ARGS)

workshop-html: $(VENV)/.lab ## the workshop's notebooks, executed, as pages in results/workshop: about three minutes
	@SHAPELOSS_STATIC=1 $(PY) -m nbconvert --to html --execute --log-level=WARN --embed-images \
		--output-dir results/workshop notebooks/workshop/*.ipynb
	@echo "results/workshop/0_index.html"

explorer: $(VENV)/.reproduce ## figures/explorer.html: what a loss asks of a voxel, in a page that needs no installation
	@$(PY) reproduce/explorer/build.py

test-browser: $(VENV)/.test ## the tests in a headless Chromium, which must be there
	@NEED_BROWSER=1 $(PY) -m pytest tests/browser

test-cluster: $(VENV)/.test $(VENV)/.cluster ## smoke on a Slurm of two nodes made here, one killed: needs root and Slurm
	@$(PY) -m pytest tests/workflow -k dry_run
	@NEED_CLUSTER=1 $(PY) -m pytest tests/cluster -m slow -rs

docs: $(VENV)/.docs ## the documentation, with executed notebooks, in docs/_build/html
	@$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.test ## measure time against the alternatives: under 15 minutes, on an idle machine
	@$(PY) reproduce/benchmarks/speed.py

bench-check: $(VENV)/.test ## is any ratio of the benchmark worse than the committed one?
	@$(PY) reproduce/benchmarks/speed.py --check

bench-memory: $(VENV)/.test ## measure the memory of training steps: about a quarter of an hour
	@$(PY) reproduce/benchmarks/memory.py

clean: ## remove PROFILE's results; the committed figures stay
	@case "$$RUN_PROFILE" in ''|.*|*/*) echo "error: PROFILE must be a name in reproduce/profiles" >&2; exit 1;; esac
	rm -rf "results/$$RUN_PROFILE"
