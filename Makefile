# make demo: set up, then train and sample on bundled real data. make test: set up, then all tests.
# make check: set up, then format, style, types, and the tests that are not slow: before each commit.
# make soak: set up, then long forms of tests that make test runs shorter; SECONDS of hostile input.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 600
# processes that tests start find what the first has compiled
export PYTHONDONTWRITEBYTECODE =
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: demo test check soak lint clean

demo: $(VENV)/ready
	$(BIN)/fieldloom demo

test: $(VENV)/ready
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow and not soak"

soak: $(VENV)/ready
	$(PYTEST) -m soak
	$(PYTEST) tests/fuzz --fuzz-seconds $(SECONDS)

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# exact versions from constraints.txt; pyproject.toml states the ranges
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs runs
