"""What tfq has no rule for, carried through: a library's layer, operation or function as a node of kind "Carried".

Such a node computes in float32 whatever stands beside it, and its weights stay as they are. Between carried nodes lie
tensors of any type, integers and truth values too; they have no grid. A node has one output: several are laid one
behind the other in a float32 tensor [batch, numbers], from which further carried nodes select.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.models.flatten import INPUT_DTYPES, Call, Tensor, float32_for
from tfq.models.graph import Node, call_layer, layer_class, variable_names
from tfq.models.refusals import short_cause

Form = tuple[tuple[int | None, ...], str]
"""Shape with the batch axis, and type."""
_TRIED = 13  # samples: no model has as many in a constant
_TYPES = ("bool", *INPUT_DTYPES)
_SELECTING = frozenset(
    f"{library}{name}"
    for library, names in {
        "": "CenterCrop",
        "keras.ops.": "Amax Amin BroadcastTo CropImages Diag Diagonal Flip Fliplr Flipud Max MaxPool Min Moveaxis"
        " PadImages Ravel Repeat Roll Rot90 Slice Sort Take TakeAlongAxis Tile Tril Triu",
        "tf.": "broadcast_to gather gather_nd linalg.band_part linalg.diag linalg.diag_part math.reduce_max"
        " math.reduce_min repeat reverse reverse_sequence roll slice sort strided_slice tile",
        "TFLite ": "GATHER_ND MIRROR_PAD REDUCE_MAX REDUCE_MIN",
    }.items()
    for name in names.split()
)


@dataclasses.dataclass(frozen=True)
class Slot:
    """Stands among the arguments for what the node reads: its input of this number."""

    index: int


BATCH = Slot(-1)
"""Stands for the number of samples."""


@dataclasses.dataclass(frozen=True, eq=False)
class Same:
    """Stands for a constant [1, ...] that lies beside tensors in a list: the same for every sample of the batch."""

    value: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """What a carried node computes: function(*args, **kwargs), with tensors in the places of the slots.

    Attributes:
      name: what a report calls it: "LSTM", "keras.ops.Where", "tf.gather".
      function: of TensorFlow tensors.
      args, kwargs: lists and dicts of slots and constants.
      reads: the types for which the function is meant; what the node reads is cast to them.
      form: of the node's output.
      outputs: forms of the function's outputs where there are several; their node gives them in one tensor.
      variables: of a layer, by the names of the node's weights.
      identity: tells the function from others of that name.
    """

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    reads: tuple[str, ...]
    form: Form
    outputs: tuple[Form, ...] = ()
    variables: Mapping[str, tf.Variable] = dataclasses.field(default_factory=dict)
    identity: str = ""

    @property
    def selects(self) -> int | None:
        """Number of the one float tensor that it reads, where all that it gives are values of that, or 0."""
        floats = [index for index, dtype in enumerate(self.reads) if dtype == "float32"]
        return floats[0] if self.name in _SELECTING and len(floats) == 1 and not self.outputs else None

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """All that the function gives."""
        given = [tf.cast(x, dtype) for x, dtype in zip(tensors, self.reads, strict=True)]

        def value(leaf: Any) -> Any:
            if isinstance(leaf, Same):
                return tf.broadcast_to(leaf.value, [tf.shape(given[0])[0], *leaf.value.shape[1:]])
            if leaf is BATCH:
                return given[0].shape[0] or tf.shape(given[0])[0]
            return given[leaf.index] if isinstance(leaf, Slot) else leaf

        args, kwargs = replaced(value, (self.args, self.kwargs))
        return leaves(self.function(*args, **kwargs))

    def __call__(self, tensors: Sequence[Any]) -> Any:
        """The output of the node."""
        found = self.run(tensors)
        if not self.outputs:
            return tf.cast(found[0], self.form[1])
        rows = [
            tf.reshape(tf.cast(x, tf.float32), (-1, _size(form))) for x, form in zip(found, self.outputs, strict=True)
        ]
        return tf.concat(rows, -1)

    def __repr__(self) -> str:
        """The same for works that compute the same."""
        told = replaced(_told, (self.args, self.kwargs))
        return f"{self.name} {self.identity} {told} {self.reads} {self.form} {self.outputs}"


def replaced(function: Callable[[Any], Any], structure: Any) -> Any:
    """`structure` with `function` of every leaf of its lists, tuples, dicts and slices."""
    if isinstance(structure, Mapping):
        return {key: replaced(function, value) for key, value in structure.items()}
    if isinstance(structure, slice):
        return slice(*(replaced(function, v) for v in (structure.start, structure.stop, structure.step)))
    if isinstance(structure, (list, tuple)):
        made = [replaced(function, value) for value in structure]
        return tuple(made) if isinstance(structure, tuple) else made
    return function(structure)


def leaves(structure: Any) -> list[Any]:
    """In Keras' order: dicts by sorted key."""
    if isinstance(structure, Mapping):
        return [leaf for key in sorted(structure) for leaf in leaves(structure[key])]
    if isinstance(structure, (list, tuple)):
        return [leaf for value in structure for leaf in leaves(value)]
    return [structure]


