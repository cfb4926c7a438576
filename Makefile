# make help says what there is. Everything runs in .venv, made from requirements.lock when it is missing or old.

PROFILE ?= demo
PYTHON ?= python3
# TORCH=cpu: PyTorch's CPU build, from PyTorch's own index, and none of the CUDA packages (untested offline)
TORCH ?=

VENV  := .venv
STAMP := $(VENV)/requirements.lock
PY    := $(VENV)/bin/python
BUILD := build/$(PROFILE)
NOTEBOOKS := 00_overview 01_dataset 02_seal_omics 03_seal_vision 04_patch_level 08_figures_and_tables

export NUMBA_CACHE_DIR := $(CURDIR)/build/numba
export PYTHONWARNINGS := ignore::FutureWarning

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help figures test check lab status lock notebooks clean inputs

help: $(STAMP)  ## this page
	@echo "make TARGET [PROFILE=demo]"
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@$(PY) -m seal profiles

figures: $(BUILD)/08_figures_and_tables.ipynb  ## train both stages, evaluate, draw: figures/PROFILE/
	@echo "figures and tables: figures/$(PROFILE)/; notebooks as run: $(BUILD)/"

test: $(STAMP)  ## lint, all tests, all notebooks in the demo profile
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
	TQDM_DISABLE=1 $(PY) -m pytest tests notebooks --nbval-lax --nbval-current-env --nbval-cell-timeout=3000

check: $(STAMP)  ## lint and the quick unit tests, about 2 minutes
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
	TQDM_DISABLE=1 $(PY) -m pytest tests -m "not slow"

lab: $(STAMP)  ## the notebooks in JupyterLab
	JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyterlab --notebook-dir=$(CURDIR) notebooks/00_overview.ipynb

status: $(STAMP)  ## which figures and tables are drawn, stale, or missing and why
	@$(PY) -m seal status --profile $(PROFILE)

notebooks: $(BUILD)/08_figures_and_tables.ipynb  ## put the outputs of the last run into notebooks/, for committing
	@$(PY) -m seal outputs $(NOTEBOOKS:%=$(BUILD)/%.ipynb)

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml
	$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade -q \
		--no-header --no-annotate -o requirements.lock

clean:  ## remove what was made, but for .venv and downloads
	rm -rf build runs results data/samples data/pairs data/tokens data/embeddings .pytest_cache .ruff_cache
	find figures -mindepth 1 -maxdepth 1 -type d ! -name reference -exec rm -rf {} +

# ---- the environment -------------------------------------------------------------------------------------

# The copy of the lock inside .venv is written last: without it, or where it differs, .venv is made anew.
UV := $(PY) -m uv pip install -q --compile-bytecode
ifeq ($(TORCH),cpu)
REQUIREMENTS = grep -vE '^(nvidia-|cuda-|triton)' requirements.lock > $(VENV)/cpu.lock && $(UV) --torch-backend cpu -r $(VENV)/cpu.lock
else
REQUIREMENTS = $(UV) -r requirements.lock
endif
$(STAMP): requirements.lock
	@if cmp -s requirements.lock $(STAMP); then touch $(STAMP); else set -e; \
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python " + sys.version.split()[0] + \
		" cannot be used: 3.11, 3.12 or 3.13 is needed. Give one with make PYTHON=/path/to/python3.11")'; \
	echo "making $(VENV): about 7 GB with CUDA, one to three minutes"; \
	rm -rf $(VENV); \
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; rm -rf $(VENV); exit 1; }; \
	$(PY) -m pip install -q --disable-pip-version-check uv==0.13.9 2>$(VENV)/pip.log || { cat $(VENV)/pip.log; echo "the package index cannot be reached"; exit 1; }; \
	$(REQUIREMENTS); \
	$(PY) -c 'import os, sysconfig; open(os.path.join(sysconfig.get_path("purelib"), "seal.pth"), "w").write(os.getcwd() + "\n")'; \
	cp requirements.lock $(STAMP); fi

# ---- the notebooks ---------------------------------------------------------------------------------------

# A notebook's .inputs file holds a digest of its cells, the modules it imports, its profile's values and the
# lock. One call refreshes all; a file is written only where its digest changed, so make re-runs just that.
inputs: $(STAMP)
	@$(PY) -m seal inputs --profile $(PROFILE) --out $(BUILD) $(NOTEBOOKS:%=notebooks/%.ipynb)

$(NOTEBOOKS:%=$(BUILD)/%.inputs): inputs
	@true

$(BUILD)/%.ipynb: $(BUILD)/%.inputs
	@$(PY) -m seal run notebooks/$*.ipynb --profile $(PROFILE) --out $@

$(BUILD)/02_seal_omics.ipynb: $(BUILD)/01_dataset.ipynb
$(BUILD)/03_seal_vision.ipynb: $(BUILD)/02_seal_omics.ipynb
$(BUILD)/04_patch_level.ipynb: $(BUILD)/03_seal_vision.ipynb
$(BUILD)/08_figures_and_tables.ipynb: $(BUILD)/00_overview.ipynb $(BUILD)/01_dataset.ipynb $(BUILD)/04_patch_level.ipynb
