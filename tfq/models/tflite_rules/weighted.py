"""Convolutions, products of matrices and look-ups of a .tflite: their weights in Keras' layout.

CONV_2D            [outputs, rows, columns, inputs]               -> [rows, columns, inputs, outputs]
DEPTHWISE_CONV_2D  [1, rows, columns, channels * multiplier]      -> [rows, columns, channels, multiplier]
TRANSPOSE_CONV     [outputs, rows, columns, inputs]               -> [rows, columns, outputs, inputs]
FULLY_CONNECTED    [outputs, inputs]                              -> [inputs, outputs]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models import operations, shaping
from tfq.models.flatten import Tensor
from tfq.models.tflite_rules.operation import Blocks, Operation, Rule, Value

_PADDINGS = ("same", "valid")


def padding(op: Operation) -> str:
    """Keras' word for the padding of a window."""
    return _PADDINGS[op.option("padding")]


def strides(op: Operation) -> tuple[int, int]:
    return op.option("strideH", 1), op.option("strideW", 1)


def _with_bias(weights: Mapping[str, np.ndarray], bias: np.ndarray | None) -> dict[str, np.ndarray]:
    return {**weights, **({} if bias is None else {"bias": bias.reshape(-1)})}


def _seen(op: Operation) -> tuple[Tensor, tuple[int, int]]:
    """The image that a convolution reads, and the dilation by which it reads it."""
    x = op.value(0)
    dilation = op.option("dilationHFactor", 1), op.option("dilationWFactor", 1)
    if not isinstance(x, Blocks):
        return op.image(), dilation
    if padding(op) != "valid" or {*strides(op), *dilation} != {1}:
        raise op.refuse("it pads, strides or dilates among blocks", "export it as a dilated convolution")
    return x.tensor, x.block


def _convolution(op: Operation, kind: str, config: Mapping[str, Any], name: str, kernel: np.ndarray) -> Value:
    (image, dilation), bias, stride = _seen(op), op.optional(2), strides(op)
    if max(dilation) > 1 and max(stride) > 1:
        raise op.refuse(f"its strides are {stride} and its dilation is {dilation}", "use one of the two")
    config = {
        **config, "kernel_size": kernel.shape[:2], "strides": stride, "padding": padding(op), "dilation_rate": dilation,
        "use_bias": bias is not None,
    }  # fmt: skip
    weights = _with_bias({name: np.ascontiguousarray(kernel)}, bias)
    made = op.of(op.call.add(kind, config, [image], weights=weights))
    return Blocks(made.tensor, made.shape, dilation) if isinstance(op.value(0), Blocks) else made


def conv_2d(op: Operation) -> Value:
    kernel = op.constant(1).transpose(1, 2, 3, 0)
    channels = _seen(op)[0].sample[-1]
    groups, rest = divmod(channels, kernel.shape[2])
    if rest or kernel.shape[3] % groups:
        raise op.refuse(f"its kernel of shape {list(op.constant(1).shape)} does not fit {channels} channels")
    return _convolution(op, "Conv2D", {"filters": kernel.shape[3], "groups": groups}, "kernel", kernel)


