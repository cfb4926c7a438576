# `make` says what there is. Everything runs in .venv, made from requirements.lock when it is missing or old.

PROFILE ?= demo
PYTHON ?= python3

BUILD := build/$(PROFILE)
# The slide level needs slides with labels: the demo simulates them, SEAL_SLIDES= names yours.
NOTEBOOKS := 00_overview 01_dataset 02_seal_omics 03_seal_vision 04_patch_level \
  $(if $(filter demo,$(PROFILE))$(SEAL_SLIDES),05_slide_level) 08_figures_and_tables A1_simulated_atlas

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help figures draw trace test check lint lab status lock notebooks reference clean FORCE

# Notebooks run in their own folder: a path given relative to this one must hold there too.
absolute = $(if $(filter /% ~%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
define place
ifneq ($$($(1)),)
override $(1) := $$(call absolute,$$($(1)))
export $(1)
endif
endef
$(foreach name,SEAL_HOME SEAL_HER2ST SEAL_HEST SEAL_ALIASES SEAL_SLIDES SEAL_WSI,$(eval $(call place,$(name))))

# This clone's code in every process and kernel, before that of another clone whose environment PY= names, and before a
# `seal` elsewhere on the user's PYTHONPATH.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# pip installs into .venv whatever the user's settings say.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT
# A thread that waits spins briefly: see seal/__init__.py.
ifeq ($(OMP_WAIT_POLICY),)
export GOMP_SPINCOUNT ?= 3000
export KMP_BLOCKTIME ?= 1
endif
export NUMBA_CACHE_DIR := $(CURDIR)/build/numba
export PYTHONWARNINGS := ignore::FutureWarning
# The kernel of this environment, before any other "python3" that the user or a cluster registered.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH
# A kernel logs errors only, not that it runs over unencrypted TCP; and it reads no startup files of the user's.
export IPYTHONDIR := $(CURDIR)/build/ipython
KERNELS := build/ipython/profile_default/ipython_kernel_config.py

# ---- the environment -------------------------------------------------------------------------------------

# .venv/.stamp, written last, says for which lock, folder and torch the environment was made: where it is
# missing or says something else, .venv is made anew.
STAMP := .venv/.stamp
ifeq ($(origin PY),command line)
ENVIRONMENT :=
else
PY := .venv/bin/python
ENVIRONMENT := $(STAMP)
endif

TORCH := $(or $(TORCH),$(shell cat .venv/.torch 2>/dev/null),cuda)
ifeq ($(filter cpu cuda,$(TORCH)),)
$(error TORCH=$(TORCH): expected cpu or cuda)
endif

KEY := $(shell { pwd -P; echo $(TORCH); cat requirements.lock; } | cksum)
ifneq ($(shell test -x .venv/bin/python && cat $(STAMP) 2>/dev/null),$(KEY))
.PHONY: $(STAMP)
endif

help:  ## this page
	@echo "make TARGET [PROFILE=demo]"
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo "PROFILE=       whose values, below; with SEAL_HER2ST=, SEAL_HEST= a copy of that data, SEAL_HOME= another disk"
	@echo "TORCH=cpu      PyTorch's CPU build, kept until TORCH=cuda; PYTHON= the Python that makes .venv, 3.11 to 3.13"
	@echo "PY=python      an environment of your own (conda) instead of .venv"
	@$(RIGHT_PYTHON)
	@$(PYTHON) -m seal profiles

figures: $(BUILD)/.early $(BUILD)/08_figures_and_tables.ipynb  ## train both stages, evaluate, draw: figures/PROFILE/
	@echo "done: figures and tables in $(HOME_)figures/$(PROFILE)/, the numbers they show in $(HOME_)results/$(PROFILE)/,"
	@echo "  the notebooks as they ran in $(BUILD)/"
	@echo "next: make lab reads and changes the notebooks; make trace ID=F3$(OF_PROFILE) says where a figure comes from"

draw: | $(ENVIRONMENT)  ## every figure from the committed results, in half a minute, without training
	@echo "drawing from the committed results of $(PROFILE): about half a minute"
	@$(DRAW) --profile $(PROFILE) --reference

trace: | $(ENVIRONMENT)  ## from a figure or table back to what it was made of: make trace ID=F3
	@$(if $(ID),$(PY) -m figures trace $(ID) --profile $(PROFILE),{ echo "trace needs the id of a figure or table"; \
	echo "  expected: an id that make status lists"; echo "  what to do: for instance make trace ID=F3"; exit 2; } >&2)

test: lint  ## lint, all tests, all notebooks in the demo profile
	TQDM_DISABLE=1 $(PY) -m pytest notebooks --nbval-lax --nbval-current-env --nbval-cell-timeout=3000
	$(UNIT_TESTS)

check: lint  ## lint and the quick unit tests
	$(UNIT_TESTS) -m "not slow"

UNIT_TESTS = TQDM_DISABLE=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests -n 2 --dist loadfile

lint: | $(ENVIRONMENT)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

NEWS := @jupyterlab/apputils-extension:notification
lab: | $(ENVIRONMENT) $(KERNELS)  ## the notebooks in JupyterLab
	@mkdir -p build/lab; echo '{"$(NEWS)": {"fetchNews": "false", "checkForUpdates": false}}' > build/lab/overrides.json
	$(PY) -m jupyterlab --LabApp.app_settings_dir="$(CURDIR)/build/lab" \
		--LabApp.default_url=/lab/tree/notebooks/00_overview.ipynb $(LAB)

status: | $(ENVIRONMENT)  ## which figures and tables are drawn, stale, or missing and why
	@$(PY) -m figures status --profile $(PROFILE)

notebooks:  ## run the demo where needed and put its outputs into notebooks/, for committing
	@$(MAKE) --no-print-directory $(NOTEBOOKS:%=build/demo/%.ipynb) PROFILE=demo
	@$(PY) -m tools.notebook_outputs $(NOTEBOOKS:%=build/demo/%.ipynb)
	@touch build/demo/.places && sleep 0.1 && touch $(NOTEBOOKS:%=build/demo/%.ipynb)

reference: build/demo/00_overview.ipynb build/demo/05_slide_level.ipynb  ## take the demo's results as the reference, then as make notebooks
	@$(PY) -m figures reference --profile demo
	@$(PY) -m figures readme
	@rm -f build/demo/08_figures_and_tables.ipynb
	@$(MAKE) --no-print-directory notebooks

lock: | $(ENVIRONMENT)  ## resolve requirements.lock anew from pyproject.toml
	$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 -q \
		--no-header --no-annotate -o requirements.lock

clean:  ## remove what the profile made, but for downloads and real samples
	@$(RIGHT_PYTHON)
	@$(PYTHON) -m seal clean --profile $(PROFILE)

RIGHT_PYTHON = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || \
  { echo "PYTHON=$(PYTHON) cannot be used"; echo "  expected: Python 3.11, 3.12 or 3.13"; \
    echo "  what to do: install one and name it, for instance: make figures PYTHON=python3.11"; exit 2; } >&2
HAS_VENV = $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
  { echo "$(PYTHON) cannot make environments"; echo "  expected: its modules venv and ensurepip"; \
    echo "  what to do: on Debian and Ubuntu, apt-get install python3-venv"; exit 2; } >&2

# Where uv is not to be had, or does not know the mirror that pip is set to, pip goes on: slower, to the same end.
UV := uv==0.13.9
install = { .venv/bin/python -m uv pip install -q --python .venv/bin/python --compile-bytecode --no-deps $(1) || \
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps $(1); } || \
  { echo "the packages of requirements.lock could not be installed"; \
    echo "  expected: the package index pypi.org, or a mirror that pip is set to, and 8 GB of disk"; \
    echo "  what to do: see the messages above, then run the same command again"; exit 2; } >&2

ifeq ($(TORCH),cpu)
# The commands are tested; PyTorch's own index could not be reached from where we work.
PAIR := ^(torch|torchvision)==
CUDA := ^(triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==
define install_lock
grep -E '$(PAIR)' requirements.lock > .venv/torch.txt
@grep -vE '$(PAIR)|$(CUDA)' requirements.lock > .venv/rest.txt
@$(call install,--index-url https://download.pytorch.org/whl/cpu -r .venv/torch.txt)
@$(call install,-r .venv/rest.txt)
endef
else
install_lock = $(call install,-r requirements.lock)
endif

# The package is found through a .pth file: nothing to build, and a change shows in every kernel at once.
LINK := import os, sysconfig; site = sysconfig.get_path("purelib"); \
  open(os.path.join(site, "seal.pth"), "w").write(os.path.relpath(".", site) + "\n")

$(STAMP):
	@$(RIGHT_PYTHON)
	@$(HAS_VENV)
	@echo "making .venv from requirements.lock: one to three minutes, once"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check $(UV) || echo "no uv: pip does it, more slowly"
	@$(install_lock)
	@.venv/bin/python -c '$(LINK)'
	@echo $(TORCH) > .venv/.torch
	@echo '$(KEY)' > $@

# ---- what is said meanwhile ------------------------------------------------------------------------------

HOME_ := $(if $(SEAL_HOME),$(SEAL_HOME)/)
OF_PROFILE := $(if $(filter-out demo,$(PROFILE)), PROFILE=$(PROFILE))
START := $(shell date +%s)
TO_RUN := $(if $(filter figures,$(MAKECMDGOALS)),$(filter-out A1%,$(NOTEBOOKS)),$(NOTEBOOKS))
# Seconds of a first run on two cores. Once a notebook has run here, build/PROFILE/.seconds says it better.
TIMES_demo := 00_overview:15 01_dataset:60 02_seal_omics:60 03_seal_vision:190 04_patch_level:850 \
  05_slide_level:850 08_figures_and_tables:20 A1_simulated_atlas:160

define PROGRESS
function about(s) { return s < 100 ? s " s" : sprintf("%.0f min", s / 60) }
BEGIN { n = split(times, pairs, " "); for (i = 1; i <= n; i++) { split(pairs[i], p, ":"); last[p[1]] = p[2] } }
{ last[$$1] = $$2; ran[$$1] = 1 }
END {
  n = split(names, name, " ")
  for (i = 1; i <= n; i++) {
    if (name[i] == me) at = i
    if (at && name[i] in last) left += last[name[i]]; else if (at) unknown = 1
    if (at && !(name[i] in ran)) first = 1
  }
  rest = (unknown ? "more than " : "about ") about(left) " left, by " (first ? "times on two cores" : "the last run here")
  if (!left) rest = "how long is not known: it has not run here yet in this profile"
  printf "notebook %d of %d: %s%s; %s so far, %s\n", at, n, me, title ? " (" title ")" : "", about(passed), rest
}
endef
export PROGRESS
say = cat $(BUILD)/.seconds 2>/dev/null | awk -v me=$(1) -v names="$(TO_RUN)" -v times="$(TIMES_$(PROFILE))" \
  -v passed=$$(($$(date +%s) - $(START))) \
  -v title="$$(sed -n 's/^ *"\# [A-Z0-9]* · \(.*\)\\n",*$$/\1/p' notebooks/$(1).ipynb | head -n 1)" "$$PROGRESS"

# ---- running them ----------------------------------------------------------------------------------------

COPIES := $(NOTEBOOKS:%=$(BUILD)/%.ipynb)
SOURCES := $(shell find seal seal_atlas figures \( -name '*.py' -o -name '*.csv' \) -not -path 'figures/*/*')

# Where results or figures were deleted, what was run for them counts as not run.
PLACE := $(or $(SEAL_HOME),$(CURDIR))
ifneq ($(shell test -d "$(PLACE)/results/$(PROFILE)" && test -f "$(PLACE)/figures/$(PROFILE)/manifest.json" && echo y),y)
$(shell rm -f $(COPIES))
endif

# A notebook is run again after a change of itself, of the package or of the places below. What takes long (pairs,
# tokens, trained models) is kept by its own inputs and settings, so running again is quick.
RUN ?= $(PY) -W ignore -m papermill
$(COPIES): $(BUILD)/%.ipynb: notebooks/%.ipynb $(SOURCES) $(BUILD)/.places | $(ENVIRONMENT) $(KERNELS)
	@$(call say,$*)
	@start=$$(date +%s); rm -f $(@:.ipynb=.failed.ipynb); TQDM_DISABLE=1 $(RUN) notebooks/$*.ipynb $@ --cwd notebooks \
		-p profile $(PROFILE) -k python3 --no-progress-bar --log-level ERROR || \
		{ mv -f $@ $(@:.ipynb=.failed.ipynb); echo "$*: see $(@:.ipynb=.failed.ipynb), as far as it came" >&2; exit 2; }; \
		took=$$(($$(date +%s) - start)); echo "  $* took $$took s"; echo "$* $$took" >> $(BUILD)/.seconds

# What can be drawn before anything is trained is drawn then.
EARLY := F1 T1 T2 T3 T4 T5 T6 T7 T8
DRAW ?= $(PY) -m figures draw
$(BUILD)/.early: $(BUILD)/00_overview.ipynb $(BUILD)/01_dataset.ipynb
	@$(DRAW) $(EARLY) --profile $(PROFILE) > /dev/null
	@touch $@; echo "drawn so far: F1, T1-T8, in $(HOME_)figures/$(PROFILE)/"

$(KERNELS):
	@mkdir -p $(@D); echo 'c.IPKernelApp.log_level = "ERROR"' > $@

$(BUILD)/.places: FORCE
	+@$(RIGHT_PYTHON)
	+@$(PYTHON) -m seal profiles $(PROFILE) > /dev/null
	+@mkdir -p $(@D); echo '$(SEAL_HOME) $(SEAL_HER2ST) $(SEAL_HEST) $(SEAL_ALIASES) $(SEAL_SLIDES)' > $@.new
	+@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

FORCE:

$(BUILD)/02_seal_omics.ipynb: $(BUILD)/01_dataset.ipynb
$(BUILD)/03_seal_vision.ipynb: $(BUILD)/02_seal_omics.ipynb
$(BUILD)/04_patch_level.ipynb: $(BUILD)/03_seal_vision.ipynb
$(BUILD)/05_slide_level.ipynb: $(BUILD)/04_patch_level.ipynb
$(BUILD)/A1_simulated_atlas.ipynb: $(BUILD)/01_dataset.ipynb
$(BUILD)/08_figures_and_tables.ipynb: $(filter-out %/08_figures_and_tables.ipynb %/A1_simulated_atlas.ipynb,$(COPIES))
$(BUILD)/08_figures_and_tables.ipynb: | $(BUILD)/.early
