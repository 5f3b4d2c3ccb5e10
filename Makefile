# make demo: the main job on the bundled demo.   make test: the tests.   make check: all that CI runs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow check setup format lint types imports clean

demo: $(VENV)/ready
	$(BIN)/python tune.py --space default

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow --timeout 1800

check: lint types imports test

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/ready
	$(BIN)/mypy

imports: $(VENV)/ready
	$(BIN)/lint-imports

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
