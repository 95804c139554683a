# Two commands set everything up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := .ci/requirements.txt

.PHONY: locked lock audit demo test frameworks test-slow test-upstream test-library test-conformance library-pages lint
.PHONY: mutation update-golden clean

demo: $(VENV)/installed
	$(BIN)/nki-sim run examples/matmul.py
	$(BIN)/nki-sim profile examples/matmul.py --trace matmul-trace.json

test: $(VENV)/dev lint
	$(BIN)/pytest

# The environment of CI: what the lock file names, each by its hash, and this project without its dependencies.
locked:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --requirement $(LOCK)
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(VENV)/installed $(VENV)/dev

# Writes the lock file anew, from pyproject.toml and .ci/requirements.in; needs uv.
lock:
	uv pip compile pyproject.toml .ci/requirements.in --extra dev --extra jax --universal --generate-hashes \
	  --python-version 3.10 --no-header --no-annotate --upgrade --output-file $(LOCK)

audit:
	$(BIN)/python .ci/audit

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

# The same tests on this project's own kernels, which are laid over the library's.
test-conformance: $(VENV)/dev
	$(BIN)/python -m tests.upstream.library $(NKI_LIBRARY) $(LIBRARY_TESTS) --ours

# Mutants of nki_isa and nki_sim against their tests; needs Python 3.11. MUTATION=--help lists options.
mutation: $(VENV)/dev
	$(BIN)/pip install --quiet --editable '.[mutation]'
	nice $(BIN)/python -m tests.mutation $(MUTATION)

# Writes docs/library anew from the table of kernels.
library-pages: $(VENV)/dev
	$(BIN)/python -m nkilib.pages docs/library

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
