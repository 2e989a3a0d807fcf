# make demo | make test | make lint | make docs | make test-all | make test-system. Each sets up what it needs in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all test-system lint docs clean

demo: .venv/installed
	$(BIN)/python -m dg_batchformer sweep sweeps/quickstart.yaml --threads 1
	$(BIN)/python -m dg_batchformer tables results/quickstart --output results/quickstart/tables

test: .venv/installed-dev
	$(BIN)/python -m pytest -n auto

test-all: .venv/installed-dev
	$(BIN)/python -m pytest -n auto -m "not system"

test-system: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --editable ".[dev,tensorboard,wandb,mlflow,notebooks]"
	tools/install_latex.sh
	tools/install_chromium.sh
	tools/install_tcmalloc.sh
	$(BIN)/python -m pytest -m system

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

clean:
	rm -rf .venv

.venv/installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@
