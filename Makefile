# Calibrant's habits. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DATA ?= .data
CORPUS ?= ../shared/corpus

# One thread for torch: two threads on a busy two-core machine cost tens of times more.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# The lock pins versions only. torch comes first: other packages ask for a range of it.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.PHONY: install
install: $(VENV)/.installed ## Make .venv with the pinned dependencies

.PHONY: demo
demo: install ## Everything up, and the main job on the starter corpus (ONCE=1 exits when done)
	$(BIN)/calibrant --data-dir $(DATA) demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

.PHONY: up
up: install ## Web, worker and broker, until Ctrl-C
	$(BIN)/calibrant --data-dir $(DATA) up $(if $(PORT),--port $(PORT))

.PHONY: services
services: ## Debian's Chromium and PostgreSQL, when they are missing (for the tests)
	./scripts/install_test_services.sh

.PHONY: test
test: install services ## Every test, from unit to a real browser
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

.PHONY: browser-test
browser-test: install services ## The browser tests alone
	$(BIN)/python -m pytest tests/browser $(ARGS)

.PHONY: lint
lint: install ## ruff, mypy strict, djlint, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/djlint templates --check --quiet
	$(BIN)/djlint templates --lint --quiet
	$(BIN)/lint-imports

.PHONY: fix
fix: install ## Let ruff and djlint mend what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/djlint templates --reformat --quiet

.PHONY: lock
lock: install ## Write requirements.lock from what is installed (names and versions only)
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools | sed 's/+cpu$$//' > requirements.lock

.PHONY: corpus
corpus: install ## Make demo/corpus again from CORPUS
	$(BIN)/python -m scripts.make_corpus_packs $(CORPUS)

.PHONY: demo-model
demo-model: install ## Train demo/model again, with the same seed (half an hour)
	$(BIN)/python -m scripts.train_demo_model

.PHONY: bench-engine
bench-engine: install ## Stock AWQ against ours: CPU time, cached activations, weights
	$(BIN)/python -m bench.engine $(ARGS)

.PHONY: bench-composition
bench-composition: install ## Live totals, index and build of calibration sets
	$(BIN)/python -m bench.composition $(ARGS)

.PHONY: bench-quality
bench-quality: install ## Held-out KL by statistics and search over five seeds (three quarters of an hour)
	$(BIN)/python -m bench.quality --results .quality.json $(ARGS)

.PHONY: bench-selection
bench-selection: install ## Chosen rows against random ones: worst-fed experts and held-out KL over ten seeds (half an hour)
	$(BIN)/python -m bench.selection $(ARGS)

.PHONY: bench-heatmap
bench-heatmap: install services ## From the click to a heatmap of 62 × 256 cells, in Chromium
	$(BIN)/python -m bench.heatmap $(ARGS)

.PHONY: kill-table
kill-table: install ## Kill a run at 20 random moments, resume, compare every file
	$(BIN)/python -m bench.kill_table $(ARGS)

.PHONY: screenshots
screenshots: install services ## Pictures of every page, light and dark, wide and phone
	$(BIN)/python -m scripts.screenshots
