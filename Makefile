# make study | test | test-slow | test-cluster | lint: each sets up .venv first, when it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test test-slow test-cluster lint setup clean

study: setup
	$(BIN)/python -m sweeps.quick_study

test: setup
	$(BIN)/python -m pytest -m "not slow and not cluster"

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not cluster"

# -rs: what was skipped, and why.
test-cluster: setup
	$(BIN)/python -m pytest -m cluster -rs

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

setup: .venv/.installed

# Without ensurepip (a package of its own on some systems): the pip outside installs into the environment.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=python3.11 …" >&2; exit 2; }
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
