# The set-up lives in .venv; every target makes it first when it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/demo

.PHONY: demo test test-all check bench clean

demo: $(VENV)/.ready
	$(BIN)/luthier doctor --fetch
	$(BIN)/luthier demo --out $(OUT)

test: $(VENV)/.ready-dev check
	$(BIN)/luthier doctor --fetch
	$(BIN)/python -m pytest -m "not slow"

test-all: $(VENV)/.ready-dev check
	$(BIN)/luthier doctor --fetch
	$(BIN)/python -m pytest --hypothesis-profile=search

check: $(VENV)/.ready-dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy

bench: $(VENV)/.ready-bench
	$(BIN)/luthier doctor --fetch
	$(BIN)/python -m bench --out docs/benchmarks.md

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
