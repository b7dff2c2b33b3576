# On a fresh machine: `make demo`, `make test`, `make docs`. Each makes .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-slow lint format docs clean
.DELETE_ON_ERROR:

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vidface needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/vidface demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

# Two processes, a file's tests in one of them.
PARALLEL := -n 2 --dist loadfile

test: lint
	$(BIN)/pytest $(PARALLEL) -m 'not slow'

test-slow: $(READY)
	VIDFACE_BUDGET=full $(BIN)/pytest $(PARALLEL) -m 'slow or property'

clean:
	rm -rf .venv build dist *.egg-info
