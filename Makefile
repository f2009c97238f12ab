# make demo   trains a small cascade and reconstructs a photograph into outputs/demo
# make test   the test suite
# make bench-quick   are we as fast, against rivals and ceilings, as the committed record says? (2 minutes)
# make gpu    on a machine with a CUDA device: tests, CPU = CUDA, benches; at most 9 minutes, with the Python at hand
# All but the last create .venv and install what they need, from nothing but Python 3.10-3.12.

VENV ?= .venv
# Of `make gpu`: the interpreter that is given (make gpu PYTHON=python3), else that of the environment if there is one.
GPU_PYTHON := $(or $(PYTHON),$(wildcard $(VENV)/bin/python),python3)
PYTHON ?= $(shell for v in 3.12 3.11 3.10; do command -v python$$v >/dev/null 2>&1 && python$$v -c 'import sys' 2>/dev/null && { echo python$$v; break; }; done || true)
PYTHON := $(if $(PYTHON),$(PYTHON),python3)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt 2>/dev/null | cksum | cut -d' ' -f1)
# `make test PYTEST_FLAGS="-k ridge"` runs a part
PYTEST_FLAGS ?=

.PHONY: demo test test-slow gpu bench-quick bench-record lint install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "Python 3.10, 3.11 or 3.12 is needed; $(VENV) has $$($(BIN)/python --version). Try: make PYTHON=python3.11"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,bench,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dlib]' \
	  || echo "The dlib extra could not be installed; tests that need it are skipped."
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m facerecon_torch.commands.demo outputs/demo

# Two processes with one thread each, a file of tests in one of them.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow' --durations=10 $(PYTEST_FLAGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout=7200 --durations=10 $(PYTEST_FLAGS)

# The benches that have rivals or ceilings, on one thread: the least that others on the machine can disturb.
# The record is benchmarks/results/guard.json.
BENCH_QUICK = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m facerecon_torch bench \
  model fit hog ridge infer sizes=quick rounds=7 threads=1 plots=false output=none

bench-quick: $(STAMP)
	$(BENCH_QUICK) guard=check

bench-record: $(STAMP)
	$(BENCH_QUICK) guard=record

# Nothing is installed. GPU_FLAGS: --out DIR, --steps tests hog ...
gpu:
	$(GPU_PYTHON) -m benchmarks.gpu $(GPU_FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)
