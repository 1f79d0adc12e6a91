"""What the models of a comparison are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tfq.errors import UserError

Tflite: TypeAlias = bytes | str | os.PathLike[str]
"""The content of a .tflite, or its path."""


def name_models(paths: Sequence[Path]) -> dict[str, Path]:
    """A short name for each file: its own, with as many folders before it as tell the files apart."""
    twice = [path for index, path in enumerate(paths) if path in paths[:index]]
    if twice:
        raise UserError(f"`models` names {twice[0]} twice; to compare a file with itself, copy it")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return {str(Path(*path.parts[-depth:])): path for path in paths}


def by_name(models: Tflite | Sequence[Tflite] | Mapping[str, Tflite]) -> dict[str, bytes | Path]:
    """Models by the names given; those of a list are called by their files or by their place. Raises UserError."""
    if isinstance(models, Mapping):
        named = {name: tflite(model) for name, model in models.items()}
    else:
        listed = list(models) if isinstance(models, Sequence) and not isinstance(models, (bytes, str)) else [models]
        found = [tflite(model) for model in listed]
        names = {path: name for name, path in name_models([m for m in found if isinstance(m, Path)]).items()}
        named = {
            names[model] if isinstance(model, Path) else f"model {place}": model for place, model in enumerate(found, 1)
        }
    if not named:
        raise UserError("`models` is empty; give .tflite files, the baseline first")
    return named


def tflite(model: Any) -> bytes | Path:
    """The content or the path. Raises UserError for anything else."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model)
    if isinstance(model, bytes):
        return model
    raise UserError(f"got a {type(model).__name__} for a model; give the path or the content of a .tflite file")
