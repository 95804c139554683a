# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test frameworks test-slow test-upstream test-library lint update-golden clean

demo: $(VENV)/installed
	$(BIN)/nki-sim run examples/matmul.py
	$(BIN)/nki-sim profile examples/matmul.py --trace matmul-trace.json

test: $(VENV)/dev lint
	$(BIN)/pytest

# torch (for the CPU) and JAX, each where it installs; tests of what is missing are skipped and say so.
frameworks: $(VENV)/dev
	-$(BIN)/pip install --quiet --retries 1 --timeout 30 torch --index-url https://download.pytorch.org/whl/cpu
	-$(BIN)/pip install --quiet --retries 1 --timeout 30 --editable '.[jax]'

test-slow: $(VENV)/dev
	$(BIN)/pytest -m slow

# Needs NKI_SDK (a checkout of aws-neuron-sdk) and KLR (of leanprover/KLR); skips what has no checkout.
test-upstream: $(VENV)/dev
	$(BIN)/pytest -m upstream -rs tests/upstream

# Needs NKI_LIBRARY, a checkout of github.com/aws-neuron/nki-library, and torch, scipy and allpairspy.
test-library: $(VENV)/dev
	$(BIN)/python -m tests.upstream.library $(NKI_LIBRARY) $(LIBRARY_TESTS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

update-golden: $(VENV)/dev
	$(BIN)/pytest -n0 --snapshot-update

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) matmul-trace.json
