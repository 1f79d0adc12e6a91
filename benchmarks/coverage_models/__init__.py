"""Small models as their owners have them: `MODELS`, by theme and name.

A theme is a module; every public function of it makes one `Case`. Weights are random, of the seed that the caller sets.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from benchmarks.coverage_models.making import CALIBRATION, SAMPLES, Case

THEMES = ("basics", "applications", "vision", "images", "language", "series", "tables", "operators", "files")
__all__ = ["CALIBRATION", "SAMPLES", "THEMES", "Case", "make", "models", "names"]


def models(theme: str) -> dict[str, Callable[[], Case]]:
    """Name -> what makes the case, in the order of the module."""
    module = importlib.import_module(f"benchmarks.coverage_models.{theme}")
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: value for name, value in own.items() if name[0] != "_" and not isinstance(value, type)}


def names() -> list[str]:
    """Every "theme/name"."""
    return [f"{theme}/{name}" for theme in THEMES for name in models(theme)]


def make(name: str) -> Case:
    """The case "theme/name"."""
    theme, model = name.split("/")
    return models(theme)[model]()
