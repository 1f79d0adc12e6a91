"""What both frontends share: the growing list of nodes, their names, and the checks on layers.

A frontend walks the calls of a Keras model in topological order. For each it opens a `Call`, which
gives the nodes it adds readable unique names, the user's own names as `origin`, and one `group` for
all calls of one layer.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfq.errors import UserError
from tfq.input_shapes import InputShapes
from tfq.models.graph import INPUT, Graph, Node, output_shape
from tfq.models.keras_layers import LAYERS
from tfq.models.refusals import NoRuleError, refuse

INPUT_DTYPES = ("float32", "int8", "int16", "int32", "int64", "uint8")
_ROUNDED = ("float16", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The output of a node: its name, its shape with the batch axis (always None), its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def sample(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(size for size in self.shape[1:] if size is not None)

    @property
    def sample_size(self) -> int:
        """Elements of one sample."""
        return math.prod(self.sample)

    @property
    def is_float(self) -> bool:
        return self.dtype == "float32"


def float32_for(dtype: str) -> str:
    """The dtype a tensor has in the graph: every float is float32."""
    return "float32" if dtype in _ROUNDED else dtype


def readable(name: str) -> str:
    """`name` with every character that a node name must not have replaced; TensorFlow also objects to "_" in front."""
    return re.sub(r"^(?=[_-])", "layer", re.sub(r"[^A-Za-z0-9_.-]+", "_", name))


class Flattener:
    """The nodes found so far.

    Args:
      paths: of every layer: the names of the models around it, then its own.
      batch: the batch size that the model fixes, or None.
      shapes: of inputs that the model leaves open.
    """

    def __init__(self, paths: Iterable[tuple[str, ...]], *, batch: int | None, shapes: InputShapes):
        self.batch, self.shapes = batch, shapes
        self._nodes: list[Node] = []
        self._names: set[str] = set()
        self._groups: dict[int, str] = {}
        self._arrays: dict[int, np.ndarray] = {}
        self._kept: list[Any] = []  # what the two tables are keyed by must outlive them
        self._suffixes = collections.Counter(
            tuple(map(readable, path[-k:])) for path in dict.fromkeys(paths) for k in range(1, len(path) + 1)
        )

    def unique(self, name: str) -> str:
        if name in self._names:
            name = next(f"{name}.{i}" for i in range(1, len(self._names) + 1) if f"{name}.{i}" not in self._names)
        self._names.add(name)
        return name

    def input(self, name: str, shape: Sequence[int | None], dtype: str) -> Tensor:
        """Add an input; `shape` has the batch axis."""
        if not shape:
            raise refuse(f"Input {name!r}", "it has no batch axis", "give it a shape without batch_shape=()")
        sample = self.shapes.of(name, shape[1:])
        dtype = float32_for(dtype)
        if dtype not in INPUT_DTYPES:
            raise refuse(f"Input {name!r}", f"its dtype is {dtype}", f"use one of {', '.join(INPUT_DTYPES)}")
        node = Node(self.unique(readable(name)), INPUT, {"shape": sample, "dtype": dtype}, origin=(name,))
        self._nodes.append(node)
        return Tensor(node.name, (None, *sample), dtype)

    def call(self, path: tuple[str, ...], layer: Any) -> Call:
        """Open one call of `layer`, which lies at `path`."""
        parts = tuple(map(readable, path))
        shortest = next(
            (k for k in range(1, len(parts)) if self._suffixes[parts[-k:]] == 1),
            len(parts),
        )
        name = self.unique(".".join(parts[-shortest:]))
        self._kept.append(layer)
        return Call(self, name, "/".join(path), self._groups.setdefault(id(layer), name))

    def is_count(self, tensor: Tensor) -> bool:
        """Whether the tensor holds integers or truth values that a node computes: no input, and no moved input."""
        if tensor.is_float:
            return False
        nodes = {node.name: node for node in self._nodes}
        node = nodes[tensor.name]
        while node.kind != INPUT and len(node.inputs) == 1 and node.kind != "Carried":
            node = nodes[node.inputs[0]]
        return node.kind != INPUT

    def count(self, kind: str) -> int:
        """Nodes of this kind."""
        return sum(node.kind == kind for node in self._nodes)

    @contextlib.contextmanager
    def attempt(self, call: Call) -> Iterator[None]:
        """Take back what was added inside if it ends in an error."""
        nodes, names, suffixes = len(self._nodes), set(self._names), list(call.suffixes)
        try:
            yield
        except BaseException:
            del self._nodes[nodes:]
            self._names, call.suffixes = names, suffixes
            raise

    def first_of(self, call: Call, ways: Sequence[Callable[[], Any]]) -> Any:
        """What the first of the `ways` gives that can be gone; the last is to carry the operation as it is."""
        for way in ways[:-1]:
            with contextlib.suppress(NoRuleError), self.attempt(call):
                return way()
        return ways[-1]()

    def array(self, variable: Any) -> np.ndarray:
        """The value of a Keras variable, the same object at every call."""
        if id(variable) not in self._arrays:
            value = np.asarray(variable.numpy())
            self._arrays[id(variable)] = value.astype(float32_for(value.dtype.name), copy=False)
            self._kept.append(variable)
        return self._arrays[id(variable)]

    def append(self, node: Node) -> None:
        for variable, value in node.weights.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = int(np.size(value) - np.isfinite(value).sum())
                raise UserError(
                    f"Layer {node.origin[0]!r} has {bad} NaN or infinite values of {value.size} in its {variable};"
                    " every weight must be finite: train again or load an earlier checkpoint"
                )
        self._nodes.append(node)

    def graph(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], output_names: Sequence[str]) -> Graph:
        """The finished graph, without the nodes that no output needs."""
        needed = {t.name for t in (*inputs, *outputs)}
        kept = []
        for node in reversed(self._nodes):
            if node.name in needed:
                needed.update(node.inputs)
                kept.append(node)
        names: list[str] = []
        for name in output_names:
            again = sum(other == name for other in output_names[: len(names)])
            names.append(f"{name}_{again}" if again else name)
        return Graph(tuple(reversed(kept)), tuple(t.name for t in inputs), tuple(t.name for t in outputs), tuple(names))


@dataclasses.dataclass
class Call:
    """One call of a layer or operator: its first node is called `name`, later ones `name.kind`."""

    flattener: Flattener
    name: str
    user_name: str
    group: str
    suffixes: list[str] = dataclasses.field(default_factory=list)  # of the nodes added so far

    def add(
        self,
        kind: str,
        config: Mapping[str, Any] | None = None,
        inputs: Sequence[Tensor] = (),
        *,
        weights: Mapping[str, np.ndarray] | None = None,
        shape: Sequence[int | None] | None = None,
        dtype: str | None = None,
    ) -> Tensor:
        """Add a node. `shape` (with the batch axis) and `dtype` describe its output; default: worked out."""
        config = dict(config or {})
        suffix = f".{kind.lower()}" if self.suffixes else ""
        self.suffixes.append(suffix)
        again = self.suffixes.count(suffix) - 1
        suffix += f".{again}" if again else ""
        name = self.flattener.unique(self.name + suffix) if suffix else self.name
        if shape is None or None in tuple(shape)[1:]:
            shape = output_shape(kind, config, [(t.shape, t.dtype) for t in inputs])
        node = Node(
            name,
            kind,
            config,
            tuple(t.name for t in inputs),
            dict(weights or {}),
            origin=(self.user_name,),
            group=self.group + suffix,
        )
        self.flattener.append(node)
        return Tensor(name, (None, *tuple(shape)[1:]), float32_for(dtype or inputs[0].dtype))

    def refuse(self, reason: str, way_out: str = "rebuild the model without it") -> NoRuleError:
        """Why no rule can be applied."""
        return NoRuleError(str(self.forbid(reason, way_out)))

    def forbid(self, reason: str, way_out: str = "rebuild the model without it") -> UserError:
        """Why there can be no node at all."""
        return refuse(f"Layer {self.user_name!r}", reason, way_out)


@dataclasses.dataclass(frozen=True)
class OperatorRow:
    """An operator of either framework. A model file may name it.

    Attributes:
      rule: adds its nodes to a `Call` and returns its output; gets the call, then the arguments listed.
      keras: class name among the operations of keras.ops -> its arguments, or attributes of the operation.
      tensorflow: the public symbol under which tf_keras records a function -> its arguments; "a|b": the one given.
    """

    rule: Callable[..., Any]
    keras: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tensorflow: Mapping[str, str] = dataclasses.field(default_factory=dict)


def add_layer(
    call: Call,
    kind: str,
    config: Mapping[str, Any],
    inputs: Sequence[Tensor],
    weights: Mapping[str, np.ndarray],
    *,
    activate: Callable[[Call, Tensor], Tensor] | None,
    shape: Sequence[int | None],
    dtype: str,
) -> Tensor:
    """Add a layer of `tf_keras.layers`, checked; `activate` adds what follows an activation tf_keras lacks."""
    config = {key: value for key, value in config.items() if key != "mask_zero"}  # who reads a mask is given it
    if kind == "Normalization":
        return _normalization(call, config, inputs[0], weights)
    if kind == "BatchNormalization":
        axis = _single_axis(config["axis"])
        if axis not in (-1, inputs[0].rank - 1):
            raise call.refuse(f"it normalises axis {axis}, not the last", "build the model again with axis=-1")
        config = {**config, "axis": -1}
    if LAYERS[kind].merges and len({t.rank for t in inputs}) > 1:
        raise call.refuse(f"its inputs have the ranks {[t.rank for t in inputs]}", "reshape them to one rank")
    if kind == "Activation" and activate is not None:
        return activate(call, inputs[0])
    out = call.add(kind, config, inputs, weights=weights, shape=shape, dtype=dtype)
    return out if activate is None else activate(call, out)


def _single_axis(axis: Any) -> int:
    return int(axis[0]) if isinstance(axis, Sequence) and len(axis) == 1 else axis


def _normalization(call: Call, config: Mapping[str, Any], value: Tensor, weights: Mapping[str, np.ndarray]) -> Tensor:
    """(x - mean) / max(sqrt(variance), 1e-7), Keras' Normalization, as one Affine on the last axis."""
    mean, variance = (
        np.asarray(weights[name] if config.get(name) is None else config[name], "float32").reshape(-1)
        for name in ("mean", "variance")
    )
    channels = value.sample[-1]
    if mean.size not in (1, channels) or (mean.size > 1 and _single_axis(config["axis"]) not in (-1, value.rank - 1)):
        raise call.refuse(f"it normalises axis {config['axis']}, not the last", "use axis=-1")
    scale = 1.0 / np.maximum(np.sqrt(variance), np.float32(1e-7))
    offset = -mean * scale
    if config.get("invert"):
        scale, offset = 1.0 / scale, mean
    if not value.is_float:
        value = call.add("Rescaling", {"scale": 1.0}, [value], shape=value.shape, dtype="float32")
    arrays = {n: np.broadcast_to(v, channels).astype("float32") for n, v in (("scale", scale), ("offset", offset))}
    return call.add("Affine", {}, [value], weights=arrays, shape=value.shape)
