# `make` alone lists the targets. Needs Python 3.11 or later with pip, and nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := examples/node/node_modules/.ready examples/browser/node_modules/.ready
SOURCES := $(shell find fastlstm export bench -name '*.py' -o -name '*.toml' -o -name '*.mjs' -o -name '*.c' -o -name '*.j2' -o -name py.typed)
TYPECHECK := build/typecheck
# A process for each core, at most four, each with whole files of tests.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format types widths bench limits readme results training gallery clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) $(PACKAGES) ## make .venv with everything in it, pinned by constraints.txt

demo: $(READY) ## train, save, verify, export, stream and bench on a real series, into demo-run/
	@$(BIN)/python examples/demo.py

test: $(READY) $(PACKAGES) ## run the tests
	@$(PYTEST)

widths: $(READY) $(PACKAGES) ## run the tests with vectors of 4, 8 and 16 lanes, one after the other
	@for width in 4 8 16; do \
	  echo "FASTLSTM_VECTOR_WIDTH=$$width"; \
	  FASTLSTM_VECTOR_WIDTH=$$width $(PYTEST) || exit 1; \
	done

lint: $(READY) ## check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(MAKE) --no-print-directory types

format: $(READY) ## put the sources into the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# No script of a package runs: that of onnxruntime-node fetches builds for NVIDIA cards. Without npm
# the examples in JavaScript are left out, and the tests of them say so.
$(PACKAGES): examples/%/node_modules/.ready: examples/%/package-lock.json
	@if command -v npm >/dev/null; then \
	  echo "Installing the npm packages of examples/$*"; \
	  npm ci --prefix examples/$* --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@; \
	else \
	  echo "npm not found: examples/$* is left out; install Node.js 20 or later with npm to have it"; \
	fi

# The top-level folders export/ and bench/ are fastlstm.export and fastlstm.bench only once installed,
# and mypy does not follow an editable install there: it checks an installed copy.
types: $(TYPECHECK)/.ready ## check types
	@cd $(TYPECHECK) && ../../$(BIN)/mypy --config-file ../../pyproject.toml \
	  --cache-dir ../../.mypy_cache -p fastlstm

# One process: beside another that measures, no time means anything.
bench: $(READY) ## time our own kernels, a minute or two, and say what moved since the last time
	@$(BIN)/python -m pytest bench/suites -q --benchmark-only --benchmark-disable-gc \
	  --benchmark-autosave --benchmark-quiet
	@$(BIN)/python bench/suites/moved.py .benchmarks

limits: $(READY) ## measure every goal of speed on this machine, some ten minutes, into bench/results/limits.md
	@$(BIN)/python -m fastlstm.bench.goals --json bench/results/limits.json --markdown bench/results/limits.md

readme: $(READY) ## time the ladder of hidden sizes on this machine, some ten minutes, and put table and plot into README.md
	@$(BIN)/fastlstm bench ladder --json bench/results/ladder.json
	@$(BIN)/fastlstm bench report bench/results/ladder.json --readme README.md --plot docs/bench.svg

results: $(READY) ## run the other presets of the bench on this machine, some twenty minutes, into bench/results/
	@for preset in quick stacks audio; do \
	  $(BIN)/fastlstm bench $$preset --json bench/results/$$preset.json --markdown bench/results/$$preset.md || exit 1; \
	done
	@$(BIN)/fastlstm bench model examples/browser/model.safetensors --json bench/results/model.json \
	  --markdown bench/results/model.md
	@$(MAKE) --no-print-directory -C examples/contender
	@$(BIN)/fastlstm bench model examples/browser/model.safetensors --contender examples/contender/contender \
	  --json bench/results/contender.json --markdown bench/results/contender.md

training: $(READY) ## time training steps beside a bare torch loop, into bench/results/training.json
	@$(BIN)/python -m fastlstm.bench.training

gallery: $(READY) ## train the ready recipes into docs/gallery.md, an hour or two; ONLY=sine,waves takes some, DATA=folder ball.csv and ETTh1.csv
	@$(BIN)/python examples/gallery.py $(if $(ONLY),--only $(ONLY)) $(if $(DATA),--data $(DATA))

clean: ## remove everything made, except .venv and the trained models in runs/
	@rm -rf build dist demo-run *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## remove .venv and the npm packages too
	@rm -rf $(VENV) examples/*/node_modules

# pip before 25.1 knows no dependency groups, hence its own upgrade first. Nothing is fetched to
# build with: setuptools is pinned and installed like the rest.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastlstm needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "Installing fastlstm and its pinned tools into $(VENV) (once; some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --upgrade pip setuptools wheel
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --no-build-isolation \
	  torch==2.13.0 -e '.[all]' --group dev
	@touch $@

# build/lib goes first: setuptools would carry a file deleted since the last build into the new copy.
$(TYPECHECK)/.ready: $(READY) $(SOURCES)
	@rm -rf build/lib $(TYPECHECK)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --target $(TYPECHECK) .
	@touch $@
