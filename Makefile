# Two targets do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SHELL  := /bin/bash

.PHONY: run test check chaos slow bench clean

run: $(VENV)/.ready
	$(BIN)/flywheel run recipes/stdlib-coder.yaml

test: $(VENV)/.ready
	$(BIN)/python -m pytest -m "not chaos and not slow" -n 2 --dist loadfile

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

chaos: $(VENV)/.ready
	$(BIN)/python -m pytest -m chaos

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/wheel.py

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "Python 3.11 or 3.12 is needed; name one: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache
