"""Main of the Bazel target //tests: pytest over this folder, with the arguments given."""

from __future__ import annotations

import pathlib
import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main([str(pathlib.Path(__file__).parent), *sys.argv[1:]]))
