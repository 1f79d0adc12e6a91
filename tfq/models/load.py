"""Reads a model, from a file or live, and flattens it into a `Graph`.

A Keras file says which framework wrote it; that one builds it, from a configuration that holds nothing but what
tfq knows (`tfq.models.model_files`, `tfq.models.revive`). Code in a file runs only under
`allow_unsafe_deserialization`. A float .tflite is read operator by operator (`tfq.models.tflite_frontend`).
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tf_keras

from tfq.errors import UserError
from tfq.input_shapes import InputShapes
from tfq.models.carried import leaves
from tfq.models.frontend import Frontend
from tfq.models.graph import Graph
from tfq.models.keras3 import Keras3Frontend
from tfq.models.model_files import FORMATS, GRAPH, TFLITE, open_model_file
from tfq.models.refusals import refuse
from tfq.models.revive import revive, trusted_model
from tfq.models.saved_graphs import as_tflite
from tfq.models.tf_keras_models import TFKerasFrontend
from tfq.models.tflite_frontend import TfliteFrontend

_BATCH = 32
OPEN = InputShapes()
# A tensor of more numbers for one sample is 1 GiB of float32: nothing that a .tflite runs.
_LARGEST_SAMPLE = 2**28


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model as the user made it, and as a flat graph.

    Attributes:
      graph: flat and not yet prepared; node kinds are classes of tf_keras.layers or tfq.models.layers.
      predict: the original model on arrays by input name (`graph.inputs`), [n, ...] each; its outputs
        in order. The reference for every equality check.
      framework: "keras 3.x" or "tf_keras x", with the version that wrote the file; or "tflite".
      name: the model's own name.
      compute_dtype: "float32", or the "float16" or "bfloat16" in which `predict` computes some layers.
        The graph is float32 all the same, and `predict` is then only as exact as that type.
      tflite_bytes: size of the .tflite that the model is; 0 for a Keras model.
    """

    graph: Graph
    predict: Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, ...]]
    framework: str
    name: str
    compute_dtype: str = "float32"
    tflite_bytes: int = 0


def load_model(
    source: pathlib.Path | keras.Model | tf_keras.Model,
    *,
    allow_unsafe_deserialization: bool = False,
    imports: Sequence[str] = (),
    input_shapes: InputShapes = OPEN,
) -> LoadedModel:
    """The model and its flat graph.

    Args:
      source: path of a Keras 3 `.keras` or `.h5`, a tf_keras `.h5`, `.keras` or SavedModel directory, or a float
        `.tflite`; or a live model of either framework.
      allow_unsafe_deserialization: code that the file holds may run; it is traced into nodes, as that of a live model.
      imports: modules whose layers and models a file may name; they are imported.
      input_shapes: of inputs that the model leaves open.

    Raises:
      UserError: the file cannot be read or is no such model, or the model holds something that has no
        place in a graph; the message names it and says what to do.
    """
    if isinstance(source, keras.Model):
        return _flatten(source, f"keras {keras.__version__}", input_shapes, unsafe=True)
    if isinstance(source, tf_keras.Model):
        return _flatten(source, f"tf_keras {tf_keras.__version__}", input_shapes, unsafe=True)
    if isinstance(source, (str, pathlib.Path)):
        return _read(pathlib.Path(source), allow_unsafe_deserialization, imports, input_shapes)
    raise UserError(f"got a {type(source).__name__} for a model; {FORMATS}, or a keras.Model or tf_keras.Model")


def _flatten(model: Any, framework: str, input_shapes: InputShapes, *, unsafe: bool) -> LoadedModel:
    made_by = Keras3Frontend if isinstance(model, keras.Model) else TFKerasFrontend
    frontend: Frontend = made_by(model, unsafe=unsafe, input_shapes=input_shapes)
    _check_sizes(frontend, frontend.model)
    graph = frontend.graph()
    dtype = sorted(frontend.rounded)[0] if frontend.rounded else "float32"
    return LoadedModel(graph, _batched(frontend.predict, graph, frontend.batch), framework, model.name, dtype)


def _check_sizes(frontend: Frontend, model: Any) -> None:
    """Raise UserError for a layer whose output no memory holds."""
    for call in frontend.calls(model):
        for tensor in leaves(call.outputs):
            size = math.prod(n or 1 for n in tuple(tensor.shape)[1:])
            if size > _LARGEST_SAMPLE:
                reason = f"one sample of its output is {size} numbers"
                raise refuse(f"Layer {call.layer.name!r}", reason, "build the model with smaller shapes")
        inner = frontend.graph_model(call.layer)
        if inner is not None:
            _check_sizes(frontend, inner)


def _batched(
    run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]], graph: Graph, fixed: int | None
) -> Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, ...]]:
    """`run` over any number of samples; a model of `fixed` batch size gets its last batch filled up."""

    def predict(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if set(arrays) != set(graph.inputs):
            raise UserError(f"the model's inputs are {list(graph.inputs)}, got arrays for {sorted(arrays)}")
        given = {n: np.asarray(arrays[n], graph[n].config["dtype"]) for n in graph.inputs}
        counts = {len(value) for value in given.values()}
        if len(counts) != 1 or 0 in counts:
            raise UserError(f"every input needs the same number of samples, at least 1; got {sorted(counts)}")
        count, size = counts.pop(), fixed or _BATCH
        parts = []
        for start in range(0, count, size):
            rows = np.arange(start, start + size if fixed else min(start + size, count)) % count
            parts.append([y[: count - start] for y in run({n: value[rows] for n, value in given.items()})])
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    return predict


def _read(path: pathlib.Path, unsafe: bool, imports: Sequence[str], input_shapes: InputShapes) -> LoadedModel:
    with open_model_file(path, trusted=unsafe, imports=imports) as stored:
        if stored.format == TFLITE:
            return _from_tflite(path, input_shapes)
        if stored.format == GRAPH:
            with as_tflite(path) as file:
                return dataclasses.replace(_from_tflite(file, input_shapes), tflite_bytes=0)
        model = trusted_model(stored) if unsafe else revive(stored, imports)
    framework = f"{stored.library} {stored.version or tf_keras.__version__}"
    return _flatten(model, framework, input_shapes, unsafe=unsafe or bool(imports))


def _from_tflite(path: pathlib.Path, input_shapes: InputShapes) -> LoadedModel:
    frontend = TfliteFrontend(path, input_shapes)
    graph = frontend.graph()
    predict = _batched(frontend.predict, graph, frontend.batch)
    return LoadedModel(graph, predict, TFLITE, path.stem, tflite_bytes=path.stat().st_size)
