# Everything runs in a virtual environment that the first target makes: `make demo` on a fresh checkout is enough.
# Other interpreter or place: make demo PYTHON=python3.12 VENV=/tmp/tfq-venv

PYTHON ?= python3
VENV ?= .venv
# Worker processes of pytest; each imports TensorFlow and needs about 2 GB.
WORKERS ?= 2

BIN := $(VENV)/bin
OUT := out/demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint benchmark bazel clean

help:
	@echo "make demo       quantise the demo model and print where the report is"
	@echo "make test       lint and the fast tests"
	@echo "make test-all   lint and every test"
	@echo "make benchmark  tfq and its peers on the same cases"
	@echo "make lint       ruff and mypy"
	@echo "make clean      remove what the targets made, the virtual environment too"

# pip runs again only when the packaging changes.
$(VENV)/tfq.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/tfq-dev.installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,demo,benchmark]'
	@touch $(VENV)/tfq.installed $@

demo: $(VENV)/tfq.installed
	$(BIN)/tfq-quantize --model=demo/digits.keras --calibration_data=demo/calibration.npz \
	  --evaluation_data=demo/test.npz --preprocess=raw --output_dir=$(OUT) --overwrite

lint: $(VENV)/tfq-dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint bazel
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: lint bazel
	$(BIN)/python -m pytest -n $(WORKERS)

benchmark: $(VENV)/tfq-dev.installed
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.reconstruction
	$(BIN)/python -m benchmarks.allocation --reconstruct=0.09,0.125,0.18

# Bazel, with which a test checks the BUILD files. Where it cannot be installed, that test skips and says so.
bazel:
	@command -v bazel >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bazel-bootstrap >/dev/null; \
	} || echo "bazel is not installed and cannot be: the test of the BUILD files will skip"

clean:
	rm -rf $(VENV) build dist out tfq.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
