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
.PHONY: help demo demo-versions test test-all lint benchmark runners system arm64 mediapipe clean

help:
	@echo "make demo       quantise the demo model and print where the report is"
	@echo "make test       lint and the fast tests"
	@echo "make demo-versions  the demo on every other Python that tfq is declared for and that is installed"
	@echo "make test-all   lint and every test"
	@echo "make mediapipe  an environment with MediaPipe, to which the tests then give files"
	@echo "make benchmark  tfq and its peers on the same cases"
	@echo "make lint       ruff and mypy"
	@echo "make runners    tfq_runner for phones and for Linux, with checksums, into dist/runners"
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

# An environment for each of these Pythons, made under build/, and the demo in it. A version that is not installed is named.
VERSIONS ?= 3.10 3.11 3.12 3.13

demo-versions:
	@own=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(VERSIONS); do \
	  test $$version != $$own || continue; \
	  for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python none; do \
	    ! "$$python" -c "" 2>/dev/null || break; \
	  done; \
	  if test "$$python" = none; then echo "Python $$version is not installed: the demo was not run on it"; continue; fi; \
	  echo "the demo on Python $$version"; \
	  $(MAKE) --no-print-directory demo PYTHON="$$python" VENV=build/python$$version OUT=build/demo$$version || exit 1; \
	done

lint: $(VENV)/tfq-dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint system arm64
	$(WITH_ARM64) $(WITH_MEDIAPIPE) $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: lint system arm64 mediapipe
	$(WITH_ARM64) $(WITH_MEDIAPIPE) $(BIN)/python -m pytest -n $(WORKERS)

benchmark: $(VENV)/tfq-dev.installed
	$(BIN)/python -m benchmarks.int8
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.reconstruction
	$(BIN)/python -m benchmarks.on_device
	$(BIN)/python -m benchmarks.allocation --reconstruct=0.09,0.125,0.18

# Release assets: with ANDROID_NDK_HOME set, the programs that --runner takes, for whom has no NDK.
runners: $(VENV)/tfq.installed
	$(BIN)/python -m tfq_bench.release dist/runners

# What the tests of the builds and of the on-device benchmark need, by Debian's names. Where it cannot be installed, the
# tests that need it skip and say so.
PACKAGES := bazel-bootstrap cmake make g++ clang libclang-rt-dev g++-aarch64-linux-gnu qemu-user adb default-jdk-headless \
  kotlin

system:
	@missing=; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	test -z "$$missing" || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	} || echo "not installed, and cannot be:$$missing; the tests that need them will skip"

# The runtime's library for arm64 Linux, out of the wheel of the version that is installed: with it the tests run an arm64
# device under qemu. Where it cannot be had, that test skips and says so.
ARM64 := build/arm64
WITH_ARM64 := if test -f $(ARM64)/libLiteRt.so; then \
  export TFQ_TEST_LIBRARY_ARM64_LINUX="$(CURDIR)/$(ARM64)/libLiteRt.so"; fi;

arm64: $(VENV)/tfq-dev.installed
	@test -f $(ARM64)/libLiteRt.so || { mkdir -p $(ARM64) && \
	  $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $(ARM64) \
	    --platform manylinux_2_27_aarch64 "$$($(BIN)/python -m pip freeze | grep -i '^ai-edge-litert==')" && \
	  $(BIN)/python -m zipfile -e $(ARM64)/*.whl $(ARM64)/wheel && \
	  mv $(ARM64)/wheel/ai_edge_litert/libLiteRt.so $(ARM64)/ && rm -r $(ARM64)/wheel $(ARM64)/*.whl; \
	} || echo "the arm64 library cannot be had: the test under qemu will skip"

# MediaPipe asks for absl-py 2, which tensorflow-model-optimization does not take: an environment of its own, of about
# 650 MB. With it the tests give files to its ImageClassifier; where it is not there those tests skip and say so.
MEDIAPIPE := build/mediapipe
WITH_MEDIAPIPE := if test -x $(MEDIAPIPE)/bin/python; then \
  export TFQ_TEST_MEDIAPIPE="$(CURDIR)/$(MEDIAPIPE)/bin/python"; fi;

mediapipe:
	@test -x $(MEDIAPIPE)/bin/python || { $(PYTHON) -m venv $(MEDIAPIPE) && \
	  $(MEDIAPIPE)/bin/python -m pip install --quiet --disable-pip-version-check 'mediapipe>=1.2,<2'; \
	} || { rm -rf $(MEDIAPIPE); echo "MediaPipe cannot be had: the tests of its ImageClassifier will skip"; }

clean:
	rm -rf $(VENV) build dist out tfq.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