def depthwise_conv_2d(op: Operation) -> Value:
    channels = _seen(op)[0].sample[-1]
    _, rows, columns, outputs = op.constant(1).shape
    if outputs % channels:
        raise op.refuse(f"its kernel of shape {list(op.constant(1).shape)} does not fit {channels} channels")
    if len(set(strides(op))) > 1:
        raise op.refuse(f"its strides {strides(op)} are not equal", "use equal strides")
    kernel = op.constant(1).reshape(rows, columns, channels, outputs // channels)
    return _convolution(op, "DepthwiseConv2D", {"depth_multiplier": kernel.shape[3]}, "depthwise_kernel", kernel)


def transpose_conv(op: Operation) -> Value:
    """Its first input says how large the output is: Keras' own size, or by how much it is more than the least."""
    kernel, x, bias = op.constant(1).transpose(1, 2, 0, 3), op.image(2), op.optional(3)
    wanted, window, stride = op.constant(0)[1:3], kernel.shape[:2], strides(op)
    around = [2 * (size // 2) if padding(op) == "same" else 0 for size in window]
    least = [(n - 1) * s + k - a for n, s, k, a in zip(x.sample, stride, window, around, strict=False)]
    more = tuple(int(size) - low for size, low in zip(wanted, least, strict=True))
    usual = padding(op) == "same" and all(size == n * s for size, n, s in zip(wanted, x.sample, stride, strict=False))
    if not usual and any(not 0 <= extra < s for extra, s in zip(more, stride, strict=True)):
        raise op.refuse(f"its output is {wanted.tolist()}, not one of those that its strides {stride} give")
    config = {
        "filters": kernel.shape[2], "kernel_size": window, "strides": stride, "padding": padding(op),
        "output_padding": None if usual else more, "use_bias": bias is not None,
    }  # fmt: skip
    weights = _with_bias({"kernel": np.ascontiguousarray(kernel)}, bias)
    return op.of(op.call.add("Conv2DTranspose", config, [x], weights=weights))


def dense(op: Operation, x: Tensor, kernel: np.ndarray, bias: np.ndarray | None = None) -> Tensor:
    """Over the last axis of `x`; `kernel` [inputs, units]."""
    config = {"units": kernel.shape[1], "use_bias": bias is not None}
    weights = _with_bias({"kernel": np.ascontiguousarray(kernel)}, bias)
    return op.call.add("Dense", config, [x], weights=weights, shape=(*x.shape[:-1], kernel.shape[1]))


def fully_connected(op: Operation) -> Value:
    """Rows of as many numbers as the weights have inputs, whatever shape they come in."""
    x, weights = op.value(0), op.inputs[1]
    if weights is None:
        raise op.refuse("it has no weights")
    units, features = weights.shape
    rows = math.prod(x.shape) // features
    if x.shape[-1] != features or isinstance(weights, Value):
        x = op.shaped(x, (rows, features))
    if isinstance(weights, Value):
        product = operations.matmul(op.call, op.whole(x), op.whole(weights), transpose_b=True)
        bias = op.optional(2)
        made = op.of_whole(product if bias is None else operations.add(op.call, product, bias))
    else:
        (tensor,), front = op.along([x], free=x.rank > 1)
        made = op.made(dense(op, tensor, weights.T, op.optional(2)), front)
    return made if op.option("keepNumDims", False) else op.shaped(made, (rows, units))


def batch_matmul(op: Operation) -> Value:
    """a @ b; a constant b makes it a Dense layer, and a constant a one between transposes: (a @ b)^T = b^T @ a^T."""
    a, b = op.inputs[:2]
    turned = [bool(op.option("adjX", False)), bool(op.option("adjY", False))]
    if isinstance(a, Value) and isinstance(b, Value):
        rank = max(a.rank, b.rank)
        values = [op.shaped(v, (1,) * (rank - v.rank) + v.shape) for v in (a, b)]
        (left, right), front = op.along(values, free=rank > 2)
        return op.made(operations.matmul(op.call, left, right, *turned), front)
    behind = isinstance(b, Value)
    x, matrix = op.value(int(behind)), op.constant(int(not behind))
    if math.prod(matrix.shape[:-2]) != 1:
        raise op.refuse(f"it multiplies by a constant of shape {list(matrix.shape)}", "multiply by one matrix")
    matrix = matrix.reshape(matrix.shape[-2:])
    turn_x, turn_matrix = (turned[place] != behind for place in (int(behind), int(not behind)))
    (tensor,), front = op.along([x], free=x.rank > 2 or not (turn_x or behind))
    made = dense(op, _turned(op, tensor, turn_x), matrix.T if turn_matrix else matrix)
    return op.made(_turned(op, made, behind), front)


def _turned(op: Operation, tensor: Tensor, wanted: bool) -> Tensor:
    """The last two axes swapped, if that is wanted."""
    return shaping.swap_axes(op.call, tensor, -1, -2) if wanted else tensor


def _lookup(op: Operation, table: np.ndarray, indices: Value) -> Value:
    if table.ndim != 2:
        raise op.refuse(f"it looks up in a table of shape {list(table.shape)}", "use a table [entries, features]")
    config = {"input_dim": table.shape[0], "output_dim": table.shape[1]}
    shape = (*indices.tensor.shape, table.shape[1])
    made = op.call.add(
        "Embedding", config, [indices.tensor], weights={"embeddings": table}, shape=shape, dtype="float32"
    )
    return Value(made, (*indices.shape, table.shape[1]))


def embedding_lookup(op: Operation) -> Value:
    return _lookup(op, op.constant(1), op.value(0))


def gather(op: Operation) -> Value:
    """Rows of a constant table by indices, or constant places of a tensor."""
    table = op.inputs[0]
    if not isinstance(table, Value):
        if op.option("axis") or op.option("batchDims"):
            raise op.refuse("it looks up along an axis that is not the first", "use the first axis")
        return _lookup(op, op.constant(0), op.value(1))
    places = op.constant(1)
    axis = op.option("axis") % table.rank
    if op.option("batchDims") or places.ndim > 1:
        raise op.refuse(f"it takes places of the shape {list(places.shape)}", "use one list of places")
    (tensor,), front = op.along([table], free=axis > 0)
    parts = [
        shaping.get_item(op.call, tensor, (slice(None),) * (axis + front) + (part,))
        for part in _runs(np.atleast_1d(places) % table.shape[axis])
    ]
    made = op.made(shaping.concatenate(op.call, parts, axis + front), front)
    return made if places.ndim else op.shaped(made, (*table.shape[:axis], *table.shape[axis + 1 :]))


def _runs(places: Sequence[int]) -> list[slice]:
    """Neighbouring places as one slice."""
    found: list[slice] = []
    for place in map(int, places):
        if found and found[-1].stop == place:
            found[-1] = slice(found[-1].start, place + 1)
        else:
            found.append(slice(place, place + 1))
    return found


RULES: Mapping[str, Rule] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "TRANSPOSE_CONV": transpose_conv,
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": batch_matmul,
    "EMBEDDING_LOOKUP": embedding_lookup,
    "GATHER": gather,
}
