# `make demo` and `make test` work on a fresh machine: both make the environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

# The embedded example on four chips: one picked configuration per chip, and where the figures and the page lie.
demo: $(STAMP)
	@rm -rf runs/digits
	$(BIN)/hwdse explore experiments/digits.toml --out runs/digits

# All tests and doctests.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2

# Style and types.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Speed: ratios within one run, printed as a table and written to bench.json.
bench: $(STAMP)
	$(BIN)/python tests/bench/run.py

clean:
	rm -rf $(VENV) runs bench.json