def carry(
    call: Call,
    name: str,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    variables: Mapping[str, tf.Variable] | None = None,
    identity: str = "",
) -> Any:
    """Add the carried node of one call of `function`; its output `Tensor`, or a list where there are several.

    Args:
      call: to which the node is added.
      name, function, variables, identity: as in `Work`.
      args, kwargs: of the function: constants, and a `Tensor` where it reads one, in lists, dicts and slices.

    Raises:
      NoRuleError: it cannot be called by itself; or its output has no batch axis, or sizes that are not known.
    """
    inputs = list(dict.fromkeys(v for v in leaves([list(args), kwargs or {}]) if isinstance(v, Tensor)))
    place = {tensor: Slot(index) for index, tensor in enumerate(inputs)}
    beside = _beside_tensors([list(args), kwargs or {}])

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return place[value]
        return Same(np.asarray(value)) if id(value) in beside else value

    given, named = replaced(leaf, (list(args), dict(kwargs or {})))
    work = Work(
        name, function, given, named, tuple(t.dtype for t in inputs), ((), ""), variables=variables or {},
        identity=identity,
    )  # fmt: skip
    batch = call.flattener.batch or _TRIED
    forms = tuple((tuple(shape), float32_for(dtype)) for shape, dtype in _traced_forms(call, work, inputs, batch))
    for shape, dtype in forms:
        if shape[:1] not in ((batch,), (None,)) or None in shape[1:]:
            shown = f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
            raise call.refuse(f"{name} gives the shape {shown} for a batch of {batch}", "let it keep samples apart")
        if dtype not in _TYPES:
            raise call.refuse(f"{name} gives {dtype} values", f"use {', '.join(_TYPES)}")
    forms = tuple(((None, *shape[1:]), dtype) for shape, dtype in forms)
    if len(forms) == 1:
        return _node(call, dataclasses.replace(work, form=forms[0]), inputs)
    sizes = [_size(form) for form in forms]
    joined = _node(call, dataclasses.replace(work, form=((None, sum(sizes)), "float32"), outputs=forms), inputs)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        carry(call, f"{name}:{i}", selected, [joined, start, _size(form), form[0][1:], form[1]])
        for i, (start, form) in enumerate(zip(starts, forms, strict=True))
    ]


def _beside_tensors(structure: Any) -> set[int]:
    """Identities of the arrays [1, ...] in lists that hold tensors of as many axes."""
    if isinstance(structure, Mapping):
        return set().union(*map(_beside_tensors, structure.values()))
    if not isinstance(structure, (list, tuple)):
        return set()
    ranks = {value.rank for value in structure if isinstance(value, Tensor)}
    found = {id(v) for v in structure if isinstance(v, np.ndarray) and v.ndim in ranks and v.shape[0] == 1}
    return found.union(*map(_beside_tensors, structure))


def _traced_forms(call: Call, work: Work, inputs: Sequence[Tensor], batch: int) -> list[Form]:
    """Of what the function of `work` gives for so many samples."""
    specs = [tf.TensorSpec((batch, *tensor.shape[1:]), tensor.dtype) for tensor in inputs]
    run = tf.function(lambda *tensors: work.run(tensors), autograph=False)
    try:
        found = run.get_concrete_function(*specs).structured_outputs
    except Exception as error:
        raise call.refuse(f"{work.name} does not run by itself ({short_cause(error)})") from None
    return [(tuple(t.shape), t.dtype.name) for t in found]


def selected(joined: Any, start: int, size: int, shape: Sequence[int], dtype: str) -> Any:
    """One of several outputs that lie in one tensor."""
    return tf.cast(tf.reshape(joined[:, start : start + size], (-1, *shape)), dtype)


def carried_node(node: Node, inputs: Sequence[Sequence[int]], output: Sequence[int]) -> Node:
    """A node of floats that no rule can be applied to, carried; shapes are those of one sample."""
    layer = layer_class(node.kind)(**node.config)
    call_layer(layer, [tf_keras.Input(shape) for shape in inputs])  # makes its variables
    work = Work(
        node.kind,
        lambda *tensors: call_layer(layer, tensors),
        [Slot(index) for index in range(len(inputs))],
        {},
        ("float32",) * len(inputs),
        ((None, *output), "float32"),
        variables=dict(zip(variable_names(layer), layer.weights, strict=True)),
        identity=repr(sorted(node.config.items())),
    )
    return node.replace(kind="Carried", config={"work": work})


def weight_names(names: Sequence[str]) -> list[str]:
    """Every name once: "kernel", "kernel.1"."""
    return [f"{n}.{names[:i].count(n)}" if n in names[:i] else n for i, n in enumerate(names)]


def _node(call: Call, work: Work, inputs: Sequence[Tensor]) -> Tensor:
    weights = {name: call.flattener.array(variable) for name, variable in work.variables.items()}
    return call.add("Carried", {"work": work}, inputs, weights=weights, shape=work.form[0], dtype=work.form[1])


def _size(form: Form) -> int:
    return math.prod(size or 1 for size in form[0][1:])


def _told(value: Any) -> Any:
    value = value.value if isinstance(value, Same) else value
    if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable)):
        array = np.asarray(value)
        return array.dtype.name, array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    return value
