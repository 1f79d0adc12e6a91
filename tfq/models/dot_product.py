"""Masked softmax, and attention as products of matrices around it (Vaswani et al. 2017, arXiv:1706.03762, eq. 1).

A mask is a comparison or whole numbers, which have no grid: it is carried. `tfq.models.bounded_masks` then makes a sum
of it where the softmax is to compute in integers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfq.models import operations
from tfq.models.flatten import Call, OperatorRow, Tensor
from tfq.models.operations import Value
from tfq.models.shaping import transpose

_MASKED = -1e9


def masked_softmax(call: Call, x: Tensor, mask: Value, axis: int = -1, *, zeroed: bool = False) -> Tensor:
    """softmax(x) of what the mask keeps, which broadcasts to x.

    Args:
      zeroed: what is masked is 0 where a whole row is; else such a row has equal values.
    """
    y = operations.softmax(call, _chosen(call, x, mask, _MASKED), axis)
    return _chosen(call, y, mask, 0.0) if zeroed else y


def softmax_layer(call: Call, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """A Softmax layer of either Keras that is called with a mask."""
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    axes = np.reshape(layer.axis, -1)
    if given.get("mask") is None or axes.size > 1:
        raise call.refuse(f"it works along the axes {axes.tolist()}, with a mask or without")
    nothing_kept = np.asarray(type(layer)()(np.zeros((1, 2), np.float32), mask=np.zeros((1, 2), bool)))
    return masked_softmax(call, given["inputs"], given["mask"], int(axes[0]), zeroed=not nothing_kept.any())


def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, bias: Value, mask: Value, scale: Any, is_causal: bool
) -> Tensor:
    """softmax(scale Q K^T + bias) V of tensors [batch, time, heads, depth]."""
    if not query.sample[1] == key.sample[1] == value.sample[1]:
        heads = [x.sample[1] for x in (query, key, value)]
        raise call.refuse(f"its query, key and value have {heads} heads", "give them the same number")
    scale = 1 / math.sqrt(query.sample[-1]) if scale is None else scale
    q, k, v = (transpose(call, x, (0, 2, 1, 3)) for x in (operations.multiply(call, query, scale), key, value))
    scores = operations.matmul(call, q, k, transpose_b=True)
    scores = scores if bias is None else operations.add(call, scores, bias)
    if is_causal:
        rows, columns = scores.sample[-2:]
        scores = _chosen(call, scores, np.tri(rows, columns)[None, None], _MASKED)
    weights = operations.softmax(call, scores) if mask is None else masked_softmax(call, scores, mask)
    return transpose(call, operations.matmul(call, weights, v), (0, 2, 1, 3))


def einsum(call: Call, equation: str, operands: Sequence[Value]) -> Tensor:
    """A sum of products as one product of matrices: of two tensors, or of a tensor and a constant.

    Letters of both operands and of the result stay outside; those of both alone are what is summed over.
    """
    read, _, wanted = equation.replace(" ", "").partition("->")
    names = read.split(",")
    if len(names) != 2 or not all(part.isalpha() and len(set(part)) == len(part) for part in (*names, wanted)):
        raise call.refuse(f"no rule is known for einsum {equation!r}", "write it as a product of two tensors")
    places = [min((wanted.index(x) for x in own if x in wanted and x not in other), default=-1)
              for own, other in (names, names[::-1])]  # fmt: skip
    if not isinstance(operands[0], Tensor) or (isinstance(operands[1], Tensor) and places[0] > places[1]):
        names, operands = names[::-1], operands[::-1]
    (first, second), (a, b) = names, operands
    samples = "" if isinstance(b, np.ndarray) else first[0]
    outside = [x for x in wanted if x in first and x in second]
    rows, columns = ([x for x in wanted if x in own and x not in other] for own, other in (names, names[::-1]))
    summed = [x for x in first if x in second and x not in wanted]
    parts = (outside, rows, summed, columns)
    if (
        not set(first) | set(second) == {x for part in parts for x in part}
        or not first[0] == wanted[0] == (samples or rows[0])
        or (samples and second[0] != samples)
        or (outside and not samples)
        or not summed
    ):
        raise call.refuse(f"no rule is known for einsum {equation!r}", "write it as a product of matrices")
    sizes = dict(zip(first, a.shape, strict=True)) | dict(zip(second, b.shape, strict=True))

    def matrices(x: Value, own: str, *parts: Sequence[str]) -> Value:
        """With the axes in front and one axis for each part."""
        order = [own.index(letter) for letter in (*outside, *(letter for part in parts for letter in part))]
        shape = [*(sizes[letter] for letter in outside), *(math.prod(sizes[x] or 1 for x in part) for part in parts)]
        if not isinstance(x, Tensor):
            return np.transpose(x, order).reshape(shape)
        return operations.reshape(call, transpose(call, x, order), [None, *shape[1:]])

    if samples:
        turned = second[-1] in summed
        right = matrices(b, second, columns, summed) if turned else matrices(b, second, summed, columns)
        product = operations.matmul(call, matrices(a, first, rows, summed), right, transpose_b=turned)
    else:
        flat = matrices(a, first, rows[:1], rows[1:], summed)
        product = operations.matmul(call, flat, matrices(b, second, summed, columns))
    made = [*outside, *rows, *columns]
    apart = operations.reshape(call, product, [None, *(sizes[x] for x in made[1:])])
    return transpose(call, apart, [made.index(x) for x in wanted])


def _chosen(call: Call, x: Tensor, mask: Value, other: float) -> Tensor:
    """`x` where the mask is above 1/2 or true, else a number."""
    import tensorflow as tf

    from tfq.models.carried import carry

    def where(x: Any, mask: Any) -> Any:
        return tf.where(tf.cast(mask, tf.float32) > 0.5, x, other)

    return carry(call, "where", where, [x, mask], identity=str(other))


ROWS = (
    OperatorRow(attention, {"DotProductAttention": "query key value bias mask scale is_causal"}, {}),
    OperatorRow(einsum, {"Einsum": "subscripts operands"}, {"einsum": "equation inputs"}),
)
