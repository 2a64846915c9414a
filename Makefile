# make lab: JupyterLab on the notebooks.  make demo: the digits run, into runs/digits.  make study: what outliers teach.
# make cifar10: CIFAR-10, small, on one GPU.  make check, make test: the unit tests, all tests.  make bench: speed.

PYTHON ?= python3
# Each core runs a notebook of about 1 GiB; make demo CORES=16 where there is memory for it.
CORES ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count()))')
BIN := .venv/bin
RUNS := $(or $(OODLIB_RUNS),runs)
RUN := $(RUNS)/digits
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help demo study cifar10 bench check test lab notebooks pretrained screenshot lint

help:
	@sed -n 1,2p Makefile

# The lock holds exact versions for every platform; the package itself is installed from this folder.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "oodlib needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: .venv/installed
	@echo "One diffusion model and 72 detectors in 31 notebooks: 17 minutes on two CPU cores, less on more."
	snakemake --cores $(CORES) --rerun-incomplete --retries 1 --quiet host reason
	@cat $(RUN)/summary.md
	@echo "Figures, tables, detectors and executed notebooks are in $(RUN); start with $(RUN)/figures."

study: .venv/installed
	@echo "Sources of outliers and their controls on six heads, five seeds, three denoisers: 1,380 detectors, three to"
	@echo "four hours on two CPU cores."
	for denoiser in 1 2; do \
		snakemake --cores $(CORES) --config outliers=repeated run=study-$$denoiser "shared={seed: $$denoiser}" \
			'seeds=[0,1,2,3,4]' --rerun-incomplete --retries 1 --quiet host reason || exit 1; \
	done
	snakemake --cores $(CORES) --config outliers=study run=study 'seeds=[0,1,2,3,4]' \
		--rerun-incomplete --retries 1 --quiet host reason
	@echo "Tables, figure and executed notebooks are in $(RUNS)/study; start with $(RUNS)/study/study.md."

# Three notebooks at once share the card. Those that need no samples run while the denoiser is trained.
CIFAR10 := snakemake --cores 3 --rerun-incomplete --retries 1 --quiet host reason --config preset=cifar10 profile=quick
cifar10: .venv/installed
	@echo "CIFAR-10 in the quick profile: a denoiser and 24 detectors of one seed, sized for a quarter of an hour of"
	@echo "an H100. It was not run yet."
	$(CIFAR10) 'heads=[softmax,scaled_cosine,arcface]' \
		'outliers=[none,label_mixup,placebo,none+degraded,label_mixup+noise+degraded,pixel_mixup+noise+degraded]'
	$(CIFAR10) 'outliers=[none,label_mixup]'
	@cat $(RUNS)/cifar10-quick/summary.md

# On a machine that does nothing else: what else runs goes into the numbers.
bench: .venv/installed
	@echo "The same work by oodlib and by others, in turn, and make demo, which alone takes 17 minutes on two."
	python -m benchmarks

# Lint and unit tests: no notebook, workflow or browser, and nothing that trains for long.
check: lint
	python -m pytest tests --ignore tests/test_browser.py -m "not slow" --numprocesses 2 --no-loadscope-reorder

# The explorer is tested alone, as its frames are counted.
test: .venv/installed
	python -m pytest tests/test_browser.py
	python -m pytest --ignore tests/test_browser.py --numprocesses 2 --no-loadscope-reorder

lab: .venv/installed
	jupyter lab notebooks/00_explore.ipynb

# Committed notebooks show the digits run and the study, so these are made first; figures/ holds what README.md shows.
notebooks: demo study
	jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb
	cp $(RUNS)/study/figures/study_alarms.png figures/
	python -m oodlib.pretrained digits study

# The models that the explorer opens with and the tables that notebook 5 shows, from the digits run.
pretrained: demo
	python -m oodlib.pretrained digits

# Needs chromium.
screenshot: .venv/installed
	OODLIB_SCREENSHOT=figures/explorer.png python -m pytest tests/test_browser.py -k opens

lint: .venv/installed
	ruff check .
	ruff format --check .
