# Every target makes the virtual environment it needs; nothing else has to be installed first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
QUICKSTART_DIR ?= quickstart
# Threads that wait asleep instead of spinning: on a busy machine the difference is tenfold.
export OMP_WAIT_POLICY := passive

.PHONY: quickstart test lint docs bench torture clean

$(BIN)/python:
	@echo "making the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing wellkit[train]"
	@$(PIP) -e ".[train]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing wellkit[dev]"
	@$(PIP) -e ".[dev]"
	@touch $(VENV)/.train $@

quickstart: $(VENV)/.train
	@$(BIN)/wellkit quickstart --to $(QUICKSTART_DIR)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -m "not torture" -n auto --maxprocesses 4 --dist loadfile

torture: $(VENV)/.dev
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

docs: $(VENV)/.docs
	@$(BIN)/mkdocs build --strict

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) -e ".[docs]"
	@touch $@

bench: $(VENV)/.dev
	@for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	@rm -rf $(VENV) build dist *.egg-info
