"""Operators of a .tflite that no rule takes, carried through as functions of TensorFlow (`tfq.models.carried`).

A function here sees each tensor as [samples, *shape], shape being the file's own of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfq.models.carried import carry
from tfq.models.tflite_files import DTYPES
from tfq.models.tflite_rules.operation import Operation, Shape, Value

_Options = Mapping[str, Any]

ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "ADD": tf.add,
    "ATAN2": tf.math.atan2,
    "DIV": tf.divide,
    "EQUAL": tf.equal,
    "FLOOR_DIV": tf.math.floordiv,
    "FLOOR_MOD": tf.math.floormod,
    "GREATER": tf.greater,
    "GREATER_EQUAL": tf.greater_equal,
    "LESS": tf.less,
    "LESS_EQUAL": tf.less_equal,
    "LOGICAL_AND": tf.logical_and,
    "LOGICAL_NOT": tf.logical_not,
    "LOGICAL_OR": tf.logical_or,
    "MAXIMUM": tf.maximum,
    "MINIMUM": tf.minimum,
    "MUL": tf.multiply,
    "NOT_EQUAL": tf.not_equal,
    "POW": tf.pow,
    "ROUND": tf.round,
    "SELECT": tf.where,
    "SELECT_V2": tf.where,
    "SUB": tf.subtract,
    "ZEROS_LIKE": tf.zeros_like,
}
"""Of tensors that broadcast as in NumPy."""


def _axes(x: Any, given: Any) -> list[int]:
    """Axes of the file as those of a tensor with the samples in front."""
    return [int(axis) % (len(x.shape) - 1) + 1 for axis in np.reshape(given, -1)]


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda o, x, axis: function(x, _axes(x, axis)[0], output_type=tf.as_dtype(o["outputType"]))


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda o, x, axes: function(x, _axes(x, axes), keepdims=bool(o["keepDims"]))


def _one_hot(o: _Options, x: Any, depth: Any, on: Any, off: Any) -> Any:
    axis = int(o["axis"])
    return tf.one_hot(x, int(depth), on, off, axis=axis if axis < 0 else axis + 1)


def _joined(o: _Options, *parts: Any) -> Any:
    samples = next(tf.shape(x)[0] for x in parts if isinstance(x, tf.Tensor))
    same = [x if isinstance(x, tf.Tensor) else tf.broadcast_to(x, (samples, *x.shape)) for x in parts]
    axis = int(o["axis"])
    return tf.concat(same, axis if axis < 0 else axis + 1)


def _gathered(_: _Options, x: Any, places: Any) -> Any:
    """Parts of x by their places along its first axes, the last axis of `places`."""
    axes = places.shape[-1]
    sizes = tuple(x.shape[1 : axes + 1])
    rows = tf.reshape(x, (-1, math.prod(sizes), *x.shape[axes + 1 :]))
    return tf.gather(rows, np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), sizes), axis=1)


def _mirrored(o: _Options, x: Any, around: Any) -> Any:
    return tf.pad(x, [[0, 0], *around], "SYMMETRIC" if o["mode"] == 1 else "REFLECT")


OTHERS: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "ARG_MAX": (_extreme(tf.argmax), ("outputType",)),
    "ARG_MIN": (_extreme(tf.argmin), ("outputType",)),
    "BATCH_MATMUL": (lambda o, a, b: tf.matmul(a, b, bool(o["adjX"]), bool(o["adjY"])), ("adjX", "adjY")),
    "CAST": (lambda o, x: tf.cast(x, o["outDataType"]), ("outDataType",)),
    "CONCATENATION": (_joined, ("axis",)),
    "CUMSUM": (
        lambda o, x, axis: tf.cumsum(x, _axes(x, axis)[0], bool(o["exclusive"]), bool(o["reverse"])),
        ("exclusive", "reverse"),
    ),
    "GATHER_ND": (_gathered, ()),
    "LOCAL_RESPONSE_NORMALIZATION": (
        lambda o, x: tf.nn.local_response_normalization(
            tf.squeeze(x, 1), o["radius"], o["bias"], o["alpha"], o["beta"]
        )[:, None],
        ("radius", "bias", "alpha", "beta"),
    ),
    "MIRROR_PAD": (_mirrored, ("mode",)),
    "ONE_HOT": (_one_hot, ("axis",)),
    "REDUCE_ALL": (_reduced(tf.reduce_all), ("keepDims",)),
    "REDUCE_ANY": (_reduced(tf.reduce_any), ("keepDims",)),
    "REDUCE_MAX": (_reduced(tf.reduce_max), ("keepDims",)),
    "REDUCE_MIN": (_reduced(tf.reduce_min), ("keepDims",)),
    "REDUCE_PROD": (_reduced(tf.reduce_prod), ("keepDims",)),
    "TOPK_V2": (lambda _, x, k: tuple(tf.math.top_k(x, int(k))), ()),
}
"""(function of the options and the inputs, the options that it reads)."""
_TYPES = ("outputType", "outDataType")


def is_carried(op: Operation) -> bool:
    return op.kind in ELEMENTWISE or op.kind in OTHERS


def carried(op: Operation) -> Value | list[Value]:
    """What the operator makes, by a float node; what follows the samples in front is the file's own shape."""
    constants = {place: x for place, x in enumerate(op.inputs) if isinstance(x, np.ndarray)}
    values = {place: x for place, x in enumerate(op.inputs) if isinstance(x, Value)}
    names = OTHERS[op.kind][1] if op.kind in OTHERS else ()
    options = {n: DTYPES[op.option(n)] if n in _TYPES else op.option(n) for n in names}
    shapes = [x.shape for x in values.values()]
    tensors = [x.tensor for x in values.values()]
    made = carry(op.call, f"TFLite {op.kind}", _run, [op.kind, tensors, [*values], shapes, constants, options])
    return [op.of_whole(tensor) for tensor in made] if isinstance(made, list) else op.of_whole(made)


def _run(
    kind: str,
    tensors: Sequence[Any],
    places: Sequence[int],
    shapes: Sequence[Shape],
    constants: Mapping[int, np.ndarray],
    options: _Options,
) -> Any:
    inputs: dict[int, Any] = dict(constants)
    inputs |= {p: tf.reshape(x, (-1, *shape)) for p, x, shape in zip(places, tensors, shapes, strict=True)}
    if kind in OTHERS:
        return OTHERS[kind][0](options, *(inputs[place] for place in sorted(inputs)))
    rank = max(len(shape) for shape in (*shapes, *(x.shape for x in constants.values())))
    for place, shape in zip(places, shapes, strict=True):
        inputs[place] = tf.reshape(inputs[place], (-1, *(1,) * (rank - len(shape)), *shape))
    numbers = [inputs[place].dtype for place in places if inputs[place].dtype != tf.bool]
    for place, value in constants.items():  # the graph's integers are int32, whatever the file's are
        inputs[place] = tf.constant(value, numbers[0] if numbers and value.dtype != bool else None)
    return ELEMENTWISE[kind](*(inputs[place] for place in sorted(inputs)))
