"""Samples from the user's own code: "module:function" or "path/file.py:function".

The function is called without arguments, once per pass, and gives an iterable as `tfq.data.objects` describes it. A
tuple of two is a pair (inputs, label) unless the model has two inputs; then it is one array per input, and a label
comes as ((a, b), label). A function that is asked for all its samples (for evaluation, and for any selection but first)
must end: at most MOST_SAMPLES of them, and MOST_BYTES, are taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tfq.data.samples import InputSignature
from tfq.data.sources import MOST_BYTES, MOST_SAMPLES, RawSample, Source, check_counts, selected, stacked
from tfq.errors import UserError, described

Found = TypeVar("Found")


class StreamSource(Source):
    """Samples or batches, one after the other; their number is known only after a pass."""

    label_hint = "yield (inputs, label)"

    def __init__(
        self,
        name: str,
        begin: Callable[[], Iterable[Any]],
        signatures: Sequence[InputSignature],
        *,
        endless: bool = False,
    ):
        """`begin` starts a pass; it is called without arguments. endless: no pass comes to an end."""
        self._name = name
        self._ranks = {s.name: len(s.shape) for s in signatures}
        self._begin = begin
        self._endless = endless
        try:
            inspect.signature(begin).bind()
        except ValueError:  # one written in C, which does not tell
            pass
        except TypeError as error:
            raise UserError(f"{name} is called without arguments; it has a {error}") from error

    def labels(self) -> np.ndarray | None:
        return stacked((sample.label for sample in self.read(None)), self._name)

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        if wanted is None and self._endless:
            raise UserError(f"{self._name} repeats without end, and all of it is asked for; leave out .repeat()")
        samples = self._ending() if wanted is None else self._samples()
        for index, (inputs, label) in selected(samples, wanted):
            yield RawSample(index, {name: f"sample {index} of {self._name}" for name in inputs}, inputs, label)

    def _ending(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """`_samples`, where all are asked for."""
        passed = 0
        for index, (inputs, label) in enumerate(self._samples()):
            passed += sum(array.nbytes for array in inputs.values())
            if index >= MOST_SAMPLES or passed > MOST_BYTES:
                raise UserError(
                    f"{self._name} does not end: it has given {index:,} samples of {passed / 2**30:.1f} GiB; at most"
                    f" {MOST_SAMPLES:,} samples and {MOST_BYTES >> 30} GiB are taken. Let it end, or use"
                    " `selection='first'` with `num_calibration_samples`"
                )
            yield inputs, label

    def _samples(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """(inputs by name, label) of each sample."""
        for index, (inputs, label) in enumerate(itertools.starmap(self._parse, enumerate(self._given()))):
            if any(array.ndim != self._ranks[key] + 1 for key, array in inputs.items()):
                yield inputs, label
                continue
            counts = {repr(key): len(array) for key, array in inputs.items()}
            if label is not None:
                counts["labels"] = len(label) if label.ndim else 0
            check_counts(counts, f"batch {index} of {self._name}")
            for row in range(min(counts.values())):
                yield {key: array[row] for key, array in inputs.items()}, None if label is None else label[row]

    def _given(self) -> Iterator[Any]:
        """What the user's code gives; what goes wrong in it is said with its name."""
        try:
            produced = self._begin()
            if inspect.iscoroutine(produced):
                produced.close()  # or Python warns that nobody waited for it
            iterator = iter(produced)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            raise UserError(f"{self._name} cannot be iterated: {described(error)}") from error
        for index in itertools.count():
            try:
                sample = next(iterator)
            except StopIteration:
                return
            except (Exception, SystemExit, GeneratorExit) as error:
                raise UserError(f"{self._name} fails at sample {index}: {described(error)}") from error
            yield sample

    def _parse(self, index: int, sample: Any) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        label = None
        names = list(self._ranks)
        if isinstance(sample, list) and all(hasattr(part, "shape") for part in sample):
            sample = tuple(sample)
        is_pair = isinstance(sample, tuple) and len(sample) == 2
        if is_pair and (len(names) != 2 or isinstance(sample[0], (tuple, Mapping))):
            sample, label = sample
        if isinstance(sample, Mapping):
            values = dict(sample)
        else:
            parts = sample if isinstance(sample, tuple) else (sample,)
            if len(parts) != len(names):
                raise UserError(
                    f"sample {index} of {self._name} has {len(parts)} array{'s' * (len(parts) != 1)}; the model has"
                    f" the input{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"
                )
            values = dict(zip(names, parts, strict=True))
        missing = [name for name in names if name not in values]
        if missing:
            raise UserError(
                f"sample {index} of {self._name} has no {', '.join(map(repr, missing))};"
                f" it has: {', '.join(repr(k) for k in values)}"
            )
        try:
            inputs = {name: np.asarray(values[name]) for name in names}
            return inputs, None if label is None else np.asarray(label)
        except Exception as error:  # an object of the user's may raise anything when it is made an array
            raise UserError(f"sample {index} of {self._name} is no array: {described(error)}") from error


def import_function(name: str) -> Callable[..., Any]:
    """The function behind "module:function" or "path/file.py:function".

    A module is imported as Python finds it, else from the working directory.

    Raises:
      UserError: there is no such module or function, or importing it fails.
    """
    module_name, _, attribute = name.rpartition(":")
    try:
        if not module_name.endswith(".py") and importlib.util.find_spec(module_name) is not None:
            module = importlib.import_module(module_name)
        else:
            module = _load_file(_file_of(module_name))
        function = getattr(module, attribute, None)
    except (Exception, SystemExit) as error:
        raise UserError(f"cannot import {module_name!r} of {name!r}: {described(error)}") from error
    if not callable(function):
        raise UserError(f"{module_name!r} has no function {attribute!r}")
    return function


def check_module(name: str) -> None:
    """Raises UserError where "module:function" names no module that can be found; nothing of the user's is run."""
    module = name.rpartition(":")[0]
    path = _file_of(module)
    package = module.partition(".")[0]
    if path.is_file() or package in sys.modules:
        return
    if module.endswith(".py") or not package or importlib.util.find_spec(package) is None:
        raise UserError(f"cannot import {module!r} of {name!r}: {_absent(path)}")


def import_option(option: str, name: str) -> Callable[..., Any]:
    """The function that an option names; modules are looked for in the working directory too.

    Raises UserError, which names the option, as `import_function` does.
    """
    return _of_option(option, name, import_function)


def check_option(option: str, name: str) -> None:
    """Raises UserError, which names the option, as `check_module` does."""
    _of_option(option, name, check_module)


def _of_option(option: str, name: str, found: Callable[[str], Found]) -> Found:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return found(name)
    except UserError as error:
        raise UserError(f"`{option}` is {name!r}, which cannot be loaded: {error}") from error


def _file_of(module: str) -> Path:
    """Where the working directory has it."""
    return Path(module) if module.endswith(".py") else Path(*module.split(".")).with_suffix(".py")


def _absent(path: Path) -> str:
    return f"no such module and no file {path}"


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(_absent(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
