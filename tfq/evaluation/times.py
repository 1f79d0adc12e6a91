"""How long each layer takes: the operations of a .tflite, each alone in the runtime, on this machine.

    time of a layer = sum over its operations of the median of single invocations       with XNNPACK, one thread

The runtime's Python interface tells no times of operations within a model. Alone, one takes its share of setting up an
invocation too, about a microsecond, and finds other caches: the sum over the layers is not the model's latency. An
operation belongs to the layer whose tensor it writes, or else to that of an operation that reads what it writes.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np

from tfq.errors import UserError
from tfq.execution.interpreter import TensorInfo, TfliteModel
from tfq.execution.progress import SILENT, Progress
from tfq.verify.contents import Contents, cut, read

_RUNS, _SECONDS = 25, 0.02  # of one operation at the most


def layer_times(content: bytes, layers: Collection[str], *, progress: Progress = SILENT) -> dict[str, float]:
    """Milliseconds by layer; none for one whose operations do not run alone, or that the file has no operation of.

    Args:
      content: a .tflite whose tensors are called after the layers, as tfq writes it.
      layers: their names.
    """
    contents = read(content)
    owners = _owners(contents, layers)
    found: dict[str, float | None] = {}
    with progress.task("time the layers", len(owners)) as advance:
        for position, owner in owners.items():
            taken, before = _milliseconds(contents, position), found.get(owner, 0.0)
            found[owner] = None if taken is None or before is None else before + taken
            advance(1)
    return {name: taken for name, taken in found.items() if taken is not None}


def _owners(contents: Contents, layers: Collection[str]) -> dict[int, str]:
    """Position of an operation -> its layer."""
    owners: dict[int, str] = {}
    readers: dict[int, str] = {}  # tensor -> layer of what reads it
    known = set(layers)
    for position in reversed(range(len(contents.operations))):
        operation = contents.operations[position]
        names = [contents.names[index] for index in operation.outputs]
        owner = next((part for name in names for part in (name, name.split("/")[0]) if part in known), "")
        owner = owner or next((readers[index] for index in operation.outputs if index in readers), "")
        if owner:
            owners[position] = owner
            readers |= dict.fromkeys(operation.inputs, owner)
    return dict(sorted(owners.items()))


def _milliseconds(contents: Contents, position: int) -> float | None:
    operation = contents.operations[position]
    sources = [
        index
        for index in dict.fromkeys(operation.inputs)
        if index >= 0 and not contents.is_constant(index) and not contents.is_state(index)
    ]
    if len(operation.outputs) != 1 or operation.kind == "WHILE":  # made-up numbers may never end a loop
        return None
    try:
        alone = cut(contents, [position], sources, operation.outputs[0], delegate=True)
        return _median(alone)
    except UserError:  # it works on what others leave, or on indices that cannot be made up
        return None


def _median(model: TfliteModel) -> float:
    rng = np.random.default_rng(0)
    model.run_raw({info.name: _drawn(rng, info) for info in model.inputs})
    taken: list[int] = []
    while len(taken) < _RUNS and (len(taken) < 3 or sum(taken) < 1e9 * _SECONDS):
        start = time.perf_counter_ns()
        model.invoke()
        taken.append(time.perf_counter_ns() - start)
    return float(np.median(taken)) / 1e6


def _drawn(rng: np.random.Generator, info: TensorInfo) -> np.ndarray:
    """Elements of one sample; integers without a grid may be indices, and 0 always is one."""
    shape = tuple(abs(size) for size in info.shape)
    if info.dtype.kind == "f":
        return rng.standard_normal(shape, np.float32).astype(info.dtype)
    if not info.quantized:
        return np.zeros(shape, info.dtype)
    limits = np.iinfo(info.dtype)
    return rng.integers(limits.min, limits.max, shape, info.dtype, endpoint=True)
